"""Select and sample: the draw, the candidates, and what may go wrong."""

from collections import Counter

import pytest
from scipy.stats import chisquare

from annotate import assignments, comparisons, derive
from annotate.errors import Conflict, Invalid
from annotate.models import Assignment, Comparison, Completion, Conversation, GenerationRequest, Iteration, Message
from tests import bulk, factory

pytestmark = pytest.mark.django_db

State = Comparison.State


@pytest.fixture
def project():
    return factory.project(overlap=2)


def sampling(project):
    return Comparison.objects.get(message__conversation=factory.finished_chat(project))


def test_it_opens_when_the_alternatives_are_there(project):
    comparison = sampling(project)
    author = comparison.message.conversation.trainer
    factory.answer(comparison.requests.get(), "One", "Two", "Three")
    comparison.refresh_from_db()
    assert comparison.state == State.OPEN
    candidates = list(comparison.candidates.all())
    assert [candidate.completion.text for candidate in candidates if not candidate.original] == ["One", "Two", "Three"]
    (original,) = [candidate for candidate in candidates if candidate.original]
    assert original.completion.messages.get() == comparison.message
    slots = list(comparison.assignments.order_by("ordinal"))
    assert [(slot.kind, slot.state, slot.ordinal, slot.author) for slot in slots] == [
        ("rank", "free", 1, author),
        ("rank", "free", 2, author),
    ]


def test_duplicates_and_empty_ones_are_drawn_again_and_kept_with_their_reason(project):
    comparison = sampling(project)
    factory.answer(comparison.requests.get(), " One\n", "One", " \n")
    comparison.refresh_from_db()
    assert comparison.state == State.SAMPLING
    again = comparison.requests.get(state="waiting")
    assert again.n == 2
    factory.answer(again, comparison.message.text, "Two")
    factory.answer(comparison.requests.get(state="waiting"), "Three")
    comparison.refresh_from_db()
    assert comparison.state == State.OPEN
    texts = sorted(comparison.candidates.values_list("completion__text", flat=True))
    assert texts == sorted([" One\n", "Two", "Three", comparison.message.text])
    assert Counter(Completion.objects.exclude(rejected="").values_list("rejected", flat=True)) == {
        "duplicate": 2,
        "empty": 1,
    }


def test_a_missing_place_is_drawn_again_three_times_at_most(project):
    comparison = sampling(project)
    for _ in range(4):
        request = comparison.requests.get(state="waiting")
        factory.answer(request, *["Same"] * request.n)
    comparison.refresh_from_db()
    assert (comparison.state, comparison.requests.count(), comparison.candidates.count()) == (State.OPEN, 4, 2)


def test_without_any_alternative_it_fails(project):
    comparison = sampling(project)
    for _ in range(4):
        request = comparison.requests.get(state="waiting")
        factory.answer(request, *[comparison.message.text] * request.n)
    comparison.refresh_from_db()
    reason = f"Too few distinct texts. {project.policies.get()} gave 0 of 3 in 4 draws."
    assert (comparison.state, comparison.reason) == (State.FAILED, reason)
    assert not Assignment.objects.filter(kind="rank").exists()


def test_the_draw_can_be_made_again(project):
    conversation = factory.finished_chat(project, turns=5)
    comparison = Comparison.objects.get()
    assert derive.draw(project.secret, "conversation", conversation.pk, 5) == (
        comparison.draw_seed,
        comparison.draw_index,
    )


@pytest.mark.slow
def test_the_draw_is_uniform():
    """900 conversations of known lengths: no place is favoured, and the same secret draws the same again."""
    project = factory.project(secret="c0ffee" + "0" * 58)
    for turns in (2, 3, 5):
        bulk.chats(project, 300, turns=turns)
    conversations = Conversation.objects.select_related("project", "iteration")
    drawn = {conversation.pk: comparisons.select(conversation=conversation) for conversation in conversations}
    counts = {turns: Counter() for turns in (2, 3, 5)}
    for pk, comparison in drawn.items():
        counts[comparison.draw_size][comparison.draw_index] += 1
        assert comparison.message.position == 2 + 2 * comparison.draw_index
        seed, index = derive.draw(project.secret, "conversation", pk, comparison.draw_size)
        assert (seed, index) == (comparison.draw_seed, comparison.draw_index)
    for turns, places in counts.items():
        assert sum(places.values()) == 300
        # The ids, and so the draws, differ from run to run: one in 100,000 may do so by chance.
        assert chisquare([places[index] for index in range(turns)]).pvalue > 1e-5


DIALOGUE = (("system", "Be kind."), ("user", "Why?"), ("assistant", "Because."), ("user", "So?"), ("assistant", "So."))


def drawn(project, count: int = 100, messages: str = "any") -> list:
    return [one.message for one in comparisons.sample(project=project, count=count, messages=messages)]


def test_all_answers_of_imported_conversations_are_drawn_from_and_no_other_message(project):
    conversation = factory.imported(project, ("assistant", "Hello!"), *DIALOGUE[1:])
    factory.finished_piece(project)
    factory.imported(factory.project())
    late = factory.finished_chat(project, turns=2)
    Assignment.objects.filter(conversation=late).update(state="surplus", ended_at=late.finished_at)
    # What is said before any user speaks answers nothing.
    assert {message.pk for message in drawn(project)} == set(
        conversation.messages.filter(position__gt=0, role="assistant").values_list("pk", flat=True)
    )


