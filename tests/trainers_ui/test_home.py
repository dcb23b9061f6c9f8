"""What there is to do, and what a person did."""

from datetime import timedelta

import pytest
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone

from annotate import assignments, conversations, demonstrations, people
from annotate.models import Assignment
from tests import factory

URL = "/"


def test_it_offers_what_there_is(browser, html, project, trainer):
    factory.chat_slot(project)
    factory.open_comparison(project)

    page = html(browser(trainer).get(URL))

    assert "Bread" in page
    assert page.count("1 open") == 2
    assert f'action="{reverse("claim", args=["bread"])}"' in page


def test_counts_stop_at_99(browser, html, project, trainer):
    assignments.open_slots(project=project, kind="chat", count=150)

    assert "99+ open" in html(browser(trainer).get(URL))


def test_a_held_task_comes_first(browser, html, project, trainer, chat):
    page = html(browser(trainer).get(URL))

    assert page.index("A chat is waiting for you") < page.index("Chat with the model")
    assert reverse("work", args=[chat.pk]) in page
    assert "First finish or skip the chat that you hold." in page
    assert f'action="{reverse("claim", args=["bread"])}"' not in page


def test_what_was_fetched_ahead_is_not_shown_as_begun(browser, html, project, trainer, ranking):
    factory.open_comparison(project)
    ahead = assignments.claim(user=trainer, project=project, ahead=True)

    page = html(browser(trainer).get(URL))

    assert reverse("work", args=[ranking.pk]) in page
    assert reverse("work", args=[ahead.pk]) not in page


def test_reviews_are_offered_to_reviewers(browser, html, project, reviewer, trainer):
    factory.finished_piece(project)

    page = html(browser(reviewer).get(URL))

    assert "Review writing" in page
    assert "1 open" in page
    assert "Rank answers" not in page
    assert "Review writing" not in html(browser(trainer).get(URL))


def test_one_with_both_roles_sees_both(browser, html, project, reviewer):
    people.give_role(user=reviewer, role="trainer")
    factory.finished_piece(project, reviewer)

    page = html(browser(reviewer).get(URL))

    for title in ("Rank answers", "Chat with the model", "Write both sides", "Review writing"):
        assert title in page
    # Nobody reviews their own.
    assert "Nothing to review at the moment." in page


def test_a_held_review_comes_before_all_else(browser, html, project, reviewer):
    piece = factory.finished_piece(project)
    factory.held(piece.slots.get(), reviewer)

    page = html(browser(reviewer).get(URL))

    assert "A review is waiting for you" in page
    assert "First continue the review that you hold." in page


def test_what_came_back_waits_with_what_was_said(browser, html, project, trainer):
    piece = factory.finished_piece(project, trainer)
    factory.review_of(piece, verdict="returned", note="Say <b>how</b> old.", comments={1: "Shorter.", 2: "Longer."})
    slot = piece.slots.get(kind="write")

    page = html(browser(trainer).get(URL))

    assert "Came back to you" in page
    assert "How do I boil an egg?" in page
    assert "Say &lt;b&gt;how&lt;/b&gt; old." in page
    assert "2 comments at its turns" in page
    assert f'name="reserved" value="{slot.pk}"' in page
    assert "Mend it" in page


def test_revisions_and_branches_wait(browser, html, project, trainer):
    demonstrations.revise(conversation=factory.finished_piece(project, trainer), user=trainer)
    piece = factory.held_piece(project, trainer)
    factory.save(piece, factory.written_turn("user", "Why is bread flat?"))
    demonstrations.branch(assignment=piece, user=trainer, upto=0)

    page = html(browser(trainer).get(URL))

    assert "A revision of yours" in page
    assert "A branch of yours" in page
    assert "Why is bread flat?" in page
    assert page.count("First finish or skip the piece of writing that you hold.") >= 2
    assert 'name="reserved"' not in page


