"""Writing both sides: suggestions, the end and its provenance, branches, revisions, what counts."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import assignments, demonstrations, iterations, likeness, manuscripts, openings, projects
from annotate.errors import Conflict, DraftConflict, Invalid, NothingLeft
from annotate.models import Assignment, Conversation, GenerationRequest, Iteration
from tests import factory
from tests.factory import written_turn

pytestmark = pytest.mark.django_db

EGG = "How do I boil an egg?"
ANSWER = "Eight minutes in boiling water."


@pytest.fixture
def project():
    return factory.project(kinds=["write"])


@pytest.fixture
def trainer(project):
    return factory.trainer(project)


@pytest.fixture
def slot(project, trainer):
    return factory.held_piece(project, trainer)


def claim(user, project, **more) -> Assignment:
    return assignments.claim(user=user, project=project, **more)


# --- How a piece begins ---------------------------------------------------------------------------------------------


def test_a_piece_begins_with_the_next_prompt_as_the_users_turn(project, trainer):
    projects.add_prompts(project=project, openings=[projects.Opening("Boil an egg")])
    factory.write_slot(project)
    slot = claim(trainer, project)
    assert slot.conversation.kind == "write"
    assert slot.conversation.prompt.text == "Boil an egg"
    (turn,) = slot.draft["turns"]
    assert (turn["role"], turn["text"], turn["opening"], turn["taken"]) == ("user", "Boil an egg", True, 11)
    assert slot.conversation.messages.count() == 0


def test_a_project_may_begin_with_a_blank_page(project, trainer):
    project.write_from = "blank"
    project.save()
    projects.add_prompts(project=project, openings=[projects.Opening("Boil an egg")])
    factory.write_slot(project)
    slot = claim(trainer, project)
    assert slot.conversation.prompt is None
    assert slot.draft["turns"][0]["text"] == ""


def test_writing_slots_are_opened_by_hand_and_reviews_are_not(project):
    assert assignments.open_slots(project=project, kind="write", count=2) == 2
    with pytest.raises(Invalid):
        assignments.open_slots(project=project, kind="review", count=2)


# --- Suggestions ----------------------------------------------------------------------------------------------------


def test_suggestions_see_the_conversation_so_far(slot):
    before = [{"role": "user", "content": EGG}]
    request = demonstrations.suggest(
        assignment=slot, user=slot.trainer, role="assistant", before=before, hint=" shorter "
    )
    assert (request.purpose, request.urgency, request.n, request.position) == ("suggestion", 1, 3, 2)
    assert (request.role, request.hint) == ("assistant", "shorter")
    assert request.messages[0]["role"] == "system"
    assert any(EGG in message["content"] for message in request.messages)
    assert request.assignment == slot


def test_half_a_character_is_no_obstacle(slot, trainer):
    before = [{"role": "user", "content": "Hi \ud83d"}]
    asked = demonstrations.suggest(assignment=slot, user=trainer, role="assistant", before=before, hint="\udc00 short")
    assert (asked.messages[1]["content"], asked.hint) == ("Hi \ufffd", "\ufffd short")


def test_the_user_can_be_suggested_before_anything_was_said(slot):
    request = demonstrations.suggest(assignment=slot, user=slot.trainer, role="user", before=[], n=1)
    assert (request.position, request.n, request.role) == (1, 1, "user")


def test_on_a_blank_page_the_user_is_suggested_something_about_the_topic(project, trainer):
    project.topic = "Gardens in winter"
    project.save()
    asked = {"user": trainer, "role": "user", "before": []}
    blank = demonstrations.suggest(assignment=factory.held_piece(project, trainer), **asked)
    assert "Gardens in winter" in blank.messages[0]["content"]
    projects.add_prompts(project=project, openings=[projects.Opening(EGG)])
    assignments.skip(assignment=blank.assignment, user=trainer, reason="other")
    opened = demonstrations.suggest(assignment=factory.held_piece(project, trainer), **asked)
    assert "Gardens in winter" not in opened.messages[0]["content"]


def test_asking_again_stops_what_is_not_there_yet(slot):
    first = demonstrations.suggest(assignment=slot, user=slot.trainer, role="user", before=[])
    second = factory.claimed(demonstrations.suggest(assignment=slot, user=slot.trainer, role="user", before=[]))
    third = demonstrations.suggest(assignment=slot, user=slot.trainer, role="user", before=[])
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state, second.stop_asked) == ("cancelled", "claimed", True)
    assert demonstrations.newest_suggestions(slot) == third
    demonstrations.stop(assignment=slot, user=slot.trainer)
    third.refresh_from_db()
    assert third.state == "cancelled"


@pytest.mark.parametrize(
    "asked",
    [
        {"role": "system"},
        {"before": "text"},
        {"before": ["text"]},
        {"before": [{"role": "system", "content": "x"}]},
        {"before": [{"role": "user"}, {"role": "user", "content": 3}]},
        {"before": [{"role": "user", "content": "a" * 60_000}]},
        {"hint": "a" * 501},
        {"n": 0},
        {"n": 4},
        {"n": True},
        {"system": "Another one."},
    ],
)
def test_what_cannot_be_asked_for(slot, asked, settings):
    settings.MESSAGE_CHARACTERS = 50_000
    with pytest.raises(Invalid):
        demonstrations.suggest(**{"assignment": slot, "user": slot.trainer, "role": "user", "before": []} | asked)
    assert not GenerationRequest.objects.exists()


def test_the_system_message_is_the_trainers_where_the_project_allows(project, trainer):
    project.system_editable = True
    project.save()
    slot = factory.held_piece(project, trainer)
    request = demonstrations.suggest(
        assignment=slot, user=trainer, role="assistant", before=[], system="Talk like Ahab."
    )
    assert "Talk like Ahab." in request.messages[0]["content"]
    factory.save(slot, *(written_turn(role, text) for role, text in factory.TURNS), system="Talk like Ahab.")
    conversation = demonstrations.finish(assignment=slot, user=trainer, version=1)
    assert conversation.messages.get(position=0).text == "Talk like Ahab."


def test_suggestions_of_others_and_of_ended_pieces_are_refused(slot, project):
    with pytest.raises(Conflict):
        demonstrations.suggest(assignment=slot, user=factory.trainer(project), role="user", before=[])
    factory.finished_piece(project, slot=slot)
    with pytest.raises(Conflict):
        demonstrations.suggest(assignment=slot, user=slot.trainer, role="user", before=[])


def test_suggestions_without_a_word_are_tried_again(slot):
    request = demonstrations.suggest(assignment=slot, user=slot.trainer, role="user", before=[])
    factory.answer(request, "", " ", "\n")
    request.refresh_from_db()
    assert request.state == "waiting"
    factory.answer(request, "", "A word", "")
    request.refresh_from_db()
    assert request.state == "done"


# --- The end --------------------------------------------------------------------------------------------------------


def test_the_end_keeps_where_every_text_came_from(project, trainer, slot):
    request = factory.suggested(slot, ANSWER, "Ten minutes.", "Ask a cook.")
    asked = factory.suggested(slot, "Hard or soft?", role="user")
    ignored = [[asked.pk, 0]]
    names = [[request.pk, index] for index in range(3)]
    factory.save(
        slot,
        written_turn("user", EGG, shown=ignored, seconds=12),
        written_turn("assistant", ANSWER, shown=names, taken=len(ANSWER), typed=0, **{"from": names[0]}),
        written_turn("user", "And duck eggs?", pasted=14),
        written_turn("assistant", "Ten minutes, or so.", shown=names[1:], taken=12, typed=7, **{"from": names[1]}),
        written_turn("user", ""),
    )
    conversation = demonstrations.finish(assignment=slot, user=trainer, version=1)
    assert (conversation.state, conversation.kind) == ("finished", "write")
    system, first, taken, pasted, edited = conversation.messages.order_by("position")
    assert (system.role, system.text, system.source) == ("system", project.system_message, "written")
    assert (first.source, first.typed, first.active_seconds, first.completion) == ("written", len(EGG), 12, None)
    assert first.passed == [asked.completions.get().pk]
    assert (taken.source, taken.edit_distance, taken.taken) == ("taken", 0.0, len(ANSWER))
    assert taken.completion == request.completions.get(index=0)
    assert taken.passed == [completion.pk for completion in request.completions.filter(index__gt=0)]
    assert (pasted.source, pasted.pasted, pasted.edit_distance) == ("written", 14, None)
    assert edited.source == "edited"
    assert edited.edit_distance == pytest.approx(7 / 19)
    assert edited.passed == [request.completions.get(index=2).pk]
    slot.refresh_from_db()
    assert slot.state == "submitted"


def test_line_ends_of_a_suggestion_are_no_change(project, slot):
    text = "Boil it.\r\nEight minutes.\r"
    request = factory.suggested(slot, text)
    turn = written_turn("assistant", text, taken=len(text), **{"from": [request.pk, 0]})
    taken = factory.finished_piece(project, None, written_turn("user", EGG), turn, slot=slot).messages.get(position=2)
    assert (taken.source, taken.edit_distance, taken.text) == ("taken", 0, "Boil it.\nEight minutes.")


def test_an_opening_is_imported_as_it_is_and_edited_where_it_was_changed(project, trainer):
    projects.add_prompts(project=project, openings=[projects.Opening(EGG), projects.Opening("Poach an egg")])
    answer = written_turn("assistant", ANSWER)
    whole, changed, own = [factory.held_piece(project, factory.trainer(project)) for _ in range(3)]
    factory.save(whole, written_turn("user", EGG, opening=True, taken=len(EGG)), answer)
    factory.save(changed, written_turn("user", "Poach an egg, please", opening=True, taken=12), answer)
    factory.save(own, written_turn("user", "My own words"), answer)
    first, second, third = [
        demonstrations.finish(assignment=slot, user=slot.trainer, version=1) for slot in (whole, changed, own)
    ]
    opening = first.messages.get(position=1)
    assert (opening.source, opening.edit_distance, opening.completion) == ("imported", 0.0, None)
    opening = second.messages.get(position=1)
    assert (opening.source, opening.edit_distance) == ("edited", pytest.approx(8 / 20))
    assert second.prompt.text == "Poach an egg"
    assert second.family == second.prompt.family
    assert third.prompt is None
    assert third.messages.get(position=1).source == "written"


def test_suggestions_made_for_others_are_no_provenance(project, trainer, slot):
    other = factory.suggested(factory.held_piece(project), "Not yours.")
    name = [other.pk, 0]
    turn = written_turn("assistant", "Not yours.", shown=[name, [10**9, 0]], **{"from": name})
    factory.save(slot, written_turn("user", EGG), turn)
    conversation = demonstrations.finish(assignment=slot, user=trainer, version=1)
    message = conversation.messages.get(position=2)
    assert (message.source, message.completion, message.passed) == ("written", None, [])


def test_a_suggestion_that_is_still_being_written_keeps_the_piece_open(trainer, slot):
    request = factory.claimed(demonstrations.suggest(assignment=slot, user=trainer, role="assistant", before=[]))
    turn = written_turn("assistant", "Half", **{"from": [request.pk, 0]})
    factory.save(slot, written_turn("user", EGG), turn)
    with pytest.raises(Conflict, match="still being written"):
        demonstrations.finish(assignment=slot, user=trainer, version=1)
    slot.refresh_from_db()
    assert slot.state == "held"


def test_what_must_be_mended_forbids_the_end(trainer, slot):
    factory.save(slot, written_turn("user", EGG))
    with pytest.raises(Invalid, match="The last turn is the user's"):
        demonstrations.finish(assignment=slot, user=trainer, version=1)
    look = demonstrations.look(assignment=Assignment.objects.get(pk=slot.pk), user=trainer)
    assert look.problems == ["The last turn is the user's: write the assistant's answer, or delete it."]


def test_another_tabs_draft_is_not_finished_unseen(trainer, slot):
    turns = [written_turn(role, text) for role, text in factory.TURNS]
    factory.save(slot, *turns)
    factory.save(slot, *turns, written_turn("user", "More"))
    with pytest.raises(DraftConflict) as refused:
        demonstrations.finish(assignment=slot, user=trainer, version=1)
    assert refused.value.version == 2
    assert len(refused.value.current["turns"]) == 3


def test_a_second_end_changes_nothing(project, trainer, slot):
    conversation = factory.finished_piece(project, slot=slot)
    with pytest.raises(Conflict):
        demonstrations.finish(assignment=slot, user=trainer, version=1)
    assert conversation.messages.count() == 3


def test_a_late_piece_counts_while_nobody_has_its_place_and_is_kept_in_any_case(project, trainer):
    for taken in (False, True):
        slot = factory.held_piece(project, factory.trainer(project))
        factory.save(slot, *(written_turn(role, text) for role, text in factory.TURNS))
        Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        assignments.expire()
        if taken:
            claim(factory.trainer(project), project)
        slot.refresh_from_db()
        assignments.save_draft(assignment=slot, user=slot.trainer, draft=slot.draft, version=1)
        conversation = demonstrations.finish(assignment=slot, user=slot.trainer, version=2)
        slot.refresh_from_db()
        assert slot.state == ("surplus" if taken else "submitted")
        assert conversation.state == "finished"
        assert (conversation in demonstrations.counting(project)) is False
        assert conversation.slots.exists() is not taken


def test_near_duplicates_are_said_and_not_forbidden(project, trainer):
    text = "Please tell me how long one should boil an egg so that the yolk stays soft and runny."
    answer = "Six minutes in boiling water, then put it under cold water so that it does not go on cooking inside."
    projects.add_prompts(project=project, openings=[projects.Opening(text)])
    project.write_from = "blank"
    project.save()
    first = factory.finished_piece(project, None, written_turn("user", text), written_turn("assistant", answer))
    slot = factory.held_piece(project, trainer)
    factory.save(slot, written_turn("user", text + "!"), written_turn("assistant", answer))
    slot.refresh_from_db()
    look = demonstrations.look(assignment=slot, user=trainer)
    assert look.problems == []
    assert f"This is nearly the same as conversation {first.pk}, which is finished already." in look.warnings
    assert any("nearly the same as a prompt" in said for said in look.warnings)
    demonstrations.finish(assignment=slot, user=trainer, version=1)


def test_personal_data_is_said_with_its_turn_and_not_forbidden(trainer, slot):
    factory.save(slot, written_turn("user", EGG), written_turn("assistant", "Ask maria.keller@gmail.com about it."))
    slot.refresh_from_db()
    look = demonstrations.look(assignment=slot, user=trainer)
    assert look.problems == []
    (said,) = look.warnings
    assert said.startswith("Turn 2 has what looks like an e-mail address")
    assert "maria.keller" not in said


def test_what_a_piece_revises_is_no_near_duplicate(project, trainer):
    first = factory.finished_piece(project, trainer)
    demonstrations.revise(conversation=first, user=trainer)
    slot = claim(trainer, project)
    assert demonstrations.look(assignment=slot, user=trainer).warnings == []


def test_a_finished_piece_is_found_by_its_whole_text(project):
    conversation = factory.finished_piece(project)
    texts = conversation.messages.filter(position__gt=0).order_by("position").values_list("text", flat=True)
    assert conversation.near == likeness.bands(likeness.whole(texts))


def test_skipping_a_piece_passes_its_slot_on(project, trainer, slot):
    assignments.skip(assignment=slot, user=trainer, reason="other")
    assert Conversation.objects.get().state == "abandoned"
    assert claim(factory.trainer(project), project).replaces == slot


# --- Branches -------------------------------------------------------------------------------------------------------


def test_a_branch_is_a_copy_that_waits_for_its_trainer(project, trainer, slot):
    request = factory.suggested(slot, ANSWER)
    turns = [
        written_turn("user", EGG),
        written_turn("assistant", ANSWER, taken=len(ANSWER), shown=[[request.pk, 0]], **{"from": [request.pk, 0]}),
        written_turn("user", "Thanks"),
    ]
    factory.save(slot, *turns)
    branched = demonstrations.branch(assignment=slot, user=trainer, upto=1)
    assert branched.conversation.forked_from == slot.conversation
    assert [turn["text"] for turn in branched.draft["turns"]] == [EGG, ANSWER, ""]
    assert branched.draft["turns"][2]["role"] == "user"
    with pytest.raises(NothingLeft):
        claim(factory.trainer(project), project)
    factory.save(slot, *turns[:2])
    demonstrations.finish(assignment=slot, user=trainer, version=2)
    held = claim(trainer, project)
    assert held == branched
    conversation = demonstrations.finish(assignment=held, user=trainer, version=0)
    # Its provenance leads to the suggestion that was made for the piece that it branched from.
    assert conversation.messages.get(position=2).source == "taken"


@pytest.mark.parametrize("branch_first", [True, False])
def test_a_branch_is_in_the_split_of_its_piece_though_both_openings_changed(project, trainer, slot, branch_first):
    answer = written_turn("assistant", ANSWER)
    factory.save(slot, written_turn("user", EGG), answer)
    demonstrations.branch(assignment=slot, user=trainer, upto=1)
    if branch_first:
        # A trainer is at one piece at a time.
        Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        assignments.expire()
    else:
        original = factory.finished_piece(project, None, written_turn("user", EGG + " Soft"), answer, slot=slot)
    copy = claim(trainer, project)
    branched = factory.finished_piece(project, None, written_turn("user", EGG + " Hard"), answer, slot=copy)
    if branch_first:
        original = factory.finished_piece(project, None, written_turn("user", EGG + " Soft"), answer, slot=slot)
    assert branched.forked_from == original
    assert branched.family == original.family


def test_a_branch_of_the_longest_piece_can_be_read(trainer, slot):
    factory.save(slot, *(written_turn(manuscripts.ROLES[n % 2], "Yes?") for n in range(manuscripts.MOST_TURNS)))
    branched = demonstrations.branch(assignment=slot, user=trainer, upto=manuscripts.MOST_TURNS - 1)
    assert len(manuscripts.read(branched.draft).turns) == manuscripts.MOST_TURNS


def test_a_branch_that_is_skipped_goes_to_nobody(project, trainer, slot):
    factory.save(slot, written_turn("user", EGG))
    demonstrations.branch(assignment=slot, user=trainer, upto=0)
    assignments.skip(assignment=slot, user=trainer, reason="other")
    branched = claim(trainer, project)
    assert branched.personal
    assignments.skip(assignment=branched, user=trainer, reason="other")
    assert not Assignment.objects.filter(replaces=branched).exists()


def test_a_branch_that_ran_out_still_counts(project, trainer, slot):
    factory.save(slot, *(written_turn(role, text) for role, text in factory.TURNS))
    branched = demonstrations.branch(assignment=slot, user=trainer, upto=1)
    demonstrations.finish(assignment=slot, user=trainer, version=1)
    claim(trainer, project)
    Assignment.objects.filter(pk=branched.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assignments.expire()
    branched.refresh_from_db()
    assert branched.state == "expired"
    demonstrations.finish(assignment=branched, user=trainer, version=0)
    branched.refresh_from_db()
    assert branched.state == "submitted"


def test_what_cannot_be_branched(project, trainer, slot):
    factory.save(slot, written_turn("user", EGG))
    for upto in (-1, 1):
        with pytest.raises(Invalid):
            demonstrations.branch(assignment=slot, user=trainer, upto=upto)
    for _ in range(demonstrations.MOST_WAITING):
        demonstrations.branch(assignment=slot, user=trainer, upto=0)
    with pytest.raises(Conflict, match="wait already"):
        demonstrations.branch(assignment=slot, user=trainer, upto=0)
    Iteration.objects.update(state="closing")
    with pytest.raises(Conflict, match="No round"):
        demonstrations.branch(assignment=slot, user=trainer, upto=0)


# --- Revisions ------------------------------------------------------------------------------------------------------


def test_a_revision_stands_in_the_place_of_the_old_one(project, trainer):
    project.counts_before_review = True
    project.save()
    first = factory.finished_piece(project, trainer)
    assert list(demonstrations.counting(project)) == [first]
    demonstrations.revise(conversation=first, user=trainer)
    slot = claim(trainer, project)
    assert slot.conversation.revises == first
    assert [turn["text"] for turn in slot.draft["turns"]] == list(
        first.messages.filter(position__gt=0).order_by("position").values_list("text", flat=True)
    )
    second = demonstrations.finish(assignment=slot, user=trainer, version=0)
    assert list(demonstrations.counting(project)) == [second]
    assert (second.family, second.revises) == (first.family, first)
    assert demonstrations.standing_in(first) == second
    assert not demonstrations.can_revise(conversation=first, user=trainer)
    assert demonstrations.can_revise(conversation=second, user=trainer)
    # Nobody reviews the old one any more; the new one is reviewed because the old one was drawn.
    assert [slot.subject for slot in Assignment.objects.filter(kind="review", state="free")] == [second]


def test_a_revision_keeps_the_provenance_of_what_was_not_changed(project, trainer, slot):
    request = factory.suggested(slot, ANSWER, "Ten.")
    shown = [[request.pk, 0], [request.pk, 1]]
    turn = written_turn("assistant", ANSWER, taken=len(ANSWER), shown=shown, **{"from": shown[0]})
    factory.save(slot, written_turn("user", EGG), turn)
    first = demonstrations.finish(assignment=slot, user=trainer, version=1)
    demonstrations.revise(conversation=first, user=trainer)
    again = demonstrations.finish(assignment=claim(trainer, project), user=trainer, version=0)
    kept = ("position", "text", "source", "completion", "edit_distance", "passed", "active_seconds", "typed", "taken")
    assert list(again.messages.values_list(*kept)) == list(first.messages.values_list(*kept))


def test_what_cannot_be_revised(project, trainer):
    first = factory.finished_piece(project, trainer)
    with pytest.raises(Conflict, match="of your own"):
        demonstrations.revise(conversation=first, user=factory.trainer(project))
    demonstrations.revise(conversation=first, user=trainer)
    with pytest.raises(Conflict, match="under way"):
        demonstrations.revise(conversation=first, user=trainer)
    exported = factory.finished_piece(project, trainer)
    Conversation.objects.filter(pk=exported.pk).update(exported_at=timezone.now())
    with pytest.raises(Conflict, match="part of an export"):
        demonstrations.revise(conversation=exported, user=trainer)
    chat = factory.finished_chat(project, trainer)
    with pytest.raises(Conflict, match="of your own"):
        demonstrations.revise(conversation=chat, user=trainer)


@pytest.mark.parametrize(
    ("second", "states", "counts"),
    [
        ("waits", ["submitted", "withdrawn"], True),
        ("held", ["surplus", "held"], False),
        ("finished", ["surplus", "submitted"], False),
    ],
)
def test_a_revision_that_ran_out_and_was_begun_again(project, trainer, second, states, counts):
    piece = factory.finished_piece(project, trainer)
    demonstrations.revise(conversation=piece, user=trainer)
    first = claim(trainer, project)
    Assignment.objects.filter(pk=first.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assignments.expire()
    again = demonstrations.revise(conversation=piece, user=trainer)
    if second != "waits":
        again = claim(trainer, project)
    if second == "finished":
        factory.finished_piece(project, slot=again)
    first.refresh_from_db()
    assert assignments.still_count([first]) == ({first.pk} if counts else set())
    factory.finished_piece(project, slot=first)
    first.refresh_from_db()
    again.refresh_from_db()
    assert [first.state, again.state] == states
    assert piece.revisions.exclude(assignment__state="surplus").filter(state="finished").count() == (second != "held")


def test_a_closed_round_takes_back_what_waits(project, trainer):
    first = factory.finished_piece(project, trainer)
    waiting = demonstrations.revise(conversation=first, user=trainer)
    iterations.close(iteration=factory.current(project))
    waiting.refresh_from_db()
    assert waiting.state == "withdrawn"
    # The review of what was written is still to be done before the round can close.
    assert iterations.close_finished() == 0
    factory.review_of(first)
    assert iterations.close_finished() == 1


# --- What counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "before_review", "counts"), [(0, False, True), (1, False, False), (1, True, True)])
def test_what_counts_before_review_is_the_projects_choice(share, before_review, counts):
    project = factory.project(review_share=share, counts_before_review=before_review)
    conversation = factory.finished_piece(project)
    assert demonstrations.counting(project).filter(pk=conversation.pk).exists() is counts


def test_abandoned_and_open_pieces_and_chats_do_not_count():
    project = factory.project(review_share=0, kinds=["write"])
    openings.abandon(conversation=factory.held_piece(project).conversation)
    factory.held_piece(project)
    factory.finished_chat(project)
    assert not demonstrations.counting(project).exists()
