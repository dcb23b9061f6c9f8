"""Rounds: opened with the settings of the day, closed when held work is in."""

import pytest
from django.db import IntegrityError, transaction

from annotate import assignments, iterations, rankings
from annotate.errors import Conflict, Invalid, NothingLeft
from annotate.models import Assignment, Iteration, IterationPolicy, Policy, Project, ProjectPolicy
from tests import factory

pytestmark = pytest.mark.django_db


def test_it_opens_with_the_settings_of_the_day():
    project = factory.project(iteration=False, k=6, overlap=3, temperature=0.5)
    iteration = iterations.open_next(project=project)
    assert (iteration.number, iteration.state, iteration.k, iteration.overlap) == (1, "open", 6, 3)
    assert iteration.sampling == {"max_new_tokens": 256, "temperature": 0.5, "top_p": 0.95, "top_k": 0}
    assert iteration.guidelines.text == factory.GUIDELINES
    assert list(iteration.policies.all()) == [iteration.reply_policy]


def test_one_is_open_at_a_time():
    project = factory.project()
    with pytest.raises(Conflict):
        iterations.open_next(project=project)
    with pytest.raises(IntegrityError), transaction.atomic():
        Iteration.objects.create(
            project=project, number=9, k=4, overlap=1, sampling={}, reply_policy=project.policies.get()
        )


def test_it_needs_an_active_policy():
    project = factory.project(iteration=False, served_by=factory.policy(active=False))
    with pytest.raises(Invalid):
        iterations.open_next(project=project)


def chosen(project, policy):
    ProjectPolicy.objects.filter(project=project, policy=policy).update(replies=True)


def reopened(project) -> Iteration:
    iterations.close(iteration=factory.current(project))
    assert iterations.close_finished() == 1
    return iterations.open_next(project=project)


def test_it_copies_the_weights_of_the_active_policies_and_whether_the_original_is_kept():
    project = factory.shared_project(1, 3, 5, keeps_original=False)
    first, second, third = ProjectPolicy.objects.filter(project=project).order_by("id")
    ProjectPolicy.objects.filter(pk=second.pk).update(weight=7)
    Policy.objects.filter(pk=third.policy_id).update(active=False)
    iteration = factory.current(project)
    weights = {first.policy_id: 1, second.policy_id: 3, third.policy_id: 5}
    copied = IterationPolicy.objects.filter(iteration=iteration).values_list("policy_id", "weight")
    assert (dict(copied), iteration.keeps_original) == (weights, False)
    Project.objects.filter(pk=project.pk).update(keeps_original=True)
    project.refresh_from_db()
    later = reopened(project)
    assert dict(IterationPolicy.objects.filter(iteration=iteration).values_list("policy_id", "weight")) == weights
    copied = IterationPolicy.objects.filter(iteration=later).values_list("policy_id", "weight")
    assert (dict(copied), later.keeps_original) == ({first.policy_id: 1, second.policy_id: 7}, True)


def test_trainers_chat_with_the_chosen_policy_or_the_first_active_one():
    project = factory.shared_project(1, 1, 1)
    first, second, third = (row.policy for row in ProjectPolicy.objects.filter(project=project).order_by("id"))
    assert factory.current(project).reply_policy == first
    chosen(project, third)
    assert reopened(project).reply_policy == third
    ProjectPolicy.objects.update(replies=False)
    Policy.objects.filter(pk=first.pk).update(active=False)
    assert reopened(project).reply_policy == second


def test_it_needs_the_policy_that_trainers_are_to_chat_with():
    project = factory.shared_project(1, 1)
    policy = project.policies.last()
    chosen(project, policy)
    Policy.objects.filter(pk=policy.pk).update(active=False)
    with pytest.raises(Invalid, match=f"are to chat with {policy}, which is inactive"):
        reopened(project)


def test_it_needs_a_policy_with_a_weight():
    project = factory.shared_project(1, 0)
    assert factory.current(project).policies.count() == 2
    Policy.objects.filter(pk=project.policies.first().pk).update(active=False)
    with pytest.raises(Invalid, match="have weight 0"):
        reopened(project)


def test_closing_waits_for_held_work_and_the_next_one_follows():
    project = factory.project(overlap=2)
    factory.open_comparison(project)
    factory.open_comparison(project)
    slot = assignments.claim(user=factory.trainer(project), project=project)
    iteration = factory.current(project)
    iterations.close(iteration=iteration)
    with pytest.raises(NothingLeft):
        assignments.claim(user=factory.trainer(project), project=project)
    assert iterations.close_finished() == 0
    rankings.submit(assignment=slot, user=slot.trainer, tiers=[[pk] for pk in slot.shown_order])
    assert iterations.close_finished() == 1
    iteration.refresh_from_db()
    assert (iteration.state, iteration.closed_at is not None) == ("closed", True)
    assert set(iteration.comparisons.values_list("state", flat=True)) == {"closed"}
    assert not Assignment.objects.filter(state__in=["free", "held"]).exists()
    with pytest.raises(Conflict):
        iterations.close(iteration=iteration)
    assert iterations.open_next(project=project).number == 2


def test_closing_waits_for_alternatives():
    project = factory.project()
    conversation = factory.finished_chat(project)
    comparison = conversation.messages.last().comparisons.get()
    iterations.close(iteration=factory.current(project))
    assert iterations.close_finished() == 0
    factory.answer(comparison.requests.get())
    comparison.refresh_from_db()
    assert comparison.state == "failed"
    assert iterations.close_finished() == 1
