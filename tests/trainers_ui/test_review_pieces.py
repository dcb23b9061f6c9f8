"""Finished pieces of writing of a project, and one of them with its versions and reviews."""

import pytest
from django.urls import reverse

from annotate import demonstrations
from tests import factory
from trainers_ui import lists

LIST = "/projects/bread/written/"


@pytest.fixture
def piece(project, trainer):
    return factory.finished_piece(project, trainer)


def url_of(piece) -> str:
    return reverse("review_piece", args=[piece.pk])


def listed(response) -> list[int]:
    return [row.pk for row in response.context["rows"]]


def test_the_list(browser, html, reviewer, trainer, piece):
    page = html(browser(reviewer).get(LIST))

    assert "How do I boil an egg?" in page
    assert "To be reviewed" in page
    assert "2 turns" in page
    assert str(trainer) in page
    assert url_of(piece) in page


def test_chats_and_open_pieces_are_elsewhere(browser, html, project, reviewer, piece):
    factory.held_piece(project)
    chat = factory.finished_chat(project)

    assert listed(browser(reviewer).get(LIST)) == [piece.pk]
    assert listed(browser(reviewer).get("/projects/bread/chats/")) == [chat.pk]


def test_by_review_state(browser, html, project, reviewer, piece):
    approved, returned = (factory.finished_piece(project) for _ in range(2))
    factory.review_of(approved)
    factory.review_of(returned, verdict="returned")
    client = browser(reviewer)

    assert listed(client.get(LIST, {"state": "wanted"})) == [piece.pk]
    assert listed(client.get(LIST, {"state": "approved"})) == [approved.pk]
    assert listed(client.get(LIST, {"state": "returned"})) == [returned.pk]
    assert "No piece of writing is in this state." in html(client.get(LIST, {"state": "none"}))
    assert client.get(LIST, {"state": "lost"}).status_code == 422


def test_empty(browser, html, reviewer):
    assert "No piece of writing is finished yet." in html(browser(reviewer).get(LIST))


def test_pages_hold_everything_once(browser, monkeypatch, project, reviewer):
    monkeypatch.setattr(lists, "PAGE", 3)
    monkeypatch.setattr(lists.one_page, "__defaults__", (3,))
    made = [factory.finished_piece(project).pk for _ in range(7)]
    client, seen, url = browser(reviewer), [], LIST

    while url:
        response = client.get(url)
        seen += listed(response)
        url = f"{LIST}?state=&before={response.context['older']}" if response.context["older"] else None

    assert seen == made[::-1]


def test_one_with_its_reviews_and_versions(browser, html, project, reviewer, trainer, piece):
    review = factory.review_of(piece, reviewer, note="Good.", comments={1: "Nice <b>."}, edits={2: "Nine minutes."})

    page = html(browser(reviewer).get(url_of(piece)))

    assert "Approved with edits" in page
    assert f"by {reviewer}" in page
    assert "Good." in page
    assert "Nice &lt;b&gt;." in page
    assert "What the reviewer changed" in page
    assert url_of(review.edit) in page
    edit = html(browser(reviewer).get(url_of(review.edit)))
    assert url_of(piece) in edit
    assert "A reviewer&#x27;s edit" in edit.replace("'", "&#x27;")
    assert "What changed since" in edit


def test_branches_are_linked_both_ways(browser, html, project, reviewer, trainer):
    slot = factory.held_piece(project, trainer)
    factory.save(slot, factory.written_turn("user", "Why is bread flat?"))
    copy = demonstrations.branch(assignment=slot, user=trainer, upto=0)
    piece = factory.finished_piece(project, slot=slot)
    assert f'href="{url_of(copy.conversation)}"' not in html(browser(reviewer).get(url_of(piece)))
    branch = factory.finished_piece(project, slot=factory.held(copy, trainer))

    assert "Branch:" in html(browser(reviewer).get(url_of(piece)))
    assert url_of(piece) in html(browser(reviewer).get(url_of(branch)))


def test_the_author_reads_it_too_without_names(browser, html, project, reviewer, trainer, piece):
    review = factory.review_of(piece, reviewer, comments={1: "Nice."}, edits={2: "Nine minutes."})

    for one in (piece, review.edit):
        page = html(browser(trainer).get(url_of(one)))
        assert "Nine minutes." in page
        assert reviewer.email not in page
    assert browser(trainer).get(LIST).status_code == 403


def test_an_author_does_not_read_what_somebody_else_made_of_it(browser, html, project, trainer, piece):
    factory.review_of(piece, verdict="returned")
    other = factory.trainer(project)
    mended = factory.finished_piece(project, slot=factory.held(piece.slots.get(kind="write"), other))

    assert url_of(mended) not in html(browser(trainer).get(url_of(piece)))
    assert browser(trainer).get(url_of(mended)).status_code == 404


def test_an_open_piece_is_its_trainers_own(browser, html, project, reviewer, trainer):
    slot = factory.held_piece(project, trainer)
    factory.save(slot, factory.written_turn("user", "Why is bread flat?"))

    page = html(browser(reviewer).get(url_of(slot.conversation)))

    assert "Nothing of it is in the record" in page
    assert "Why is bread flat?" not in page
    assert browser(trainer).get(url_of(slot.conversation)).status_code == 404


def test_a_chat_is_no_piece(browser, project, reviewer, piece):
    chat = factory.finished_chat(project)

    assert browser(reviewer).get(url_of(chat)).status_code == 404
    moved = browser(reviewer).get(reverse("review_conversation", args=[piece.pk]))
    assert moved.headers["Location"] == url_of(piece)


def test_a_stranger(browser, project, stranger, piece):
    outside = factory.person(factory.project(), role="reviewer")

    for user in (stranger, outside):
        assert browser(user).get(LIST).status_code == 404
        assert browser(user).get(url_of(piece)).status_code == 404
    assert browser(factory.trainer(project)).get(url_of(piece)).status_code == 404


def test_signed_out(browser, piece):
    assert browser().get(LIST).headers["Location"] == f"/accounts/login/?next={LIST}"
    assert browser().get(url_of(piece)).headers["Location"] == f"/accounts/login/?next={url_of(piece)}"


def test_queries_do_not_grow(browser, count_queries, project, reviewer, trainer, piece):
    client = browser(reviewer)
    factory.review_of(piece, edits={2: "Nine."}, comments={1: "Nice."})
    few_listed, few_read = count_queries(client, LIST), count_queries(client, url_of(piece))
    for _ in range(4):
        factory.review_of(factory.finished_piece(project), edits={2: "Nine."})
    turns = [factory.written_turn(role, text) for role, text in factory.TURNS * 5]
    long = factory.finished_piece(project, trainer, *turns)
    factory.review_of(long, edits={2: "Nine."}, comments=dict.fromkeys(range(1, 11), "Nice."))

    assert count_queries(client, LIST) == few_listed
    assert count_queries(client, url_of(long)) == few_read
