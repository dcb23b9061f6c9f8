"""All that a person did."""

import pytest
from django.utils import timezone

from annotate import assignments, demonstrations, rankings
from annotate.models import Project
from tests import factory
from trainers_ui import lists
from trainers_ui.templatetags import words

URL = "/history/"


def keys(response) -> list[int]:
    return [row.pk for row in response.context["rows"]]


@pytest.fixture
def three_a_page(monkeypatch):
    monkeypatch.setattr(lists, "PAGE", 3)
    monkeypatch.setattr(lists.one_page, "__defaults__", (3,))
    monkeypatch.setattr(lists.own_work, "__kwdefaults__", {"most": 3})


def test_it_works(browser, html, project, trainer):
    factory.finished_chat(project, trainer)

    page = html(browser(trainer).get(URL))

    assert "Hello there" in page
    assert "Older" not in page


def test_pages_hold_everything_once(browser, three_a_page, project, trainer):
    for _ in range(8):
        factory.finished_chat(project, trainer)
    client, seen, url = browser(trainer), [], URL

    while url:
        response = client.get(url)
        seen += keys(response)
        url = f"{URL}?before={response.context['older']}" if response.context["older"] else None

    assert len(seen) == len(set(seen)) == 8
    assert seen == sorted(seen, reverse=True)


def test_rankings_and_skipped_tasks(browser, html, project, trainer, ranking):
    order = [[candidate] for candidate in ranking.shown_order]
    rankings.submit(assignment=ranking, user=trainer, tiers=order)
    factory.open_comparison(project)
    skipped = assignments.claim(user=trainer, project=project, kinds=["rank"])
    assignments.skip(assignment=skipped, user=trainer, reason="unclear")

    response = browser(trainer).get(URL)

    assert keys(response) == [skipped.pk, ranking.pk]
    assert "skipped" in html(response)


def outcomes(page) -> list[str]:
    return [words.outcome(row) for row in page.context["rows"]]


def test_what_came_of_pieces(browser, project, trainer):
    def piece():
        return factory.finished_piece(project, trainer)

    factory.review_of(piece())
    factory.review_of(piece(), edits={2: "Nine minutes."})
    factory.review_of(piece(), verdict="returned")
    mended = piece()
    factory.review_of(mended, verdict="returned")
    factory.finished_piece(project, slot=factory.held(mended.slots.get(kind="write"), trainer))
    exported = factory.review_of(piece()).conversation
    exported.exported_at = timezone.now()
    exported.save()
    revised = piece()
    slot = demonstrations.revise(conversation=revised, user=trainer)
    factory.finished_piece(project, slot=factory.held(slot, trainer))

    assert outcomes(browser(trainer).get(URL)) == [
        "waits for its review",
        "revised",
        "approved, in an export",
        "waits for its review",
        "returned, mended since",
        "returned",
        "approved with edits",
        "approved",
    ]


def test_a_piece_that_is_not_drawn(browser, html, project, trainer):
    Project.objects.filter(pk=project.pk).update(review_share=0)
    project.refresh_from_db()
    factory.finished_piece(project, trainer)

    page = browser(trainer).get(URL)

    assert outcomes(page) == [""]
    assert "How do I boil an egg?" in html(page)


def test_what_was_typed_and_skipped_is_named_by_it(browser, html, project, trainer):
    slot = factory.held_piece(project, trainer)
    factory.save(slot, factory.written_turn("user", "Why is bread flat?"))
    assignments.skip(assignment=slot, user=trainer, reason="other")

    assert "Why is bread flat?" in html(browser(trainer).get(URL))


def test_reviews(browser, html, project, reviewer):
    pieces = [factory.finished_piece(project) for _ in range(3)]
    factory.review_of(pieces[0], reviewer)
    factory.review_of(pieces[1], reviewer, edits={2: "Nine minutes."})
    factory.review_of(pieces[2], reviewer, verdict="returned", comments={1: "Shorter."})

    page = browser(reviewer).get(URL)

    assert outcomes(page) == ["returned, 1 comment", "approved with edits", "approved"]
    assert "How do I boil an egg?" in html(page)
    assert "My work" in html(page)


def test_only_ones_own(browser, project, trainer):
    factory.finished_chat(project)

    assert keys(browser(trainer).get(URL)) == []


def test_empty(browser, html, trainer):
    assert "See what there is to do" in html(browser(trainer).get(URL))


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30])
def test_a_broken_address(browser, trainer, before):
    assert browser(trainer).get(URL, {"before": before}).status_code == 422


def test_a_key_of_somebody_else(browser, project, trainer, stranger):
    factory.finished_chat(project, trainer)
    theirs = trainer.assignments.get()

    assert browser(stranger).get(URL, {"before": theirs.pk}).status_code == 404


def test_a_key_that_has_not_ended(browser, trainer, chat):
    assert browser(trainer).get(URL, {"before": chat.pk}).status_code == 422


def test_signed_out(browser, db):
    assert browser().get(URL).headers["Location"] == "/accounts/login/?next=/history/"


def test_queries_do_not_grow(browser, count_queries, project, trainer):
    client = browser(trainer)
    factory.finished_chat(project, trainer)
    factory.review_of(factory.finished_piece(project, trainer), edits={2: "Eight."})
    few = count_queries(client, URL)
    for _ in range(5):
        factory.finished_chat(project, trainer)
        factory.review_of(factory.finished_piece(project, trainer), edits={2: "Eight."})

    assert count_queries(client, URL) == few
