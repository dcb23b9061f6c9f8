"""What people do on the pages, in steps that several tests share."""

from playwright.sync_api import Page, expect

from tests import site

PATIENT = 90_000
STORIES = 8
"""How often a story is asked for again: a small model at times ends it before one can do something amid it."""


def offer(page: Page, name: str):
    """The button of the start page that hands out the next task of a kind, `Chat` or `Rank`."""
    kind = page.locator(f"input[name=kind][value={name.lower()}]")
    return page.locator("form").filter(has=kind).get_by_role("button", name=name)


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


def ended(page: Page):
    """The button that is there once no reply is being written any more."""
    return page.locator("form.again button:enabled")


def grown(page: Page) -> bool:
    """Whether the reply that is being written got longer while one looked; not where it was over before."""
    seen: set[int] = set()

    def looked() -> bool:
        # The content policy forbids a predicate that the page evaluates by itself.
        seen.update(len(text) for text in page.locator("[data-stream]").all_inner_texts() if text)
        return len(seen) > 2 or ended(page).count() > 0

    site.wait_until(looked, seconds=PATIENT / 1000)
    return ended(page).count() == 0


def amid_reply(page: Page, act=lambda: True) -> None:
    """See the reply grow and do something meanwhile; where it was over before `act()` had its effect, ask again.

    The reply has ended afterwards.
    """
    for _ in range(STORIES):
        in_time = grown(page) and act()
        expect(ended(page)).to_be_visible(timeout=PATIENT)
        if in_time:
            return
        ended(page).click()
    raise AssertionError(f"each of {STORIES} replies was over too soon")


def wait_until_saved(page: Page) -> None:
    """Until the server has all that was typed: the browser forgets its own copy then."""
    expect(page.locator("[data-saved]")).to_have_text("Saved")
    site.wait_until(lambda: page.evaluate("() => localStorage.length") == 0)


def finish(page: Page) -> None:
    page.locator("form [data-finish]").first.click()
    page.locator("dialog#finish [data-finish]").click()
    expect(page.get_by_text("Finished. One of the replies is drawn for ranking.")).to_be_visible()


def wait_for_ranking(page: Page) -> None:
    """Until a ranking is offered on the start page."""

    def offered() -> bool:
        # Not as fast as it goes: the model needs the cores.
        page.wait_for_timeout(500)
        page.reload()
        return offer(page, "Rank").count() > 0

    site.wait_until(offered, seconds=PATIENT / 1000)
