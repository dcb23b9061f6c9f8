"""What goes wrong on the way: the network away, a message that is too long, a task that one cannot do."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.steps import PATIENT, amid_reply, finish, grown, offer, replies, say, wait_for_reply

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_cut_stream_is_resumed_and_shows_the_whole_text_once(open_page, own_project):
    _, link = own_project(chats=1)
    page = open_page(link)
    offer(page, "Chat").click()

    def cut() -> bool:
        page.context.set_offline(True)
        # Without a network the page cannot learn any more that the reply has ended.
        amid = page.locator("article.writing").count() == 1
        page.wait_for_timeout(1500)
        page.context.set_offline(False)
        return amid

    say(page, "Tell me a long story about a lighthouse and the sea.")
    amid_reply(page, cut)
    wait_for_reply(page, 1)
    shown = replies(page).first.locator(".message").inner_text()
    page.reload()
    assert shown == replies(page).first.locator(".message").inner_text() != ""
    finish(page)


def test_a_second_tab_sees_the_same_reply(open_page, own_project):
    _, link = own_project(chats=1)
    page = open_page(link)
    offer(page, "Chat").click()
    say(page, "Tell me a long story about a fox and a bear.")
    other = page.context.new_page()

    def opened_beside() -> bool:
        other.goto(page.url)
        return grown(other)

    amid_reply(page, opened_beside)
    wait_for_reply(page, 1)
    wait_for_reply(other, 1)
    texts = [tab.locator("article.assistant .message").first.inner_text() for tab in (page, other)]
    assert texts[0] == texts[1]
    other.close()

    # More words than the model can read: they come back to the box.
    long = "word " * 9_900
    page.locator("#text").fill(long)
    page.keyboard.press("Enter")
    expect(page.get_by_text("longer than the model can read")).to_be_visible(timeout=PATIENT)
    expect(page.locator("#text")).to_have_value(re.compile("^word word"))
    assert len(page.locator("#text").input_value()) >= len(long.strip())
    expect(page.locator("article.turn.user")).to_have_count(1)
    page.locator("#text").fill("And how does it end?")
    page.keyboard.press("Enter")
    wait_for_reply(page, 2)
    finish(page)


def test_what_is_skipped_does_not_come_back(open_page, own_project):
    _, link = own_project(chatted=["Tell me a long story about a lighthouse.", "Tell me a long story about a fox."])
    page = open_page(link)
    offer(page, "Rank").click()
    expect(page.locator(".answer")).to_have_count(4)
    page.wait_for_load_state()
    first = page.url
    page.keyboard.press("Alt+s")
    dialog = page.locator("dialog#skip")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Something is broken").check()
    dialog.get_by_role("button", name="Skip").click()
    # The next one, which was fetched ahead, comes by itself.
    page.wait_for_url(lambda now: now != first)
    expect(page.get_by_text("Skipped. It does not come back to you.").first).to_be_visible()
    page.keyboard.press("Alt+s")
    dialog.get_by_label("Another reason").check()
    dialog.get_by_role("button", name="Skip").click()
    expect(page.get_by_text("Nothing to rank at the moment")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Nothing to rank at the moment")).to_be_visible()


def test_a_reviewer_reads_chats_and_rankings(open_page, own_project):
    openings = ["Tell me a long story about a lighthouse.", "Tell me a long story about a fox."]
    _, link = own_project("reviewer", chatted=openings)
    page = open_page(link)
    page.get_by_role("link", name="Finished chats").click()
    page.locator("main a", has_text="fox").first.click()
    expect(page.get_by_text("Tell me a long story about a fox").first).to_be_visible()
    expect(page.get_by_text("SmolLM2-135M-Instruct").first).to_be_visible()
    page.get_by_role("link", name="Home").click()
    page.get_by_role("link", name="Rankings").click()
    page.get_by_role("link", name="Being ranked").click()
    page.locator("main a", has_text="lighthouse").first.click()
    expect(page.get_by_text("SmolLM2-135M-Instruct").first).to_be_visible()
