"""The main job as people do it: chat, select, sample, rank, export; a real model, a real browser."""

import json
import re
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests import site
from tests.browser.steps import (
    PATIENT,
    amid_reply,
    ended,
    finish,
    offer,
    replies,
    say,
    wait_for_ranking,
    wait_for_reply,
    wait_until_saved,
)

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]


def test_chat_with_streaming_stop_and_again_then_rank_what_was_sampled(open_page, complaints, running):
    page = open_page(running.link("Trainer"))
    expect(page.get_by_role("heading", name="Everyday help")).to_be_visible()
    offer(page, "Chat").click()
    expect(page.locator("#text")).not_to_be_empty()
    page.get_by_role("button", name="Write my own instead").click()
    expect(page.locator("#text")).to_be_empty()

    stopped = replies(page).get_by_text("stopped", exact=True)

    def stop() -> bool:
        page.keyboard.press("Escape")
        expect(ended(page)).to_be_visible(timeout=PATIENT)
        return stopped.is_visible()

    say(page, "Tell me a long story about a lighthouse and the sea.")
    amid_reply(page, stop)
    wait_for_reply(page, 1)
    half = replies(page).first.inner_text()
    page.keyboard.press("Alt+a")
    amid_reply(page)
    wait_for_reply(page, 1)
    assert replies(page).first.inner_text() != half
    expect(stopped).to_have_count(0)

    page.locator("#text").fill("And then")
    wait_until_saved(page)
    page.reload()
    expect(page.locator("#text")).to_have_value("And then")
    for number, text in enumerate(["Make it shorter, please.", "Now as three bullet points."], start=2):
        say(page, text)
        wait_for_reply(page, number)
    finish(page)
    expect(page.get_by_text("Today:")).to_be_visible()
    assert "comparisons begun in demo: 2;" in running.manage("sample_comparisons", "--project", "demo", "--count", "2")
    rank_what_was_sampled(page)
    assert complaints == []


def rank_what_was_sampled(page: Page) -> None:
    """One reply and what was sampled beside it: two to four answers, as the model may write the same twice."""
    wait_for_ranking(page)
    offer(page, "Rank").click()
    expect(page.locator(".answer").first).to_be_visible()
    page.wait_for_load_state()
    expect(page.locator(".context .turn.user").first).to_contain_text("lighthouse")
    texts = page.locator(".answer .raw").all_text_contents()
    assert 2 <= len({text.strip() for text in texts}) == len(texts) <= 4
    url = page.url
    page.locator("#answer-A").focus()
    page.keyboard.type("abcd"[: len(texts)])
    page.keyboard.press("Enter")
    page.wait_for_url(lambda now: now != url)
    expect(page.get_by_text("Submitted: A first, then B").first).to_be_visible()


@pytest.fixture
def prepared(own_project) -> tuple[str, str]:
    """A project with two comparisons to rank, of four answers each: its slug, and the link of its only trainer."""
    return own_project(chatted=["Tell me a long story about a lighthouse.", "How does a lighthouse work?"])


@pytest.fixture
def ranking(open_page, prepared):
    """Opens the first of the rankings, with the context options of the test."""

    def open_ranking(**options) -> Page:
        page = open_page(prepared[1], **options)
        offer(page, "Rank").click()
        expect(page.locator(".answer")).to_have_count(4)
        page.wait_for_load_state()
        return page

    return open_ranking


def order_of(page: Page) -> str:
    return page.locator("#order").input_value()


def signs(page: Page) -> str:
    """The order bar as one reads it, without what comes after the last chip."""
    return page.locator("[data-bar]").evaluate(
        "bar => [...bar.querySelectorAll('.chip, .sign')].map(part => part.textContent).join('')"
    )