def test_a_message_that_conversations_share_is_drawn_once(project):
    first, second = factory.imported(project, *DIALOGUE), factory.imported(project, *DIALOGUE[:3])
    second.messages.filter(position=2).update(source_id=first.messages.get(position=2).source_id)
    nameless = [factory.imported(project, *DIALOGUE[:3]) for _ in range(2)]
    Message.objects.filter(conversation__in=nameless).update(source_id="")
    (one,) = drawn(project, 1)
    rest = drawn(project)
    assert len({one.pk, *(message.pk for message in rest)}) == 4
    assert second.messages.get(position=2) not in [one, *rest]
    assert drawn(project) == []


def test_what_was_brought_in_with_a_ranking_is_not_drawn(project):
    conversation = factory.imported_comparison(project).message.conversation
    twin = factory.imported(project, ("user", "Which is better?"), ("assistant", "The better answer"))
    twin.messages.filter(position=1).update(source_id=conversation.messages.get(position=1).source_id)
    assert drawn(project) == []


def test_an_imported_answer_stands_among_alternatives_and_everybody_may_rank_it(project):
    facts = {"model_name": "somebody's model"}
    conversation = factory.imported(project, *DIALOGUE[1:])
    conversation.messages.update(facts=facts)
    by_position = {message.position: message for message in drawn(project)}
    comparison = by_position[3].comparisons.get()
    request = comparison.requests.get()
    assert request.messages == [
        {"role": "system", "content": project.system_message},
        *({"role": role, "content": text} for role, text in DIALOGUE[1:4]),
    ]
    factory.answer(request, "So.", "Or so.", "Not so.")
    factory.answer(comparison.requests.get(state="waiting"), "Never.")
    comparison.refresh_from_db()
    assert comparison.state == State.OPEN
    original = comparison.candidates.get(original=True).completion
    assert (original.text, original.kind, original.model) == ("So.", "imported", "somebody's model")
    assert original.source_id == by_position[3].source_id
    assert conversation.messages.count() == 4
    comparison.assignments.update(priority=-1)
    for user in (factory.trainer(project), factory.trainer(project)):
        slot = assignments.claim(user=user, project=project)
        assert (slot.kind, slot.comparison, slot.author) == ("rank", comparison, None)


def test_a_system_message_that_was_brought_in_is_kept(project):
    factory.imported(project, *DIALOGUE[:3])
    drawn(project)
    (request,) = GenerationRequest.objects.all()
    assert request.messages == [{"role": role, "content": text} for role, text in DIALOGUE[:2]]


def test_draws_of_both_can_be_made_again(project):
    """Each from its seed, what was left, in the order of ids, and the index."""
    for _ in range(3):
        factory.imported(project, *DIALOGUE)
        factory.finished_chat(project, turns=4)
    taken = set(Comparison.objects.values_list("message_id", flat=True))
    left = [
        message.pk for message in Message.objects.filter(role="assistant").order_by("id") if message.pk not in taken
    ]
    made = comparisons.sample(project=project, count=100)
    assert len(made) == len(left) == 15
    for comparison in made:
        assert comparison.draw_size == len(left)
        assert int(comparison.draw_seed, 16) % len(left) == comparison.draw_index
        assert left.pop(comparison.draw_index) == comparison.message_id


def test_another_choice_of_messages_is_refused(project):
    with pytest.raises(Invalid, match="any, model"):
        comparisons.sample(project=project, count=1, messages="all")


def test_repair_settles_what_no_request_will_settle(project):
    comparison = sampling(project)
    comparison.requests.update(state="cancelled", ended_at=comparison.created_at)
    assert comparisons.repair() == 1
    assert comparison.requests.get(state="waiting").n == 3
    assert comparisons.repair() == 0


def test_context_is_what_stands_before(project):
    factory.finished_chat(project, turns=4)
    comparison = Comparison.objects.get()
    context = comparisons.context(comparison)
    assert [message.position for message in context] == list(range(comparison.message.position))


def test_shown_hides_where_answers_come_from(project):
    comparison = factory.open_comparison(project)
    from annotate import assignments

    slot = assignments.claim(user=factory.trainer(project), project=project)
    shown = comparisons.shown(slot)
    assert [one.letter for one in shown] == list("ABCD")
    assert [one.candidate_id for one in shown] == slot.shown_order
    assert {one.text for one in shown} == set(comparison.candidates.values_list("completion__text", flat=True))


def test_sampling_over_finished_chats(project):
    for _ in range(3):
        factory.finished_chat(project, turns=3)
    assert Comparison.objects.count() == 3
    made = comparisons.sample(project=project, count=4)
    assert len(made) == 4
    assert len({comparison.message_id for comparison in Comparison.objects.all()}) == 7
    assert [comparison.draw_size for comparison in made] == [6, 5, 4, 3]
    assert all(comparison.requests.get().n == 3 for comparison in made)
    assert len(comparisons.sample(project=project, count=100)) == 2
    assert comparisons.sample(project=project, count=1) == []


def test_sampling_needs_an_open_iteration(project):
    Iteration.objects.update(state=Iteration.State.CLOSING)
    with pytest.raises(Conflict):
        comparisons.sample(project=project, count=1)
