"""The review page: what a reviewer reads, and the verdict that they send."""

import json

import pytest
from django.urls import reverse

from annotate import assignments, demonstrations
from annotate.models import Assignment, Review
from tests import factory
from tests.trainers_ui.conftest import JSON


def a_piece(project, trainer=None):
    """A piece with all kinds of provenance: typed and pasted, a suggestion changed, one whole, and some not taken."""
    slot = factory.held_piece(project, trainer)
    request = factory.suggested(slot, "Boil it for five minutes.", "Fry it <i>gently</i>.")
    whole = factory.suggested(slot, "You are welcome.")
    first, second, other = [request.pk, 0], [request.pk, 1], [whole.pk, 0]
    return factory.finished_piece(
        project,
        None,
        factory.written_turn("user", "How do I *boil* an egg?", typed=15, pasted=8, seconds=30),
        factory.written_turn(
            "assistant",
            "Boil it for six minutes.",
            **{"from": first, "shown": [first, second], "taken": 25, "typed": 3},
        ),
        factory.written_turn("user", "Thanks!"),
        factory.written_turn("assistant", "You are welcome.", **{"from": other, "shown": [other], "taken": 16}),
        slot=slot,
    )


@pytest.fixture
def piece(project, trainer):
    return a_piece(project, trainer)


@pytest.fixture
def task(piece, reviewer) -> Assignment:
    """The review of the piece, held by the reviewer."""
    return factory.held(piece.slots.get(), reviewer)


def page_of(task) -> str:
    return reverse("work", args=[task.pk])


def verdict_of(task) -> str:
    return reverse("verdict", args=[task.pk])


def test_it_shows_how_each_turn_came_about(browser, html, task, trainer):
    page = html(browser(task.trainer).get(page_of(task)))

    assert f"Written by {trainer}" in page
    assert "How do I <em>boil</em> an egg?" in page
    assert "Typed at 30 characters a minute" in page
    assert "30 s at it" in page
    assert "65 % typed" in page
    assert "35 % pasted" in page
    assert "Suggestion, 12 % changed" in page
    assert '<del><span class="unseen">[taken out: </span>five' in page
    assert "1 suggestion shown and not taken" in page
    assert 'aria-label="How turn 2 came about"' in page
    assert "Fry it &lt;i&gt;gently&lt;/i&gt;." in page
    assert "Suggestion, whole" in page
    assert str(task.iteration.reply_policy) in page


def test_a_changed_opening_is_compared_with_the_prompt(browser, html, project, reviewer):
    project.prompts.create(text="Why is bread flat?", digest="0" * 64, family="f")
    slot = factory.held_piece(project)
    question = factory.written_turn("user", "Why is my bread so flat?", opening=True, taken=18)
    piece = factory.finished_piece(project, None, question, factory.written_turn("assistant", "Wait."), slot=slot)

    page = html(browser(reviewer).get(page_of(factory.held(piece.slots.get(), reviewer))))

    assert "What was changed in the opening" in page
    assert "from an opening" in page


def test_approve(browser, task, piece):
    response = browser(task.trainer).post(
        verdict_of(task),
        {"verdict": "approved", "note": "Good.", "comment-2": "Nice.", "text-2": "Boil it for six minutes.\r\n"},
    )

    assert response.headers["Location"] == f"/?after={task.pk}"
    review = Review.objects.get()
    assert (review.verdict, review.note, review.edit) == ("approved", "Good.", None)
    assert list(review.comments.values_list("position", "text")) == [(2, "Nice.")]
    piece.refresh_from_db()
    assert piece.review_state == "approved"


def test_edit_and_approve(browser, task, piece):
    browser(task.trainer).post(
        verdict_of(task), {"verdict": "approved", "text-1": "How do I *boil* an egg?", "text-2": "Seven\r\nminutes."}
    )

    edit = Review.objects.get().edit
    assert edit.revises == piece
    assert edit.messages.get(position=2).text == "Seven\nminutes."
    assert edit.messages.get(position=2).source == "edited"


def test_return(browser, task, piece, trainer):
    browser(task.trainer).post(
        verdict_of(task), {"verdict": "returned", "comment-0": "Too short.", "active_seconds": "40"}
    )

    assert Review.objects.get().comments.get().position == 0
    assert piece.slots.get(kind="write").reserved_for == trainer
    task.refresh_from_db()
    assert task.active_seconds == 40