def test_rank_by_typing_with_a_draft_that_survives(ranking, complaints, running, prepared, tmp_path):
    page = ranking()
    page_source = page.content()
    assert "SmolLM2" not in page_source
    assert "original" not in page_source
    context = page.locator(".context")
    expect(context.locator(".turn.user").first).to_contain_text("lighthouse")

    page.locator("#answer-A").focus()
    page.keyboard.type("ba=d")
    assert signs(page) == "B›A=D"
    page.keyboard.press("Backspace")
    assert signs(page).startswith("B›A")
    page.keyboard.type("=d")
    assert re.sub("=+", "=", signs(page)) == "B›A=D"
    page.locator("#answer-B").focus()
    page.keyboard.type("7")
    expect(page.locator("#answer-B input[type=radio][value='7']")).to_be_checked()
    page.locator("#answer-C").focus()
    page.keyboard.press(".")
    page.locator("#answer-C").get_by_label("States what is not so").check()
    page.keyboard.press("Escape")
    wait_until_saved(page)

    page.reload()
    assert signs(page) == "B›A=D"
    expect(page.locator("#answer-B input[type=radio][value='7']")).to_be_checked()
    expect(page.locator("#answer-C").get_by_label("States what is not so")).to_be_checked()
    expect(page.locator("#place-A")).to_have_text("2nd, tied")
    page.locator("#answer-C").focus()
    page.keyboard.type("c")
    expect(page.locator("[data-say]")).to_have_text(re.compile("B first, then A and D tied, then C"))
    page.keyboard.press("Control+z")
    assert signs(page) == "B›A=D"
    page.locator("#answer-C").focus()
    page.keyboard.type("c")
    url = page.url
    page.keyboard.press("Enter")
    page.wait_for_url(lambda now: now != url)
    expect(page.get_by_text("B first, then A and D tied, then C").first).to_be_visible()
    page.goto(url)
    expect(page.locator("#answer-A .place")).to_have_text("2nd, tied")
    assert complaints == []
    check_exports(running, prepared[0], tmp_path)


def check_exports(running, project, tmp_path):
    """What an engineer exports is the order that was typed, and loads in TRL."""
    for form in ("ranked", "preference", "preference_implicit"):
        out = tmp_path / form
        running.manage("export", "comparisons", "--project", project, "--format", form, "--out", str(out))
        running.manage("check_export", str(out))
        assert json.loads((out / "manifest.json").read_text())["rank_order"] == "0=best"
    (line,) = [json.loads(row) for file in (tmp_path / "ranked").glob("*.jsonl") for row in file.open()]
    ranks = {completion["shown_position"]: completion["rank"] for completion in line["completions"]}
    positions = dict(zip("ABCD", sorted(ranks), strict=True))
    assert [ranks[positions[letter]] for letter in "ABCD"] == [1, 0, 2, 1]
    assert line["context"][0]["role"] == "system"
    # In a process of its own: datasets and torch keep threads that this one has no use for.
    subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path)], cwd=site.ROOT, check=True, timeout=400)


TRAIN = """
import sys
from pathlib import Path
import torch, trl
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from tests import tiny

torch.set_num_threads(2)
folder = Path(sys.argv[1])
model = str(tiny.build(folder / "model"))
for form in ("preference", "preference_implicit"):
    loaded = load_dataset(str(folder / form), cache_dir=str(folder / "cache"))
    (rows,) = loaded.values()
    assert len(rows) == 5, rows
    trainer = trl.RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=1),
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=rows,
        args=trl.RewardConfig(
            output_dir=str(folder / "reward"), max_steps=2, per_device_train_batch_size=2, max_length=None,
            disable_tqdm=True, report_to="none", save_strategy="no", use_cpu=True, logging_steps=1),
    )
    assert trainer.train().global_step == 2
"""


def test_rank_by_mouse_alone(ranking, complaints):
    page = ranking()
    for letter in "CADB":
        page.locator(f"#letter-{letter}").click()
    assert signs(page) == "C›A›D›B"
    page.get_by_role("button", name="A before D. Make them equal").click()
    assert signs(page) == "C›A=D›B"
    page.locator("[data-chip=B]").click()
    page.get_by_role("button", name="Move B up").click()
    page.get_by_role("button", name="Move B up").click()
    assert order_of(page).replace(" ", "")[:2] in ("CB", "C>")
    page.locator("[data-undo]").click()
    page.locator("[data-undo]").click()
    assert signs(page) == "C›A=D›B"
    source, goal = (page.locator(f"[data-chip={letter}]").bounding_box() for letter in "BC")
    page.mouse.move(source["x"] + 8, source["y"] + 8)
    page.mouse.down()
    page.mouse.move(goal["x"] + 4, goal["y"] + 8, steps=8)
    page.mouse.up()
    assert signs(page)[0] == "B"
    url = page.url
    page.locator("[data-submit]").click()
    page.wait_for_url(lambda now: now != url)
    expect(page.get_by_text("B first").first).to_be_visible()
    assert complaints == []


def test_rank_by_touch_alone_on_a_phone(ranking, complaints):
    page = ranking(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for letter in "DCBA":
        page.locator(f"#letter-{letter}").tap()
    page.get_by_role("button", name="D before C. Make them equal").tap()
    page.locator("[data-chip=A]").tap()
    page.get_by_role("button", name="Move A up").tap()
    assert signs(page) == "D=C›A›B"
    url = page.url
    page.locator("[data-submit]").tap()
    page.wait_for_url(lambda now: now != url)
    expect(
        page.get_by_text("D and C tied first, then A, then B").or_(page.get_by_text("C and D tied")).first
    ).to_be_visible()
    assert complaints == []