def test_what_waits_for_others_is_not_shown(browser, html, project, trainer, stranger):
    other = factory.trainer(project)
    demonstrations.revise(conversation=factory.finished_piece(project, other), user=other)

    for user in (trainer, stranger):
        assert "Waits for you" not in html(browser(user).get(URL))


def test_what_cannot_be_taken_is_not_shown(browser, html, project, trainer):
    demonstrations.revise(conversation=factory.finished_piece(project, trainer), user=trainer)
    project.kinds = ["rank"]
    project.save()

    assert "Waits for you" not in html(browser(trainer).get(URL))


def run_out(*slots):
    Assignment.objects.filter(pk__in=[slot.pk for slot in slots]).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )
    assignments.expire()


def test_what_ran_out_is_found_again(browser, html, project, trainer):
    slot = factory.held_piece(project, trainer)
    factory.save(slot, factory.written_turn("user", "Why is bread flat?"))
    run_out(slot)

    page = html(browser(trainer).get(URL))

    assert "The time ran out" in page
    assert page.count("Why is bread flat?") >= 2
    assert "it still counts while nobody has taken its place" in page
    assert f'href="{reverse("work", args=[slot.pk])}"' in page


@pytest.mark.parametrize("kind", ["write", "chat"])
def test_whose_place_is_taken_may_not_count(browser, html, project, trainer, kind):
    slot = factory.held_piece(project, trainer) if kind == "write" else factory.held_chat(project, trainer)
    run_out(slot)
    place = slot.replacement
    factory.held(place, factory.trainer(project))

    assert "its place is taken" in html(browser(trainer).get(URL))

    # That one ran out too: the place is free again.
    run_out(place)
    assert "it still counts while nobody has taken its place" in html(browser(trainer).get(URL))


def test_a_branch_that_ran_out_still_counts(browser, html, project, trainer):
    piece = factory.held_piece(project, trainer)
    factory.save(piece, factory.written_turn("user", "Why is bread flat?"))
    branch = demonstrations.branch(assignment=piece, user=trainer, upto=0)
    assignments.skip(assignment=piece, user=trainer, reason="other")
    run_out(factory.held(branch, trainer))

    assert "ran out just now · it still counts<" in html(browser(trainer).get(URL)).replace("</p>", "<")


def test_what_ended_is_not_said_to_have_run_out(browser, html, project, trainer):
    slot = factory.held_piece(project, trainer)
    run_out(slot)
    factory.finished_piece(project, slot=slot)

    assert "The time ran out" not in html(browser(trainer).get(URL))


def test_a_verdict_is_said(browser, html, project, reviewer):
    review = factory.review_of(factory.finished_piece(project), reviewer, verdict="returned")

    assert "Returned to its trainer." in html(browser(reviewer).get(f"{URL}?after={review.assignment_id}"))


def test_a_revision_that_has_to_wait_is_said(browser, html, project, trainer):
    slot = demonstrations.revise(conversation=factory.finished_piece(project, trainer), user=trainer)
    factory.held_chat(project, trainer)

    page = html(browser(trainer).get(f"{URL}?waits={slot.pk}"))

    assert "The new version waits for you here." in page
    assert "the chat that you hold" in page
    assert "The new version waits" not in html(browser(trainer).get(f"{URL}?waits=x"))


def test_nothing_to_do_says_what_comes_next(browser, html, trainer):
    page = html(browser(trainer).get(URL))

    assert "New answers come from finished chats" in page
    assert "An admin opens new ones." in page
    assert "What you finish is listed here." in page


def test_no_project(browser, html, db):
    assert "You are in no project yet" in html(browser(factory.trainer()).get(URL))


def test_today_and_the_latest_work(browser, html, project, trainer):
    slot = factory.held_chat(project, trainer)
    factory.turn(slot, "Why is my bread flat?")
    conversations.finish(assignment=slot, user=trainer)

    page = html(browser(trainer).get(URL))

    assert "Today: 1 chat" in page
    assert "Why is my bread flat?" in page
    assert reverse("work", args=[slot.pk]) in page


