"""What people do on the pages, in steps that several tests share."""

import re

from playwright.sync_api import Page, expect

from tests import site

PATIENT = 90_000


def say(page: Page, text: str) -> None:
    # Enter sends once this page, and no earlier one, has its scripts.
    page.locator("#text").wait_for()
    page.wait_for_load_state()
    page.locator("#text").fill(text)
    page.keyboard.press("Enter")


def replies(page: Page):
    return page.locator("article.turn.assistant:not(.writing)")


def wait_for_reply(page: Page, count: int) -> None:
    expect(replies(page)).to_have_count(count, timeout=PATIENT)
    expect(page.locator("article.writing")).to_have_count(0)


def grows(page: Page) -> None:
    """The reply that is being written gets longer while one looks. One that is over already is asked for again."""
    seen: set[int] = set()
    asked_again = 0

    def longer() -> bool:
        nonlocal asked_again
        # The content policy forbids a predicate that the page evaluates by itself.
        seen.update(len(text) for text in page.locator("[data-stream]").all_inner_texts() if text)
        again = page.locator("form.again button")
        if len(seen) <= 2 and again.count() and again.is_enabled():
            # A small model at times ends its story with the first sentence.
            asked_again += 1
            assert asked_again < 6
            seen.clear()
            again.click()
        return len(seen) > 2

    site.wait_until(longer, seconds=PATIENT / 1000)


def finish(page: Page) -> None:
    page.locator("form [data-finish]").first.click()
    page.locator("dialog#finish [data-finish]").click()
    expect(page.get_by_text("Finished. One of the replies is drawn for ranking.")).to_be_visible()


def wait_for_rankings(page: Page, count: int) -> None:
    """Until so many rankings are offered on the start page."""
    button = page.get_by_role("button", name="Rank")
    open_now = re.compile(rf"\b([{count}-9]|\d\d+\+?) open")

    def offered() -> bool:
        page.reload()
        return bool(button.count()) and bool(open_now.search(button.locator("xpath=..").inner_text()))

    site.wait_until(offered, seconds=120)
