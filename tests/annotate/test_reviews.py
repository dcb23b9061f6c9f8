"""Reviews: drawn, given, and what follows from them."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import assignments, demonstrations, iterations, projects, reviews
from annotate.errors import Conflict, Invalid, NothingLeft
from annotate.models import Assignment, Conversation, Membership, Review, Role
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
def reviewer(project):
    return factory.person(project, role=Role.REVIEWER)


@pytest.fixture
def piece(project, trainer):
    """A finished piece whose answer is a suggestion, taken whole."""
    slot = factory.held_piece(project, trainer)
    request = factory.suggested(slot, ANSWER)
    turn = written_turn("assistant", ANSWER, taken=len(ANSWER), **{"from": [request.pk, 0]})
    factory.save(slot, written_turn("user", EGG), turn)
    return demonstrations.finish(assignment=slot, user=trainer, version=1)


@pytest.fixture
def slot(project, piece, reviewer):
    return assignments.claim(user=reviewer, project=project, kinds=["review"])


def test_a_finished_piece_is_offered_to_reviewers_but_never_to_its_author(project, trainer, piece, reviewer):
    assert piece.review_state == "wanted"
    with pytest.raises(NothingLeft):
        assignments.claim(user=trainer, project=project, kinds=["review"])
    slot = assignments.claim(user=reviewer, project=project, kinds=["review"])
    assert (slot.kind, slot.subject, slot.conversation) == ("review", piece, None)


def test_authors_who_may_rank_their_own_still_do_not_review_it(project, trainer, piece):
    project.authors_rank_own = True
    project.save()
    with pytest.raises(NothingLeft):
        assignments.claim(user=trainer, project=project, kinds=["review"])


def test_a_review_that_was_skipped_goes_to_another_reviewer(project, slot, reviewer):
    assignments.skip(assignment=slot, user=reviewer, reason="language")
    with pytest.raises(NothingLeft):
        assignments.claim(user=reviewer, project=project, kinds=["review"])
    other = assignments.claim(user=factory.person(project, role=Role.REVIEWER), project=project, kinds=["review"])
    assert other.replaces == slot


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_that_is_reviewed_is_the_projects(share):
    project = factory.project(review_share=share)
    trainer = factory.trainer(project)
    drawn = []
    for _ in range(40):
        slot = factory.held_piece(project, trainer)
        conversation = factory.finished_piece(project, slot=slot)
        drawn.append(conversation.review_state == "wanted")
        assert conversation.slots.filter(kind="review").exists() is drawn[-1]
    # The draw is keyed by a secret that is new in every run: five standard deviations about the mean.
    spread = 5 * (40 * share * (1 - share)) ** 0.5
    assert abs(sum(drawn) - 40 * share) <= spread


def test_an_approved_piece_counts(project, piece, slot, reviewer):
    assert piece not in demonstrations.counting(project)
    review = reviews.submit(assignment=slot, user=reviewer, verdict="approved", note=" Good. ", active_seconds=40)
    piece.refresh_from_db()
    slot.refresh_from_db()
    assert (review.note, review.current, review.edit, piece.review_state) == ("Good.", True, None, "approved")
    assert (slot.state, slot.active_seconds) == ("submitted", 40)
    assert piece in demonstrations.counting(project)
    assert reviews.standing(piece) == review


def test_what_is_returned_goes_back_to_its_trainer_first(project, trainer, piece, slot, reviewer):
    factory.write_slot(project)
    review = reviews.submit(
        assignment=slot, user=reviewer, verdict="returned", comments={2: " How large is the egg? ", 1: "  "}
    )
    piece.refresh_from_db()
    assert piece.review_state == "returned"
    assert [(comment.position, comment.text) for comment in review.comments.all()] == [(2, "How large is the egg?")]
    assert piece not in demonstrations.counting(project)
    # Somebody else gets the new slot, its trainer the one to mend.
    assert assignments.claim(user=factory.trainer(project), project=project).subject is None
    mended = assignments.claim(user=trainer, project=project)
    assert (mended.subject, mended.conversation.revises) == (piece, piece)
    factory.save(mended, written_turn("user", EGG), written_turn("assistant", f"{ANSWER} A large one takes ten."))
    again = demonstrations.finish(assignment=mended, user=trainer, version=1)
    assert again.review_state == "wanted"
    factory.review_of(again, reviewer)
    assert list(demonstrations.counting(project)) == [again]


def test_what_came_back_is_open_to_all_after_a_while(project, trainer, piece, slot, reviewer):
    reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="Mend it.")
    other = factory.trainer(project)
    with pytest.raises(NothingLeft):
        assignments.claim(user=other, project=project)
    assert assignments.open_reservations() == 0
    Assignment.objects.filter(reserved_for=trainer).update(reserved_until=timezone.now() - timedelta(seconds=1))
    assert assignments.open_reservations() == 1
    assert assignments.claim(user=other, project=project).subject == piece


def test_its_trainer_may_pass_on_what_came_back(project, trainer, piece, slot, reviewer):
    reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="Mend it.")
    mended = assignments.claim(user=trainer, project=project)
    assignments.skip(assignment=mended, user=trainer, reason="expertise")
    with pytest.raises(NothingLeft):
        assignments.claim(user=trainer, project=project)
    assert assignments.claim(user=factory.trainer(project), project=project).subject == piece


def test_what_came_back_and_ran_out_waits_for_its_trainer_still(project, trainer, piece, slot, reviewer):
    reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="Mend it.")
    mended = assignments.claim(user=trainer, project=project)
    Assignment.objects.filter(pk=mended.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assignments.expire()
    with pytest.raises(NothingLeft):
        assignments.claim(user=factory.trainer(project), project=project)
    factory.save(mended, written_turn("user", EGG), written_turn("assistant", "Ten minutes."))
    demonstrations.finish(assignment=mended, user=trainer, version=1)
    mended.refresh_from_db()
    assert mended.state == "submitted"
    assert Assignment.objects.get(replaces=mended).state == "withdrawn"


def test_what_is_returned_after_its_trainer_left_is_open_to_all(project, trainer, piece, slot, reviewer):
    Membership.objects.filter(user=trainer).delete()
    reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="Mend it.")
    assert assignments.claim(user=factory.trainer(project), project=project).subject == piece


@pytest.mark.parametrize("returned", ["before", "while"])
def test_what_came_back_in_a_round_that_closes_is_mended_in_the_next(project, trainer, piece, slot, reviewer, returned):
    # Another one is mended before the round closes.
    mended = factory.finished_piece(project, trainer)
    factory.review_of(mended, verdict="returned")
    factory.finished_piece(project, slot=assignments.claim(user=trainer, project=project))
    for step in ("before", "while"):
        if returned == step:
            reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="Mend it.")
        if step == "before":
            iterations.close(iteration=factory.current(project))
    assert not assignments.reserved_for(user=trainer, project=project).exists()
    opened = iterations.open_next(project=project)
    waiting = assignments.reserved_for(user=trainer, project=project).get()
    assert (waiting.subject, waiting.iteration) == (piece, opened)


def test_an_edit_is_a_new_conversation_that_points_back(project, trainer, piece, slot, reviewer):
    text = f"{ANSWER} Then peel it."
    review = reviews.submit(assignment=slot, user=reviewer, verdict="approved", edits={1: f"{EGG} ", 2: text})
    edit = review.edit
    assert (edit.revises, edit.trainer, edit.state, edit.review_state) == (piece, reviewer, "finished", "approved")
    assert (edit.family, edit.kind) == (piece.family, "write")
    before = {message.position: message for message in piece.messages.all()}
    after = {message.position: message for message in edit.messages.all()}
    assert after.keys() == before.keys()
    assert (after[1].text, after[1].source, after[1].typed) == (EGG, "written", before[1].typed)
    assert (before[2].source, before[2].text) == ("taken", ANSWER)
    assert (after[2].source, after[2].text, after[2].completion) == ("edited", text, before[2].completion)
    assert after[2].edit_distance == pytest.approx(14 / len(text))
    assert after[2].typed + after[2].pasted + after[2].taken >= len(text)
    assert list(demonstrations.counting(project)) == [edit]
    # The author cannot revise what the reviewer made, nor what stands behind it.
    assert not demonstrations.can_revise(conversation=piece, user=trainer)
    assert not demonstrations.can_revise(conversation=edit, user=reviewer)


@pytest.mark.parametrize(
    ("edits", "sources", "distances"),
    [
        ({1: EGG, 2: ANSWER}, ["imported", "taken"], [0, 0]),
        ({1: EGG + "??", 2: ANSWER + "!"}, ["edited", "edited"], [2 / 23, 1 / 32]),
        ({2: "No."}, ["edited", "edited"], [1 / 22, 29 / 31]),
    ],
)
def test_an_edit_is_measured_from_what_the_turn_began_as(project, trainer, edits, sources, distances):
    projects.add_prompts(project=project, openings=[projects.Opening(text=EGG)])
    slot = factory.held_piece(project, trainer)
    request = factory.suggested(slot, ANSWER)
    opened = written_turn("user", EGG + "!", opening=True)
    answered = written_turn("assistant", ANSWER + "?!", **{"from": [request.pk, 0]})
    piece = factory.finished_piece(project, None, opened, answered, slot=slot)
    edit = factory.review_of(piece, edits=edits).edit
    said = edit.messages.order_by("position")[1:]
    assert [message.source for message in said] == sources
    assert [message.edit_distance for message in said] == pytest.approx(distances)


def test_edits_that_change_nothing_are_no_edit(piece, slot, reviewer):
    review = reviews.submit(assignment=slot, user=reviewer, verdict="approved", edits={2: ANSWER})
    assert review.edit is None


@pytest.mark.parametrize(
    "given",
    [
        {"verdict": "maybe"},
        {"verdict": "returned"},
        {"verdict": "returned", "note": " ", "comments": {2: " "}},
        {"verdict": "returned", "note": "Mend it.", "edits": {2: "Mine."}},
        {"verdict": "approved", "comments": {3: "Where?"}},
        {"verdict": "approved", "edits": {3: "Where?"}},
        {"verdict": "approved", "edits": {2: " "}},
        {"verdict": "approved", "edits": {2: "a" * 60_001}},
        {"verdict": "approved", "note": "a" * 5_001},
        {"verdict": "approved", "comments": {2: "a" * 5_001}},
    ],
)
def test_what_cannot_be_a_verdict(piece, slot, reviewer, given, settings):
    settings.MESSAGE_CHARACTERS = 60_000
    with pytest.raises(Invalid):
        reviews.submit(assignment=slot, user=reviewer, **given)
    slot.refresh_from_db()
    piece.refresh_from_db()
    assert (slot.state, piece.review_state) == ("held", "wanted")
    assert not Review.objects.exists()


def test_a_second_verdict_and_anothers_slot_change_nothing(project, piece, slot, reviewer):
    with pytest.raises(Conflict):
        reviews.submit(assignment=slot, user=factory.person(project, role=Role.REVIEWER), verdict="approved")
    reviews.submit(assignment=slot, user=reviewer, verdict="approved")
    with pytest.raises(Conflict):
        reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="No.")
    piece.refresh_from_db()
    assert piece.review_state == "approved"
    with pytest.raises(Conflict):
        reviews.submit(assignment=factory.held_piece(project), user=reviewer, verdict="approved")


def test_a_verdict_that_comes_too_late_is_kept_beside_the_other(project, piece, slot, reviewer):
    Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assignments.expire()
    other = factory.person(project, role=Role.REVIEWER)
    factory.review_of(piece, other)
    late = reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="No.", comments={1: "Why?"})
    piece.refresh_from_db()
    assert (late.current, piece.review_state) == (False, "approved")
    assert reviews.standing(piece).reviewer == other
    assert not Assignment.objects.filter(kind="write", subject=piece).exists()


def test_a_return_of_what_was_revised_meanwhile_makes_no_second_slot(project, trainer, piece, slot, reviewer):
    demonstrations.revise(conversation=piece, user=trainer)
    reviews.submit(assignment=slot, user=reviewer, verdict="returned", note="Mend it.")
    assert Assignment.objects.filter(kind="write", subject=piece).count() == 1
    mended = assignments.claim(user=trainer, project=project)
    demonstrations.finish(assignment=mended, user=trainer, version=0)
    piece.refresh_from_db()
    assert piece.review_state == "returned"
    assert Conversation.objects.get(revises=piece).review_state == "wanted"


def test_an_edit_of_what_was_revised_meanwhile_is_refused(project, trainer, piece, slot, reviewer):
    demonstrations.revise(conversation=piece, user=trainer)
    revision = factory.finished_piece(project, slot=assignments.claim(user=trainer, project=project))
    with pytest.raises(Invalid, match="A newer version of this piece was finished"):
        reviews.submit(assignment=slot, user=reviewer, verdict="approved", edits={2: "Nine minutes."})
    reviews.submit(assignment=slot, user=reviewer, verdict="approved")
    factory.review_of(revision)
    assert list(demonstrations.counting(project)) == [revision]


def test_a_revision_stands_in_the_place_of_what_a_reviewer_made_meanwhile(project, trainer, piece, slot, reviewer):
    demonstrations.revise(conversation=piece, user=trainer)
    revising = assignments.claim(user=trainer, project=project)
    edit = reviews.submit(assignment=slot, user=reviewer, verdict="approved", edits={2: "Nine minutes."}).edit
    assert list(demonstrations.counting(project)) == [edit]
    revision = factory.finished_piece(project, slot=revising)
    assert (revision.revises, revision.review_state) == (edit, "wanted")
    factory.review_of(revision)
    assert list(demonstrations.counting(project)) == [revision]