def test_others_work_is_not_shown(browser, html, project, trainer):
    factory.finished_chat(project)

    assert "Today: nothing yet" in html(browser(trainer).get(URL))


def test_the_latest_twenty(browser, html, project, trainer):
    for _ in range(22):
        factory.finished_chat(project, trainer)

    page = html(browser(trainer).get(URL))

    assert page.count('<span class="kind">') == 20
    assert "All of it" in page


def test_what_was_sent_is_said(browser, html, project, trainer, chat):
    factory.turn(chat)
    conversations.finish(assignment=chat, user=trainer)

    assert "Finished. One of the replies is drawn for ranking." in html(browser(trainer).get(f"{URL}?after={chat.pk}"))


def test_where_no_reply_is_drawn_none_is_promised(browser, html, trainer, chat):
    factory.turn(chat, finish_reason="stopped")
    conversations.finish(assignment=chat, user=trainer)

    page = html(browser(trainer).get(f"{URL}?after={chat.pk}"))

    assert "Finished. It is kept; no reply of it is ranked." in page
    assert "is drawn" not in page
    assert "late" not in page


def test_a_late_chat_is_kept_and_not_ranked(browser, html, project, trainer, chat):
    factory.turn(chat)
    Assignment.objects.filter(pk=chat.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assignments.expire()
    assignments.claim(user=factory.trainer(project), project=project)
    chat.refresh_from_db()
    conversations.finish(assignment=chat, user=trainer)

    page = html(browser(trainer).get(f"{URL}?after={chat.pk}"))

    assert "Finished. It is kept; no reply of it is ranked, as it came in late." in page
    assert "is drawn" not in page


@pytest.mark.parametrize("after", ["0", "x", "9" * 40, "١"])
def test_what_somebody_else_sent_is_not_said(browser, html, trainer, after):
    page = browser(trainer).get(URL, {"after": after})

    assert page.status_code == 200
    assert "Submitted" not in html(page)


def test_a_stranger_learns_nothing_of_others_work(browser, html, project, trainer, stranger, chat):
    factory.turn(chat)
    conversations.finish(assignment=chat, user=trainer)

    page = html(browser(stranger).get(f"{URL}?after={chat.pk}"))

    assert "Finished" not in page
    assert "Bread" not in page


def test_reviewers_find_what_they_read(browser, html, reviewer):
    page = html(browser(reviewer).get(URL))

    assert reverse("review_conversations", args=["bread"]) in page
    assert "Rank answers" not in page
    assert "Admin site" not in page


def test_admins_find_the_admin_site(browser, html, project):
    assert reverse("admin:index") in html(browser(factory.person(project, role="admin")).get(URL))


def test_signed_out(browser, db):
    assert browser().get(URL).headers["Location"] == "/accounts/login/?next=/"


def test_it_does_not_write(browser, trainer):
    assert browser(trainer).post(URL).status_code == 405


def several_of_mine(project, trainer):
    """A piece that came back, a revision, a reviewed piece, and one that ran out."""
    factory.review_of(factory.finished_piece(project, trainer), verdict="returned", comments={1: "Shorter."})
    factory.review_of(factory.finished_piece(project, trainer), edits={2: "Eight."})
    demonstrations.revise(conversation=factory.finished_piece(project, trainer), user=trainer)
    run_out(factory.held_piece(project, trainer))


def test_queries_do_not_grow(browser, count_queries, project, trainer):
    client = browser(trainer)
    factory.finished_chat(project, trainer)
    several_of_mine(project, trainer)
    few = count_queries(client, URL)
    for _ in range(5):
        several_of_mine(project, trainer)
        factory.finished_chat(project, trainer)
        factory.open_comparison(project)
        factory.chat_slot(project)

    assert count_queries(client, URL) == few
    assert Assignment.objects.count() > 15


def test_browsers_find_the_icon_where_they_look_for_one(browser):
    response = browser().get("/favicon.ico")
    assert (response.status_code, response.headers["Location"]) == (302, static("trainers_ui/icon.svg"))