def test_a_script_gets_a_word_to_go_on_with(browser, task):
    answer = browser(task.trainer).post(verdict_of(task), {"verdict": "approved"}, **JSON).json()

    assert answer["after"] == task.pk
    assert "Approved." in answer["notice"]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"verdict": "returned"}, "Say what should be mended"),
        ({"verdict": "returned", "note": "No.", "text-2": "Other."}, "mended by its trainer"),
        ({"verdict": "maybe"}, "A verdict is one of"),
        ({}, "A verdict is one of"),
        ({"verdict": "approved", "comment-9": "What?"}, "names a turn"),
        ({"verdict": "approved", "comment-x": "What?"}, "is damaged"),
        ({"verdict": "approved", "text-2": " "}, "would be empty"),
        ({"verdict": "approved", "note": "x" * 6000}, "may have 5,000 characters"),
    ],
)
def test_refusals_keep_what_was_typed(browser, html, task, sent, why):
    typed = {"comment-1": "A comment of mine", "note": "My note"} | sent

    response = browser(task.trainer).post(verdict_of(task), typed if sent.get("verdict") != "returned" else sent)

    assert response.status_code == 422
    assert why in html(response)
    if sent.get("verdict") != "returned":
        assert "A comment of mine" in html(response)
    assert not Review.objects.exists()
    refused = browser(task.trainer).post(verdict_of(task), sent, **JSON)
    assert refused.status_code == 422
    assert why in refused.json()["error"]


def test_what_was_not_edited_is_not_taken_for_an_edit(browser, html, project, reviewer):
    turns = [factory.written_turn("user", "One\n\ntwo"), factory.written_turn("assistant", "Three.")]
    task = factory.held(factory.finished_piece(project, None, *turns).slots.get(), reviewer)

    page = browser(reviewer).post(verdict_of(task), {"verdict": "returned", "text-1": "One\r\n\r\ntwo"})

    assert page.status_code == 422
    assert "data-edit open" not in html(page)


def test_twice(browser, html, task):
    client = browser(task.trainer)
    client.post(verdict_of(task), {"verdict": "approved"})

    response = client.post(verdict_of(task), {"verdict": "returned", "note": "No.", "comment-2": "Longer."})

    assert response.status_code == 409
    assert "Longer." in html(response)
    assert Review.objects.get().verdict == "approved"


def test_the_draft_comes_back(browser, html, task):
    draft = {"note": "Nearly.", "comments": {"2": "Say & why."}, "edits": {"4": "At your service."}}
    saved = browser(task.trainer).post(
        reverse("draft", args=[task.pk]), {"draft": json.dumps(draft), "version": 0, "active_seconds": 5}, **JSON
    )

    page = html(browser(task.trainer).get(page_of(task)))

    assert saved.status_code == 200
    for text in ("Nearly.", "Say &amp; why.", "At your service."):
        assert text in page
    assert page.count('class="mark" data-comment open') == 1
    assert page.count('class="mark edit" data-edit open') == 1


@pytest.mark.parametrize(
    "draft",
    [
        {"note": 3, "comments": [], "edits": "x"},
        {"comments": {"1": 2, "x": "a", "١": "b", "9" * 30: "c"}, "edits": {"2": None, "-1": "d"}},
        {"turns": []},
    ],
)
def test_a_damaged_draft_is_left_out(browser, task, draft):
    Assignment.objects.filter(pk=task.pk).update(draft=draft)

    assert browser(task.trainer).get(page_of(task)).status_code == 200


def test_a_mended_piece_shows_what_was_asked_and_what_changed(browser, html, project, reviewer, trainer, piece):
    factory.review_of(piece, verdict="returned", note="Mind the yolk.", comments={2: "How many minutes?", 3: "Why?"})
    slot = factory.held(piece.slots.get(kind="write"), trainer)
    slot.refresh_from_db()
    turns = slot.draft["turns"][:2]
    turns[1] |= {"text": "Boil it for nine minutes.", "typed": 10}
    mended = factory.finished_piece(project, None, *turns, slot=slot)

    page = html(browser(reviewer).get(page_of(factory.held(mended.slots.get(), reviewer))))

    assert "Mended after it was returned." in page
    assert "Mind the yolk." in page
    assert "How many minutes?" in page
    assert "[put in: </span>nine" in page
    assert page.count("A turn of the") == 2
    assert "Why?" in page


