"""The last look at a piece of writing, and its end."""

import pytest
from django.urls import reverse

from annotate import assignments
from annotate.models import Assignment, Conversation
from tests import factory
from tests.trainers_ui.conftest import JSON

ANSWER = "Eight minutes in boiling water."


@pytest.fixture
def piece(project, trainer) -> Assignment:
    """A piece with a question and an answer that was suggested and changed."""
    slot = factory.held_piece(project, trainer)
    request = factory.suggested(slot, ANSWER, before=[{"role": "user", "content": "How?"}])
    changed = factory.written_turn("assistant", "Nine minutes in boiling water.", **{"from": [request.pk, 0]})
    factory.save(slot, factory.written_turn("user", "How *do* I boil an egg?"), changed)
    return slot


@pytest.fixture
def look(browser, html, trainer, piece):
    """The page as it is now."""
    return lambda: html(browser(trainer).get(reverse("finish", args=[piece.pk])))


@pytest.fixture
def end(browser, trainer, piece):
    """Posts the form of the page."""

    def posted(version=1, headers=None, user=trainer):
        return browser(user).post(reverse("finish", args=[piece.pk]), {"version": version}, **(headers or {}))

    return posted


def test_the_whole_piece_with_its_sources(look):
    page = look()

    assert "How <em>do</em> I boil an egg?" in page
    assert '<span class="from">your words</span>' in page
    assert '<span class="from">suggestion, 13 % changed</span>' in page
    assert 'name="version" value="1"' in page
    assert ">Finish <kbd>" in page


def test_looking_changes_nothing(look, piece):
    before = list(Assignment.objects.values())

    look()

    assert list(Assignment.objects.values()) == before
    assert Conversation.objects.get(pk=piece.conversation_id).state == "open"


def test_an_unchanged_opening(browser, html, project, trainer):
    from annotate.projects import Opening, add_prompts

    add_prompts(project=project, openings=[Opening(text="Why is bread flat?")])
    slot = factory.held_piece(project, trainer)

    page = html(browser(trainer).get(reverse("finish", args=[slot.pk])))

    assert '<span class="from">opening</span>' in page


def test_what_must_be_mended_forbids_the_end(look, end, piece):
    factory.save(piece, factory.written_turn("user", "How <b>do</b> I?"))

    page = look()

    assert "The last turn is the user&#x27;s" in page
    assert ">Finish <kbd>" not in page
    assert "Back to writing" in page
    assert end(version=2).status_code == 422
    assert Conversation.objects.get(pk=piece.conversation_id).state == "open"


def test_what_is_only_said_does_not(look, end, piece):
    factory.save(
        piece,
        factory.written_turn("user", "Write to ada.lovelace@gmail.com for me"),
        factory.written_turn("assistant", ANSWER),
    )

    page = look()

    assert "Worth a second look" in page
    assert "ada.lovelace@gmail.com" in page
    assert ">Finish <kbd>" in page
    assert end(version=2).status_code == 302


def test_an_empty_page(browser, html, project, trainer):
    slot = factory.held_piece(project, trainer)

    page = html(browser(trainer).get(reverse("finish", args=[slot.pk])))

    assert "Nothing is written yet." in page


def test_finishing(end, piece):
    response = end()

    assert response.headers["Location"] == f"/?after={piece.pk}"
    conversation = Conversation.objects.get(pk=piece.conversation_id)
    assert conversation.state == "finished"
    assert [message.source for message in conversation.messages.all()] == ["written", "written", "edited"]


def test_what_was_finished_is_said(browser, html, trainer, end):
    location = end().headers["Location"]

    assert "Finished. A reviewer reads it next." in html(browser(trainer).get(location))


def test_another_tab_has_saved_since(end, html, piece):
    factory.save(piece, factory.written_turn("user", "Newer"), factory.written_turn("assistant", "Words"))

    response = end(version=1)

    assert response.status_code == 409
    page = html(response)
    assert "Another tab has saved since you looked." in page
    assert "Newer" in page
    assert 'name="version" value="2"' in page
    assert Conversation.objects.get(pk=piece.conversation_id).state == "open"


def test_another_tab_has_saved_since_for_a_script(end, piece):
    factory.save(piece, factory.written_turn("user", "Newer"))

    assert end(version=1, headers=JSON).json()["code"] == "draft_conflict"


def test_finishing_twice(end):
    end()

    assert end().status_code == 409


def test_looking_back_at_what_is_finished_shows_it(browser, trainer, piece, end):
    end()

    response = browser(trainer).get(reverse("finish", args=[piece.pk]))

    assert response.headers["Location"] == reverse("work", args=[piece.pk])


def test_a_broken_version(end):
    for version in ("", "x", "-1", "9" * 12):
        assert end(version=version).status_code == 422


def test_one_that_ran_out(end, piece):
    Assignment.objects.filter(pk=piece.pk).update(lease_until=piece.held_at)
    assignments.expire()

    assert end().status_code == 302
    assert Assignment.objects.get(pk=piece.pk).state == "submitted"


def test_hostile_texts_do_nothing(look, piece):
    factory.save(
        piece,
        factory.written_turn("user", "<script>alert(1)</script>"),
        factory.written_turn("assistant", "[x](javascript:alert(2))"),
    )

    page = look()

    assert "<script>alert" not in page
    assert 'href="javascript' not in page


def test_a_stranger(end, browser, stranger, piece):
    assert end(user=stranger).status_code == 404
    assert browser(stranger).get(reverse("finish", args=[piece.pk])).status_code == 404
