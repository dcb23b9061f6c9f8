"""Whatever somebody does at the desk, what is kept holds together."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainers_ui.test_scripts import ELEMENTS, NODE

SUGGESTIONS = {
    (1, 0): "Start with one story. Two minutes is plenty.\n\nWhat comes to mind?",
    (1, 1): "  Use 🥖 exactly that. Dr. Who says so.\n- One.\n- Two.  ",
    (2, 0): "",
}

suggestion = st.sampled_from([{"ref": list(ref), "text": text} for ref, text in SUGGESTIONS.items()])
text = st.one_of(st.text("ab 🥖é\n", max_size=12), st.text(max_size=12).filter(lambda found: found.isprintable()))
typing = st.fixed_dictionaries({"pasted": st.booleans(), "composing": st.booleans(), "now": st.integers(0, 5000)})
index = st.integers(-1, 6)
step = st.one_of(
    st.tuples(st.just("type"), text, typing),
    st.tuples(st.sampled_from(["take", "edit", "nextSentence"]), suggestion),
    st.tuples(st.sampled_from(["open", "deleteFrom"]), index),
    st.tuples(st.sampled_from(["done", "switchSide", "deleteLast", "clear", "undo", "redo"])),
    st.tuples(st.just("setSystem"), text),
    st.tuples(st.just("spend"), st.integers(0, 60)),
    st.tuples(st.just("shown"), st.lists(st.sampled_from(list(SUGGESTIONS)).map(list), max_size=3)),
)


class Desk:
    """The manuscripts' process, asked line by line."""

    def __init__(self):
        script = Path(__file__).parent / "scripts" / "manuscripts.mjs"
        self.process = subprocess.Popen(
            [NODE, str(script)],
            env={"ELEMENTS": str(ELEMENTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def drafts(self, *, draft: dict, shape: str, steps: list) -> list[dict]:
        """The draft as it was opened, and after every step."""
        print(json.dumps({"draft": draft, "shape": shape, "steps": steps}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def desk():
    """One process for all examples."""
    made = Desk()
    yield made
    made.process.stdin.close()
    made.process.wait(10)


OPENING = {
    "role": "user",
    "text": "Why is bread flat? 🥖",
    "from": None,
    "opening": True,
    "shown": [],
    "seconds": 0,
    "typed": 0,
    "pasted": 0,
    "taken": 20,
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    opened=st.sampled_from([{}, {"at": 0, "turns": [OPENING]}]),
    shape=st.sampled_from(["alternate", "free"]),
    steps=st.lists(step, max_size=25),
)
def test_it_adds_up(desk, opened, shape, steps):
    drafts = desk.drafts(draft=opened, shape=shape, steps=steps)

    for before, draft, (name, *_) in zip(drafts, drafts[1:], steps, strict=False):
        turns = draft["turns"]
        assert 0 <= draft["at"] < len(turns)
        for turn in turns:
            # Whatever is there was typed, pasted or taken; what was deleted only makes the sum larger.
            assert turn["typed"] + turn["pasted"] + turn["taken"] >= len(turn["text"])
            assert turn["text"].strip() or (turn["from"] is None and not turn["opening"])
            assert turn["from"] is None or SUGGESTIONS[tuple(turn["from"])].strip()
        if shape == "alternate":
            assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (
                len(turns) % 2
            )
        if name == "take" and len(turns) > len(before["turns"]):
            assert turns[before["at"]]["text"] == SUGGESTIONS[tuple(turns[before["at"]]["from"])].strip()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step.filter(lambda one: one[0] not in ("undo", "redo", "spend", "shown")), max_size=20))
def test_undo_brings_everything_back(desk, steps):
    drafts = desk.drafts(draft={}, shape="free", steps=[*steps, *[("undo",)] * 40, *[("redo",)] * 40])

    assert drafts[len(steps) + 40] == drafts[0]
    assert drafts[-1] == drafts[len(steps)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.sampled_from(["alternate", "free"]), steps=st.lists(step, max_size=20))
def test_a_reload_changes_nothing(desk, shape, steps):
    kept = desk.drafts(draft={}, shape=shape, steps=steps)[-1]

    assert desk.drafts(draft=kept, shape=shape, steps=[])[0] == kept


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, max_size=12), upto=st.integers(0, 4), more=st.lists(step, max_size=8))
def test_a_branch_goes_on(desk, steps, upto, more):
    kept = desk.drafts(draft={}, shape="alternate", steps=steps)[-1]
    turns = kept["turns"][: upto + 1]
    branch = {"at": len(turns) - 1, "turns": turns}

    for draft in desk.drafts(draft=branch, shape="alternate", steps=more):
        assert 0 <= draft["at"] < len(draft["turns"])
        for turn in draft["turns"]:
            assert turn["typed"] + turn["pasted"] + turn["taken"] >= len(turn["text"])
