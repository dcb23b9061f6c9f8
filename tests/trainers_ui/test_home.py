"""What there is to do, and what a person did."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from annotate import assignments, conversations
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


def test_queries_do_not_grow(browser, count_queries, project, trainer):
    client = browser(trainer)
    factory.finished_chat(project, trainer)
    few = count_queries(client, URL)
    for _ in range(5):
        factory.finished_chat(project, trainer)
        factory.open_comparison(project)
        factory.chat_slot(project)

    assert count_queries(client, URL) == few
    assert Assignment.objects.count() > 15
