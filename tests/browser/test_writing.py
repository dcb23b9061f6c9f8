"""Writing both sides as people do it: suggestions, a lost network, a review that sends it back, the export."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests import site
from tests.browser.steps import PATIENT, offer

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]

ASKED = 8
"""How often suggestions are asked for again: a small model at times has nothing to say."""


def box(page: Page):
    return page.locator("#text")


def write(page: Page, text: str) -> None:
    box(page).press_sequentially(text)


def turns(page: Page):
    """The turns that are closed."""
    return page.locator("write-task article.turn")


def wait_until_saved(page: Page) -> None:
    """Until the server has all that was typed: the browser forgets its own copy then."""
    expect(page.locator("[data-saved]")).to_contain_text("Saved")
    site.wait_until(lambda: page.evaluate("() => localStorage.length") == 0)


def suggested(page: Page) -> int:
    """Ask for suggestions and wait until all are there; the number of the first that can be taken."""
    for _ in range(ASKED):
        page.keyboard.press("Alt+a")
        expect(page.locator(".offer.live")).not_to_have_count(0)
        expect(page.locator(".offer.live")).to_have_count(0, timeout=PATIENT)
        for number in range(1, page.locator(".offer").count() + 1):
            if page.locator(".offer").nth(number - 1).locator("[data-act=take]").is_visible():
                return number
    raise AssertionError(f"the model had nothing to say {ASKED} times")


def finish(page: Page) -> None:
    page.keyboard.press("Alt+f")
    page.wait_for_url(re.compile("/finish/$"))
    page.wait_for_load_state()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_text("Finished").first).to_be_visible()


def test_a_piece_is_written_returned_mended_approved_and_exported(
    open_page, own_project, running, complaints, tmp_path
):
    slug, links = own_project(pieces=1, reviewer=True)
    trainer, reviewer = links.split()
    page = open_page(trainer)
    offer(page, "Write").click()
    box(page).wait_for()
    page.wait_for_load_state()

    # A user's turn by hand, the answer taken whole.
    write(page, "How do I boil an egg?")
    page.keyboard.press("Control+Enter")
    expect(turns(page)).to_have_count(1)
    expect(page.get_by_text("The assistant's turn")).to_be_visible()
    number = suggested(page)
    page.keyboard.press(f"Alt+{number}")
    expect(turns(page)).to_have_count(2)
    expect(turns(page).nth(1)).to_contain_text("suggestion")

    # Suggestions for the user's side are ignored; meanwhile the network goes, and comes back.
    suggested(page)
    write(page, "And one ")
    page.context.set_offline(True)
    write(page, "that is soft inside?")
    expect(page.locator("[data-saved]")).to_contain_text("No connection")
    page.context.set_offline(False)
    wait_until_saved(page)
    page.reload()
    expect(box(page)).to_have_value("And one that is soft inside?")
    expect(turns(page)).to_have_count(2)
    page.wait_for_load_state()
    box(page).focus()
    page.keyboard.press("Control+Enter")
    expect(turns(page)).to_have_count(3)

    # The last one is taken into the box and changed.
    number = suggested(page)
    page.keyboard.press(f"Alt+Shift+{number}")
    expect(box(page)).not_to_be_empty()
    taken = box(page).input_value()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Enjoy it.")
    page.keyboard.press("Control+z")
    expect(box(page)).not_to_have_value(f"{taken} Enjoy it.")
    page.keyboard.press("Control+y")
    expect(box(page)).to_have_value(f"{taken} Enjoy it.")
    wait_until_saved(page)
    finish(page)

    # It comes back with a comment at its last turn.
    other = open_page(reviewer)
    offer(other, "Review").click()
    last = other.locator("#turn-4")
    last.wait_for()
    other.wait_for_load_state()
    expect(other.locator("#turn-2")).to_contain_text("whole")
    last.focus()
    other.keyboard.press("c")
    last.locator("textarea[name=comment-4]").fill("Say how long it takes.")
    other.keyboard.press("Alt+r")
    expect(other.get_by_text("Nothing to review at the moment")).to_be_visible()

    page.goto(running.url)
    expect(page.get_by_text("Came back to you")).to_be_visible()
    page.get_by_role("button", name="Mend it").click()
    box(page).wait_for()
    page.wait_for_load_state()
    expect(page.get_by_text("Say how long it takes.")).to_be_visible()
    box(page).focus()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Five minutes.")
    wait_until_saved(page)
    finish(page)

    other.goto(running.url)
    offer(other, "Review").click()
    other.locator("#turn-4").wait_for()
    other.wait_for_load_state()
    expect(other.get_by_text("Say how long it takes.").first).to_be_visible()
    other.keyboard.press("Alt+Enter")
    expect(other.get_by_text("Nothing to review at the moment")).to_be_visible()
    assert [said for said in complaints if "ERR_INTERNET_DISCONNECTED" not in said] == []

    check_export(running, slug, tmp_path / "messages", taken)


def test_a_save_whose_answer_was_lost_is_no_other_tabs(open_page, own_project):
    _, link = own_project(pieces=1)
    page = open_page(link)
    offer(page, "Write").click()
    box(page).wait_for()
    page.wait_for_load_state()
    lost = []

    def lose_the_answer(route) -> None:
        route.fetch()
        lost.append(True)
        route.abort()

    page.route("**/draft/", lose_the_answer, times=1)
    write(page, "How do I")
    site.wait_until(lambda: page.wait_for_timeout(100) or lost)
    expect(page.locator("[data-saved]")).to_contain_text("No connection")
    write(page, " boil an egg?")
    wait_until_saved(page)
    expect(page.locator("[data-notices]")).to_be_empty()

    # Another tab is told of, and takes over what is saved here; where both have typed, somebody has to choose.
    other = page.context.new_page()
    other.goto(page.url)
    box(other).wait_for()
    other.wait_for_load_state()
    expect(page.get_by_text("Also open in another tab")).to_be_visible()
    write(page, " Or two?")
    wait_until_saved(page)
    expect(box(other)).to_have_value("How do I boil an egg? Or two?")
    other.context.set_offline(True)
    write(page, " Here.")
    write(other, " There.")
    other.context.set_offline(False)
    site.wait_until(lambda: page.wait_for_timeout(100) or asked(page) or asked(other))
    one = page if asked(page) else other
    one.get_by_role("button", name="Keep mine").click()
    wait_until_saved(one)
    assert box(one).input_value().endswith("Here." if one is page else "There.")
    assert not asked(one)


def asked(page: Page) -> bool:
    """Whether the page asks which of two drafts to keep."""
    return page.get_by_role("button", name="Keep mine").count() > 0


def check_export(running, slug: str, out, taken: str) -> None:
    """The export has where every turn came from."""
    running.manage("export", "demonstrations", "--project", slug, "--format", "messages", "--out", str(out))
    running.manage("check_export", str(out))
    (line,) = [json.loads(row) for file in out.glob("*.jsonl") for row in file.open()]
    assert [message["role"] for message in line["messages"]] == ["system", *("user", "assistant") * 2]
    assert [turn["source"] for turn in line["turns"]] == ["written", "written", "taken", "written", "edited"]
    assert line["review_state"] == "approved"
    _, first, whole, ignored, edited = line["turns"]
    texts = [message["content"] for message in line["messages"]]
    assert texts[1] == "How do I boil an egg?"
    assert (first["typed"], first["taken"], first["pasted"], first["suggestion"]) == (len(texts[1]), 0, 0, None)
    assert (whole["suggestion"].strip(), whole["edit_distance"], whole["typed"]) == (texts[2], 0, 0)
    assert whole["taken"] == len(texts[2])
    assert whole["policy"] == edited["policy"] == "SmolLM2-135M-Instruct"
    assert texts[3] == "And one that is soft inside?"
    assert ignored["passed"]
    assert (ignored["typed"], ignored["suggestion"]) == (len(texts[3]), None)
    assert texts[4] == f"{taken} Enjoy it. Five minutes."
    assert edited["suggestion"].strip() == taken.strip()
    assert 0 < edited["edit_distance"] < 1
    assert edited["typed"] >= len(" Enjoy it. Five minutes.")
    assert all(turn["active_seconds"] >= 0 for turn in line["turns"])


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def a_desk(open_page, own_project, running, *, options=None, **fields) -> Page:
    """The desk of a new piece, in a project with these settings."""
    slug, link = own_project(pieces=1)
    if fields:
        change = f"from annotate.models import Project; Project.objects.filter(slug={slug!r}).update(**{fields!r})"
        running.manage("shell", "--no-imports", "--command", change)
    page = open_page(link, **(options or {}))
    offer(page, "Write").click()
    page.locator("write-task[data-ready]").wait_for()
    return page


def suggest_nothing_yet(page: Page, **more) -> None:
    """Suggestions can be asked for, and do not come before they are stopped; `more` says that they are there."""
    asked = {"request": 1, "n": 2, "state": "waiting", "role": "user", "position": 1, "reason": "", "texts": []} | more

    def stop(route) -> None:
        asked["state"] = "cancelled"
        route.fulfill(status=204)

    page.route("**/suggest/", lambda route: route.fulfill(json={"request": 1, "n": 2}))
    page.route("**/suggestions/", lambda route: route.fulfill(json=asked | {"away": None}))
    page.route("**/stream?*", lambda route: route.abort())
    page.route("**/stop/", stop)


def test_the_focus_stays_in_the_box_after_a_button_that_goes(open_page, own_project, running):
    page = a_desk(open_page, own_project, running)
    write(page, "How do I boil an egg?")
    page.keyboard.press("Control+Enter")

    branch = turns(page).get_by_role("button", name="Branch from here")
    branch.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("A copy up to turn 1 waits for you")).to_be_visible()
    expect(branch).to_be_focused()

    suggest_nothing_yet(page)
    page.keyboard.press("Alt+a")
    stop = page.get_by_role("button", name="Stop").first
    stop.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Stopped before the first word.")).to_be_visible()
    expect(box(page)).to_be_focused()

    # Where the server has not answered yet too; what it begins then is not waited for any more.
    asked = []
    page.route("**/suggest/", lambda route: asked.append(route))
    page.keyboard.press("Alt+a")
    stop.click()
    expect(page.get_by_text("Stopped before the first word.")).to_be_visible()
    expect(stop).to_be_hidden()
    with page.expect_request("**/stop/"):
        asked.pop().fulfill(json={"request": 2, "n": 2})
    expect(box(page)).to_be_focused()


def test_the_choice_between_two_drafts_is_in_sight_and_leads_back_to_the_box(open_page, own_project, running):
    page = a_desk(open_page, own_project, running)
    for _ in range(3):
        page.keyboard.insert_text("A long turn.\n\n" * 30)
        page.keyboard.press("Control+Enter")
    wait_until_saved(page)
    newer = {"turns": [{"role": "user", "text": "Of another tab."}], "at": 0}
    conflict = {"error": "Another tab has saved.", "code": "draft_conflict", "current": newer, "version": 99}
    page.route("**/draft/", lambda route: route.fulfill(status=409, json=conflict))
    write(page, "Mine.")
    use = page.get_by_role("button", name="Use the newer one")
    expect(use).to_be_in_viewport()
    expect(page.locator("[data-saved]")).to_have_text("Not saved: choose which text to keep")

    page.keyboard.press("Alt+f")
    expect(page.locator("[data-toast]")).to_contain_text("Choose first")
    use.focus()
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value("Of another tab.")
    expect(box(page)).to_be_focused()


def test_on_a_phone_the_choice_is_below_the_bar_and_taking_keeps_the_focus(open_page, own_project, running):
    page = a_desk(open_page, own_project, running, options=PHONE)
    texts = [{"index": 0, "text": "How do I boil an egg?", "finish": "stop"}]
    suggest_nothing_yet(page, state="done", texts=texts)
    page.get_by_role("button", name="Suggest").first.tap()
    page.get_by_role("button", name="Take").tap()
    expect(turns(page)).to_have_count(1)
    assert page.evaluate("() => document.activeElement !== document.body")

    box(page).fill("A long turn.\n\n" * 30)
    page.get_by_role("button", name="Done with this turn").tap()
    conflict = {"error": "Another tab has saved.", "code": "draft_conflict", "current": {}, "version": 99}
    page.route("**/draft/", lambda route: route.fulfill(status=409, json=conflict))
    box(page).fill("Mine.")
    expect(page.get_by_role("button", name="Keep mine")).to_be_in_viewport()
    bar, notice = page.locator(".bar").bounding_box(), page.locator("[data-notices]").bounding_box()
    assert notice["y"] >= bar["y"] + bar["height"]


def test_what_is_too_long_is_kept_whole_and_said(open_page, own_project, running):
    page = a_desk(open_page, own_project, running)
    page.keyboard.insert_text("wort " * 12_000)
    expect(page.get_by_text("60,000 characters; a turn may have 50,000.")).to_be_visible()
    assert len(box(page).input_value()) == 60_000
    wait_until_saved(page)
    page.keyboard.press("Control+z")
    expect(page.get_by_text("a turn may have 50,000.")).to_be_hidden()


def test_suggestions_belong_to_one_side_and_undo_leaves_the_focus(open_page, own_project, running):
    page = a_desk(open_page, own_project, running, turn_shape="free", system_editable=True)
    suggest_nothing_yet(page)
    page.keyboard.press("Alt+a")
    expect(page.locator(".offer")).to_have_count(2)
    page.keyboard.press("Alt+s")
    expect(page.get_by_text("The assistant's turn")).to_be_visible()
    expect(page.locator(".offer")).to_have_count(0)

    page.get_by_text("System message").click()
    system = page.get_by_label("System message")
    system.focus()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Be brief.")
    page.keyboard.press("Control+z")
    expect(system).not_to_have_value(re.compile("Be brief"))
    expect(system).to_be_focused()


def test_a_tab_of_a_finished_piece_says_that_it_is_finished(open_page, own_project, running):
    page = a_desk(open_page, own_project, running)
    write(page, "How do I boil an egg?")
    wait_until_saved(page)
    refused = {"error": "This task was submitted already.", "code": "conflict"}
    page.route("**/draft/", lambda route: route.fulfill(status=409, json=refused))
    write(page, " Or two?")
    page.keyboard.press("Alt+f")
    expect(page.locator("[data-toast]")).to_have_text("This task was submitted already.")
    expect(box(page)).to_have_value("How do I boil an egg? Or two?")
