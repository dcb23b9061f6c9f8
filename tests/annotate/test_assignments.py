"""Slots of work: claimed, held, skipped, run out, late."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotate import assignments, conversations, queue, rankings
from annotate.errors import Conflict, DraftConflict, Invalid, NothingLeft
from annotate.models import Assignment, Conversation, Iteration, QueueCursor
from tests import factory

pytestmark = pytest.mark.django_db

State = Assignment.State


@pytest.fixture
def project():
    return factory.project(overlap=2)


@pytest.fixture
def trainer(project):
    return factory.trainer(project)


def claim(user, project, **given):
    return assignments.claim(user=user, project=project, **given)


def submit(assignment):
    tiers = [[candidate] for candidate in assignment.shown_order]
    return rankings.submit(assignment=assignment, user=assignment.trainer, tiers=tiers)


def run_out(assignment):
    Assignment.objects.filter(pk=assignment.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert assignments.expire() == 1
    assignment.refresh_from_db()


def live(comparison):
    return sorted(
        comparison.assignments.filter(state__in=Assignment.LIVE).values_list("ordinal", "state", "trainer_id")
    )


def test_a_claim_hands_out_the_first_ranking_with_a_stored_order(project, trainer):
    comparison = factory.open_comparison(project)
    slot = claim(trainer, project)
    assert (slot.kind, slot.state, slot.trainer, slot.seat, slot.ordinal) == ("rank", State.HELD, trainer, 1, 1)
    assert sorted(slot.shown_order) == sorted(comparison.candidates.values_list("id", flat=True))
    assert len(slot.shown_order) == 4
    assert slot.lease_until > timezone.now() + timedelta(minutes=29)


def test_orders_differ_between_slots(project):
    factory.open_comparison(project)
    orders = {tuple(claim(factory.trainer(project), project).shown_order) for _ in range(2)}
    for _ in range(4):
        factory.open_comparison(project)
        orders |= {tuple(position % 4 for position in claim(factory.trainer(project), project).shown_order)}
    assert len(orders) > 1


def test_a_claim_returns_what_one_holds(project, trainer):
    for _ in range(2):
        factory.open_comparison(project)
    assert claim(trainer, project) == claim(trainer, project)
    assert Assignment.objects.filter(state=State.HELD).count() == 1


def test_first_rankings_come_before_second_ones(project):
    comparisons = [factory.open_comparison(project) for _ in range(3)]
    order = [claim(factory.trainer(project), project).comparison_id for _ in range(6)]
    assert order == [comparison.pk for comparison in comparisons] * 2


def test_priority_comes_before_ordinal(project, trainer):
    factory.open_comparison(project)
    urgent = factory.open_comparison(project)
    urgent.assignments.update(priority=-1)
    assert claim(trainer, project).comparison == urgent


def test_nobody_gets_a_comparison_twice(project, trainer):
    factory.open_comparison(project)
    submit(claim(trainer, project))
    with pytest.raises(NothingLeft):
        claim(trainer, project)


def test_authors_do_not_rank_their_own_unless_allowed(project, trainer):
    comparison = factory.open_comparison(project, trainer)
    with pytest.raises(NothingLeft):
        claim(trainer, project)
    project.authors_rank_own = True
    assert claim(trainer, project).comparison == comparison


def test_a_chat_opens_with_the_least_used_prompt(project, trainer):
    from annotate import projects

    projects.add_prompts(project=project, openings=[projects.Opening("First"), projects.Opening("Second")])
    project.prompts.filter(text="First").update(uses=1)
    factory.chat_slot(project)
    slot = claim(trainer, project)
    assert (slot.kind, slot.conversation.prompt.text, slot.conversation.state) == ("chat", "Second", "open")
    assert slot.conversation.prompt.uses == 1
    assert [message.role for message in slot.conversation.messages.all()] == ["system"]


def test_kinds_narrow_a_claim(project, trainer):
    factory.open_comparison(project)
    factory.chat_slot(project)
    assert claim(trainer, project, kinds=["chat"]).kind == "chat"


def test_one_slot_is_fetched_ahead_and_becomes_the_next(project, trainer):
    for _ in range(3):
        factory.open_comparison(project)
    first = claim(trainer, project)
    ahead = claim(trainer, project, ahead=True)
    assert (ahead.seat, ahead == first) == (2, False)
    assert claim(trainer, project, ahead=True) == ahead
    submit(first)
    following = claim(trainer, project)
    assert (following, following.seat) == (ahead, 1)


def test_chats_are_not_fetched_ahead(project, trainer):
    factory.chat_slot(project)
    with pytest.raises(NothingLeft):
        claim(trainer, project, ahead=True)


def test_what_was_fetched_ahead_goes_back_and_may_come_again(project, trainer):
    comparison = factory.open_comparison(project)
    claim(trainer, project, ahead=True)
    assert assignments.release_ahead(user=trainer, project=project)
    assert not assignments.release_ahead(user=trainer, project=project)
    assert live(comparison) == [(1, State.FREE, None), (2, State.FREE, None)]
    assert claim(trainer, project).comparison == comparison


def test_a_seat_is_taken_by_looking(project, trainer):
    for _ in range(2):
        factory.open_comparison(project)
    ahead = claim(trainer, project, ahead=True)
    assert assignments.take_seat(assignment=ahead, user=trainer).seat == 1
    second = claim(trainer, project, ahead=True)
    assert assignments.take_seat(assignment=second, user=trainer).seat == 2


def test_a_skip_leaves_a_new_slot_for_others_only(project, trainer):
    comparison = factory.open_comparison(project)
    slot = claim(trainer, project)
    assignments.skip(assignment=slot, user=trainer, reason="unclear", note="What is meant?")
    slot.refresh_from_db()
    assert (slot.state, slot.skip_reason, slot.skip_note, slot.trainer) == (
        State.SKIPPED,
        "unclear",
        "What is meant?",
        trainer,
    )
    assert slot.replacement.ordinal == slot.ordinal
    assert live(comparison) == [(1, State.FREE, None), (2, State.FREE, None)]
    with pytest.raises(NothingLeft):
        claim(trainer, project)
    assert claim(factory.trainer(project), project) == slot.replacement


def test_a_skip_needs_a_reason_and_happens_once(project, trainer):
    factory.open_comparison(project)
    slot = claim(trainer, project)
    with pytest.raises(Invalid):
        assignments.skip(assignment=slot, user=trainer, reason="bored")
    assignments.skip(assignment=slot, user=trainer, reason="other")
    with pytest.raises(Conflict):
        assignments.skip(assignment=slot, user=trainer, reason="other")
    assert Assignment.objects.filter(replaces=slot).count() == 1


def test_a_skipped_chat_is_abandoned(project, trainer):
    factory.chat_slot(project)
    slot = claim(trainer, project)
    conversations.say(assignment=slot, user=trainer, text="Hi")
    assignments.skip(assignment=slot, user=trainer, reason="broken")
    conversation = Conversation.objects.get(pk=slot.conversation_id)
    assert conversation.state == Conversation.State.ABANDONED
    assert conversation.requests.get().state == "cancelled"
    assert claim(trainer, project).conversation != conversation


def test_expiry_keeps_the_row_and_frees_its_place(project, trainer):
    comparison = factory.open_comparison(project)
    slot = claim(trainer, project)
    assignments.save_draft(assignment=slot, user=trainer, draft={"order": "B A"}, version=0)
    run_out(slot)
    assert (slot.state, slot.trainer, slot.draft) == (State.EXPIRED, trainer, {"order": "B A"})
    assert live(comparison) == [(1, State.FREE, None), (2, State.FREE, None)]
    assert assignments.expire() == 0


def test_expiry_of_a_slot_that_was_never_looked_at_forgets_its_trainer(project, trainer):
    comparison = factory.open_comparison(project)
    slot = claim(trainer, project, ahead=True)
    run_out(slot)
    assert (slot.state, slot.trainer) == (State.WITHDRAWN, None)
    assert live(comparison) == [(1, State.FREE, None), (2, State.FREE, None)]


def test_late_work_counts_where_its_place_is_free(project, trainer):
    comparison = factory.open_comparison(project)
    slot = claim(trainer, project)
    run_out(slot)
    submit(slot)
    slot.refresh_from_db()
    assert slot.state == State.SUBMITTED
    assert slot.replacement.state == State.WITHDRAWN
    assert live(comparison) == [(1, State.SUBMITTED, trainer.pk), (2, State.FREE, None)]


def test_late_work_counts_where_those_who_came_after_passed_on(project, trainer):
    comparison = factory.open_comparison(project)
    slot = claim(trainer, project)
    run_out(slot)
    other = factory.trainer(project)
    between = claim(other, project)
    assert between == slot.replacement
    assignments.skip(assignment=between, user=other, reason="language")
    submit(slot)
    assert live(comparison) == [(1, State.SUBMITTED, trainer.pk), (2, State.FREE, None)]


def test_late_work_is_surplus_where_its_place_is_taken(project, trainer):
    comparison = factory.open_comparison(project)
    slot = claim(trainer, project)
    run_out(slot)
    other = factory.trainer(project)
    held = claim(other, project)
    ranking = submit(slot)
    slot.refresh_from_db()
    assert (slot.state, ranking.current) == (State.SURPLUS, True)
    assert live(comparison) == [(1, State.HELD, other.pk), (2, State.FREE, None)]
    submit(held)
    comparison.refresh_from_db()
    assert comparison.state == "open"


def test_drafts_have_versions(project, trainer):
    factory.open_comparison(project)
    slot = claim(trainer, project)
    assert assignments.save_draft(assignment=slot, user=trainer, draft={"order": "A"}, version=0) == 1
    with pytest.raises(DraftConflict) as conflict:
        assignments.save_draft(assignment=slot, user=trainer, draft={"order": "B"}, version=0)
    assert (conflict.value.current, conflict.value.version) == ({"order": "A"}, 1)
    submit(slot)
    with pytest.raises(Conflict, match="submitted already"):
        assignments.save_draft(assignment=slot, user=trainer, draft={}, version=1)


def test_a_draft_is_a_sign_of_life(project, trainer):
    factory.open_comparison(project)
    slot = claim(trainer, project)
    Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() + timedelta(seconds=5))
    assignments.save_draft(assignment=slot, user=trainer, draft={}, version=0, active_seconds=7)
    slot.refresh_from_db()
    assert slot.lease_until > timezone.now() + timedelta(minutes=29)
    assert slot.active_seconds == 7


def test_strangers_change_nothing(project, trainer):
    factory.open_comparison(project)
    slot = claim(trainer, project)
    stranger = factory.trainer()
    for attempt in (
        lambda: assignments.save_draft(assignment=slot, user=stranger, draft={}, version=0),
        lambda: assignments.renew(assignment=slot, user=stranger),
        lambda: rankings.submit(assignment=slot, user=stranger, tiers=[[pk] for pk in slot.shown_order]),
        lambda: assignments.skip(assignment=slot, user=stranger, reason="other"),
    ):
        with pytest.raises(Conflict):
            attempt()
    slot.refresh_from_db()
    assert slot.state == State.HELD


def test_slots_are_opened_in_the_open_iteration_only(project):
    assert assignments.open_slots(project=project, kind="chat", count=3) == 3
    assert Assignment.objects.filter(kind="chat", state="free", iteration=factory.current(project)).count() == 3
    with pytest.raises(Invalid):
        assignments.open_slots(project=project, kind="chat", count=0)
    with pytest.raises(Conflict):
        assignments.open_slots(project=factory.project(iteration=False), kind="chat", count=1)


def test_no_new_slot_in_a_closing_iteration(project, trainer):
    factory.open_comparison(project)
    slot = claim(trainer, project)
    Iteration.objects.update(state=Iteration.State.CLOSING)
    assignments.skip(assignment=slot, user=trainer, reason="other")
    assert not Assignment.objects.filter(replaces=slot).exists()


def test_counts_of_what_is_there_are_for_the_person_and_bounded(project, trainer):
    factory.open_comparison(project)
    factory.open_comparison(project, trainer)
    assert queue.free_up_to(user=trainer, project=project, kind="rank") == 2
    assert queue.free_up_to(user=trainer, project=project, kind="rank", most=1) == 1
    assert queue.free_up_to(user=trainer, project=project, kind="chat") == 0
    project.authors_rank_own = True
    assert queue.free_up_to(user=trainer, project=project, kind="rank") == 4


def test_the_cursor_passes_what_is_done_and_no_more(project, trainer, monkeypatch):
    monkeypatch.setattr(queue, "FEW", 2)
    monkeypatch.setattr(queue, "YOUNG", timedelta(0))
    comparisons = [factory.open_comparison(project) for _ in range(4)]
    for comparison in comparisons[:3]:
        slot = claim(trainer, project)
        assert slot.comparison == comparison
        submit(slot)
    # All first slots but the last are done; with these free second slots the cursor has something to pass.
    submit(claim(trainer, project))
    with pytest.raises(NothingLeft):
        claim(trainer, project)
    cursor = QueueCursor.objects.get(trainer=trainer, ordinal=2)
    assert cursor.after == comparisons[-1].assignments.get(ordinal=2).pk
    late = factory.open_comparison(project)
    assert claim(trainer, project).comparison == late


def test_the_cursor_stays_behind_young_slots(project, trainer, monkeypatch):
    monkeypatch.setattr(queue, "FEW", 1)
    for _ in range(3):
        factory.open_comparison(project)
    for _ in range(3):
        submit(claim(trainer, project))
    with pytest.raises(NothingLeft):
        claim(trainer, project)
    first_free = Assignment.objects.filter(state=State.FREE, kind="rank").order_by("id").first()
    assert QueueCursor.objects.get(trainer=trainer, ordinal=2).after == first_free.pk - 1


def test_old_expired_conversations_are_given_up(project, trainer):
    factory.chat_slot(project)
    slot = claim(trainer, project)
    run_out(slot)
    assert assignments.abandon_old() == 0
    Assignment.objects.filter(pk=slot.pk).update(ended_at=timezone.now() - timedelta(hours=25))
    assert assignments.abandon_old() == 1
    assert Conversation.objects.get(pk=slot.conversation_id).state == Conversation.State.ABANDONED


@pytest.mark.parametrize(
    "broken",
    [
        {"state": "held"},
        {"state": "submitted", "ended_at": timezone.now()},
        {"ordinal": 0},
        {"seat": 1},
        {"kind": "chat"},
        {"ordinal": 2},
    ],
)
def test_the_table_refuses_what_must_not_be(project, broken):
    slot = factory.open_comparison(project).assignments.get(ordinal=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        Assignment.objects.filter(pk=slot.pk).update(**broken)


@pytest.mark.parametrize(
    "draft",
    [{"text": "a\x00b"}, {"text": "\ud800"}, {"seconds": float("inf")}, {"text": "x" * 200_001}],
)
def test_drafts_that_cannot_be_stored_are_refused(project, trainer, draft):
    factory.open_comparison(project)
    slot = claim(trainer, project)
    with pytest.raises(Invalid):
        assignments.save_draft(assignment=slot, user=trainer, draft=draft, version=0)


def test_kinds_that_the_project_has_not_are_left_out(project, trainer):
    factory.chat_slot(project)
    project.kinds = ["rank"]
    with pytest.raises(NothingLeft):
        claim(trainer, project, kinds=["chat"])
