"""The pages in a real browser: first tokens of replies and suggestions, and how soon a ranking can be worked on."""

import re
import statistics
import tempfile
from pathlib import Path

from tests import site

ROUNDS = 7
ASKED = "Tell me a long story about {} foxes."

WATCH = """() => {
  const box = document.querySelector("#text");
  window.firstToken = new Promise((done) => {
    box.form.addEventListener("submit", () => { window.sentAt = performance.now(); }, { capture: true, once: true });
    new MutationObserver((_, observer) => {
      const stream = document.querySelector("[data-stream]");
      if (!stream?.textContent) return;
      observer.disconnect();
      requestAnimationFrame(() => done(performance.now() - window.sentAt));
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
}"""

WATCH_DESK = """() => {
  window.firstToken = new Promise((done) => {
    const button = document.querySelector("[data-do=ask]:not([data-hint])");
    button.addEventListener("click", () => { window.askedAt = performance.now(); }, { capture: true, once: true });
    new MutationObserver((_, observer) => {
      if (!window.askedAt || ![...document.querySelectorAll(".offer .text")].some((one) => one.textContent)) return;
      observer.disconnect();
      const asked = window.askedAt;
      window.askedAt = 0;
      requestAnimationFrame(() => done(performance.now() - asked));
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
}"""

USABLE = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const sizes = performance.getEntriesByType("resource").filter((one) => /\\.(js|css)$/.test(one.name.split("?")[0]));
  return { usable: page.domContentLoadedEventEnd, bytes: sizes.reduce((sum, one) => sum + one.encodedBodySize, 0) };
}"""

NEXT = """() => new Promise((done) => {
  const [before, begun] = [document.querySelector("rank-task").dataset.key, performance.now()];
  new MutationObserver((_, observer) => {
    const task = document.querySelector("rank-task");
    if (!task || task.dataset.key === before) return;
    observer.disconnect();
    requestAnimationFrame(() => done(performance.now() - begun));
  }).observe(document.documentElement, { childList: true, subtree: true, attributes: true });
  document.querySelector("[data-submit]").click();
})"""

ENGINE = """
from annotate.models import Completion
replies = Completion.objects.filter(request__purpose="reply").order_by("-id")
print(*replies.values_list("first_token_ms", flat=True))
"""


SUGGESTED = """
from django.db.models import Min
from annotate.models import GenerationRequest
asked = GenerationRequest.objects.filter(purpose="suggestion").order_by("id")
asked = asked.annotate(first=Min("completions__first_token_ms")).exclude(first=None)
print(*(f"{role}:{first}" for role, first in asked.values_list("role", "first")))
"""


def first_tokens(page) -> list[float]:
    """Milliseconds from the key that sends to the first text on the page, of several replies in one chat."""
    times = []
    page.get_by_role("button", name="Chat").click()
    page.wait_for_load_state()
    for number in range(ROUNDS):
        page.locator("#text").fill(ASKED.format(number))
        page.evaluate(WATCH)
        page.keyboard.press("Enter")
        times.append(page.evaluate("() => window.firstToken"))
        # Only whole replies are ranked; the last ones are let through for what comes next.
        if number < ROUNDS - 3:
            page.keyboard.press("Escape")
        page.locator("article.turn.assistant:not(.writing)").nth(number).wait_for()
    return times


def suggested(page) -> dict[str, list[float]]:
    """Milliseconds from the click that asks to the first text of a suggestion, by the side that is suggested."""
    page.get_by_role("button", name="Write").click()
    page.wait_for_load_state()
    text, times = page.locator("#text"), {}
    for role, before in (("assistant", ASKED.format("red")), ("user", "There was a red fox who loved the sea.")):
        text.fill(before)
        page.keyboard.press("Control+Enter")
        times[role] = []
        for _ in range(ROUNDS):
            page.evaluate(WATCH_DESK)
            page.locator("[data-do=ask]:not([data-hint])").click()
            times[role].append(page.evaluate("() => window.firstToken"))
            text.focus()
            page.keyboard.press("Escape")
            page.locator(".offer.live").first.wait_for(state="detached")
    return times


def suggestions(page, running) -> None:
    """Print how much later than the engine's own a page has the first token of a suggestion."""
    printed = running.manage("invite", "desk@example.org", "--role", "trainer", "--project", "demo")
    page.goto(re.search(r"http\S+", printed).group())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state()
    times = suggested(page)
    print(f"\nFirst token of three suggestions, medians of {ROUNDS - 1}, in ms")
    own = [one.split(":") for one in running.manage("shell", "-v", "0", "-c", SUGGESTED).split()]
    for role, taken in times.items():
        ours = statistics.median(taken[1:])
        floor = statistics.median([int(first) for side, first in own if side == role][1:])
        print(f"  the {role}'s: in the browser {ours:.0f}, of the engine {floor:.0f}, difference {ours - floor:.0f}")


def next_task(page) -> float:
    """Milliseconds from a submit to the next ranking on the page, which was fetched ahead."""
    page.wait_for_timeout(2000)
    page.locator(".answer").first.focus()
    page.keyboard.type("abcd")
    return page.evaluate(NEXT)


def main() -> None:
    """Print the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="bothsides-bench-") as home,
        site.up(Path(home)) as running,
        site.chromium() as browser,
    ):
        page = browser.new_page()
        page.goto(running.link("Trainer"))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state()
        times = first_tokens(page)[1:]
        engine = [int(one) for one in running.manage("shell", "-v", "0", "-c", ENGINE).split()][: len(times)]
        ours, floor = statistics.median(times), statistics.median(engine)
        print(f"\nFirst token of a reply, medians of {len(times)}, in ms")
        print(f"  in the browser {ours:.0f}, of the engine {floor:.0f}, difference {ours - floor:.0f}")
        page.locator("form [data-finish]").first.click()
        page.locator("dialog#finish [data-finish]").click()
        page.get_by_text("Finished. One of the replies").wait_for()
        rank = page.get_by_role("button", name="Rank")
        running.manage("sample_comparisons", "--project", "demo", "--count", "2")

        def ready() -> bool:
            page.reload()
            # A small model may answer all alike, which leaves a comparison without alternatives.
            return bool(rank.count()) and bool(re.search(r"\b[23] open", page.inner_text("main")))

        site.wait_until(ready, seconds=120)
        rank.click()
        page.wait_for_load_state()
        cold, warm = page.evaluate(USABLE), []
        for _ in range(ROUNDS):
            page.reload()
            page.wait_for_load_state()
            warm.append(page.evaluate(USABLE)["usable"])
        following = next_task(page)
        print("The ranking page")
        print(f"  usable after {cold['usable']:.0f} ms cold, {statistics.median(warm):.0f} ms again")
        print(f"  the next task {following:.0f} ms after a submit")
        print(f"  {cold['bytes'] / 1000:.1f} kB of scripts and style sheets, compressed")
        suggestions(browser.new_context().new_page(), running)