def test_after_its_end_it_shows_what_was_said(browser, html, task):
    client = browser(task.trainer)
    client.post(verdict_of(task), {"verdict": "approved", "note": "Good.", "comment-1": "Fine.", "text-2": "Seven."})

    page = html(client.get(page_of(task)))

    assert "You approved it with your edits." in page
    assert "Good." in page
    assert "Fine." in page
    assert "What the reviewer changed" in page
    assert "<form" not in page.partition("<main")[2].partition("</main>")[0]


def test_one_that_was_skipped_goes_to_somebody_else(browser, html, project, task):
    browser(task.trainer).post(reverse("skip", args=[task.pk]), {"reason": "expertise"})

    other = factory.person(project, role="reviewer")
    assert assignments.claim(user=other, project=project, kinds=["review"]).subject == task.subject
    assert "You skipped this" in html(browser(task.trainer).get(page_of(task)))


@pytest.mark.parametrize("late", [False, True])
def test_one_whose_time_ran_out(browser, html, project, task, late):
    Assignment.objects.filter(pk=task.pk).update(lease_until="2020-01-01T00:00Z")
    assignments.expire()
    assert "Your time for this review has run out" in html(browser(task.trainer).get(page_of(task)))
    if late:
        place = Assignment.objects.get(replaces=task)
        factory.held(place, factory.person(project, role="reviewer"))

    response = browser(task.trainer).post(verdict_of(task), {"verdict": "approved"}, follow=True)

    assert Review.objects.get().current is not late
    assert ("another verdict was in before" in html(response)) is late


def test_not_for_others(browser, project, task, trainer, stranger):
    outside = factory.person(factory.project(), role="reviewer")
    for user in (trainer, stranger, outside, factory.person(project, role="reviewer")):
        assert browser(user).get(page_of(task)).status_code == 404
        assert browser(user).post(verdict_of(task), {"verdict": "approved"}).status_code == 404
    assert not Review.objects.exists()


def test_only_reviews_get_verdicts(browser, trainer, chat):
    assert browser(trainer).post(verdict_of(chat), {"verdict": "approved"}).status_code == 404


def test_get_changes_nothing(browser, task):
    assert browser(task.trainer).get(verdict_of(task)).status_code == 405


def test_signed_out(browser, task):
    assert browser().post(verdict_of(task)).headers["Location"] == f"/accounts/login/?next={page_of(task)}"


def test_queries_do_not_grow(browser, count_queries, project, reviewer, trainer, task):
    client = browser(reviewer)
    few = count_queries(client, page_of(task))
    slot = factory.held_piece(project, trainer)
    turns = []
    for _ in range(6):
        request = factory.suggested(slot, "Boil it for five minutes.", "Fry it.")
        shown = [[request.pk, 0], [request.pk, 1]]
        turns += [
            factory.written_turn("user", "How do I boil an egg?"),
            factory.written_turn("assistant", "Six minutes.", **{"from": shown[0], "shown": shown, "taken": 20}),
        ]
    long = factory.finished_piece(project, None, *turns, slot=slot)
    Assignment.objects.filter(pk=task.pk).update(seat=2)

    assert count_queries(client, page_of(factory.held(long.slots.get(), reviewer))) == few


# --- Revisions of one's own ------------------------------------------------------------------------------------------


def test_revising_opens_the_new_version(browser, project, trainer, piece):
    response = browser(trainer).post(reverse("revise", args=[piece.pk]))

    slot = Assignment.objects.get(trainer=trainer, state="held")
    assert slot.subject == piece
    assert response.headers["Location"] == page_of(slot)


def test_revising_while_something_is_held_waits_at_home(browser, html, project, trainer, piece, chat):
    response = browser(trainer).post(reverse("revise", args=[piece.pk]), follow=True)

    assert "The new version waits for you here." in html(response)
    assert Assignment.objects.get(trainer=trainer, state="held") == chat


def test_what_cannot_be_revised(browser, html, project, trainer, piece):
    demonstrations.revise(conversation=piece, user=trainer)

    response = browser(trainer).post(reverse("revise", args=[piece.pk]))

    assert response.status_code == 409
    assert "under way already" in html(response)


def test_others_pieces_are_not_revised(browser, project, trainer, stranger, piece):
    for user in (factory.trainer(project), stranger):
        assert browser(user).post(reverse("revise", args=[piece.pk])).status_code == 404
    assert browser(factory.person(project, role="reviewer")).post(reverse("revise", args=[piece.pk])).status_code == 403
    assert browser(trainer).get(reverse("revise", args=[piece.pk])).status_code == 405
    assert not Assignment.objects.filter(personal=True).exists()
