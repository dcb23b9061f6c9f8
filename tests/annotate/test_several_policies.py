"""Comparisons whose places several policies share: who is asked for how many, and what happens where one cannot."""

from collections import Counter

import pytest
from django.utils import timezone

from annotate import assignments, comparisons, generation, iterations, policies, rankings
from annotate.models import Assignment, Comparison, Completion, GenerationRequest, Policy, ProjectPolicy
from tests import factory

pytestmark = pytest.mark.django_db

State = Comparison.State


def sampling(project) -> Comparison:
    return Comparison.objects.get(message__conversation=factory.finished_chat(project))


def policies_of(project) -> list[Policy]:
    return [row.policy for row in ProjectPolicy.objects.filter(project=project).order_by("id")]


def asked(comparison: Comparison, policy: Policy) -> GenerationRequest:
    """The one request that waits for this policy."""
    return comparison.requests.get(policy=policy, state="waiting")


def failed(request: GenerationRequest, reason: str = "Out of memory.") -> None:
    factory.claimed(request)
    assert generation.fail(request_id=request.pk, token=request.claim_token, reason=reason, again=False)


def refused(request: GenerationRequest) -> None:
    factory.claimed(request)
    assert generation.refuse(request_id=request.pk, token=request.claim_token, reason="Too long by 3 tokens.")


def state_of(comparison: Comparison) -> str:
    comparison.refresh_from_db()
    return comparison.state


def by_policy(comparison: Comparison) -> Counter:
    return Counter(comparison.candidates.values_list("completion__request__policy", flat=True))


def test_each_policy_is_asked_once_for_its_places():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    assert asked(comparison, ours).n == 1
    assert asked(comparison, theirs).n == 2
    factory.answer(asked(comparison, theirs), "One", "Two")
    assert state_of(comparison) == State.SAMPLING
    factory.answer(asked(comparison, ours), "Three")
    assert state_of(comparison) == State.OPEN
    assert by_policy(comparison) == {ours.pk: 2, theirs.pk: 2}
    assert comparison.candidates.get(original=True).completion.request.policy == ours


def test_a_policy_of_no_weight_only_talks():
    project = factory.shared_project(0, 2)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    factory.answer(comparison.requests.get(policy=theirs), "One", "Two", "Three")
    assert state_of(comparison) == State.OPEN
    assert by_policy(comparison) == {ours.pk: 1, theirs.pk: 3}


def test_an_imported_original_takes_a_place_of_all():
    project = factory.shared_project(1, 2)
    factory.imported(project)
    (comparison,) = comparisons.sample(project=project, count=1)
    assert Counter(dict(comparison.requests.values_list("policy_id", "n"))) == dict(
        zip((policy.pk for policy in policies_of(project)), (1, 2), strict=True)
    )


def test_a_missing_place_is_drawn_again_from_its_own_policy():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    factory.answer(asked(comparison, ours), "One")
    factory.answer(asked(comparison, theirs), "Two", "Two")
    assert (asked(comparison, theirs).n, comparison.requests.filter(policy=ours).count()) == (1, 1)
    for _ in range(3):
        factory.answer(asked(comparison, theirs), "Two")
    assert state_of(comparison) == State.OPEN
    assert by_policy(comparison) == {ours.pk: 2, theirs.pk: 1}
    assert comparison.requests.filter(policy=theirs).count() == 4


def test_what_two_policies_both_say_is_said_by_the_one_that_was_asked_first():
    project = factory.shared_project(1, 1, keeps_original=False)
    first, second = sampling(project).requests.order_by("id")
    comparison = first.comparison
    factory.answer(second, "Same", "Two")
    factory.answer(first, "One", "Same")
    assert Completion.objects.get(rejected="duplicate").request == second
    factory.answer(asked(comparison, second.policy), "Three")
    assert state_of(comparison) == State.OPEN
    assert set(by_policy(comparison).values()) == {2}


def test_a_policy_that_fails_or_cannot_does_not_block_the_others():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    failed(asked(comparison, theirs))
    assert state_of(comparison) == State.SAMPLING
    factory.answer(asked(comparison, ours), "One")
    refused(asked(comparison, theirs))
    assert state_of(comparison) == State.OPEN
    assert by_policy(comparison) == {ours.pk: 2}
    # What is too long stays so: it was not asked a third time.
    assert comparison.requests.filter(policy=theirs).count() == 2


def test_half_a_text_is_no_candidate():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    request = factory.claimed(asked(comparison, theirs))
    generation.stop(request=request)
    half, whole = *factory.sampled("Half a", finish_reason="stopped"), factory.sampled("", "Whole.")[1]
    assert generation.close_cancelled(
        request_id=request.pk, token=request.claim_token, sampled=[half, whole], template_hash=""
    )
    factory.answer(asked(comparison, ours), "One")
    assert request.completions.get(text="Half a").rejected == "stopped"
    assert asked(comparison, theirs).n == 1
    factory.answer(asked(comparison, theirs), "Half a")
    assert state_of(comparison) == State.OPEN
    assert by_policy(comparison) == {ours.pk: 2, theirs.pk: 2}


def test_a_policy_that_is_switched_off_is_not_asked_again():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    policies.switch_off(policy=theirs)
    assert comparison.requests.filter(policy=theirs).count() == 1
    factory.answer(asked(comparison, ours), "One")
    assert state_of(comparison) == State.OPEN
    assert comparison.assignments.filter(state=Assignment.State.FREE).count() == 1


def test_a_policy_that_is_off_already_leaves_its_places_empty():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    policies.switch_off(policy=theirs)
    comparison = sampling(project)
    assert comparison.requests.get(policy=theirs).state == "failed"
    factory.answer(asked(comparison, ours), "One")
    assert state_of(comparison) == State.OPEN
    assert by_policy(comparison) == {ours.pk: 2}


def test_a_failure_names_what_each_policy_did():
    project = factory.shared_project(1, 1, 1, keeps_original=False, k=3)
    first, second, third = policies_of(project)
    comparison = sampling(project)
    policies.switch_off(policy=first)
    refused(asked(comparison, second))
    for _ in range(4):
        factory.answer(asked(comparison, third), " ")
    assert state_of(comparison) == State.FAILED
    told = [first.off, f"{second} refused: Too long by 3 tokens.", f"{third} gave 0 of 1 in 4 draws."]
    assert comparison.reason.startswith("Too few distinct texts. ")
    assert all(sentence in comparison.reason for sentence in told)


def test_a_long_reason_is_cut():
    project = factory.project(served_by=factory.policy(name="x" * 120))
    comparison = sampling(project)
    for _ in range(4):
        failed(comparison.requests.get(state="waiting"), "No room. " * 30)
    assert state_of(comparison) == State.FAILED
    assert len(comparison.reason) == 200
    assert comparison.reason.endswith("…")


def test_one_text_alone_is_no_comparison_without_the_original():
    project = factory.project(keeps_original=False, k=2)
    comparison = sampling(project)
    for _ in range(4):
        request = comparison.requests.get(state="waiting")
        factory.answer(request, *["Same"] * request.n)
    assert state_of(comparison) == State.FAILED
    assert comparison.reason == f"Too few distinct texts. {project.policies.get()} gave 1 of 2 in 4 draws."


def test_without_the_original_all_are_sampled_and_one_may_say_the_same():
    project = factory.project(keeps_original=False)
    comparison = sampling(project)
    request = comparison.requests.get()
    assert request.n == 4
    factory.answer(request, "One", comparison.message.text, "Two", "Three")
    assert state_of(comparison) == State.OPEN
    assert not comparison.candidates.filter(original=True).exists()
    assert comparison.candidates.filter(completion__text=comparison.message.text).count() == 1
    slot = assignments.claim(user=factory.trainer(project), project=project)
    rankings.submit(assignment=slot, user=slot.trainer, tiers=[[pk] for pk in slot.shown_order])
    assert state_of(comparison) == State.CLOSED


def test_an_imported_message_that_is_not_kept_becomes_no_candidate():
    project = factory.project(keeps_original=False, k=2)
    factory.imported(project)
    (comparison,) = comparisons.sample(project=project, count=1)
    factory.answer(comparison.requests.get(), "One", "Two")
    assert state_of(comparison) == State.OPEN
    assert not Completion.objects.filter(kind="imported").exists()


def test_a_failed_request_is_tried_again_beside_the_other_policy():
    project = factory.shared_project(0, 1, 1, k=3)
    _, first, second = policies_of(project)
    comparison = sampling(project)
    requests = [asked(comparison, first), asked(comparison, second)]
    for policy in (first, second):
        policies.switch_off(policy=policy)
    assert state_of(comparison) == State.FAILED
    Policy.objects.update(active=True)
    requests = list(comparison.requests.order_by("policy"))
    generation.try_again(request=requests[0])
    factory.answer(requests[0], "One")
    # The other one is active again too, and has been asked once only.
    assert state_of(comparison) == State.SAMPLING
    factory.answer(asked(comparison, second), "Two")
    assert state_of(comparison) == State.OPEN
    assert comparison.candidates.count() == 3


def test_repair_settles_what_only_one_policy_was_stopped_at():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    factory.answer(asked(comparison, ours), "One")
    comparison.requests.filter(policy=theirs).update(state="cancelled", ended_at=timezone.now())
    assert comparisons.repair() == 1
    assert asked(comparison, theirs).n == 2
    assert comparisons.repair() == 0


def test_closing_waits_for_the_last_policy():
    project = factory.shared_project(1, 1)
    ours, theirs = policies_of(project)
    comparison = sampling(project)
    iteration = factory.current(project)
    iterations.close(iteration=iteration)
    factory.answer(asked(comparison, ours), "One")
    assert (iterations.close_finished(), state_of(comparison)) == (0, State.SAMPLING)
    factory.answer(asked(comparison, theirs), "Two", "Three")
    assert (state_of(comparison), iterations.close_finished()) == (State.FAILED, 1)
