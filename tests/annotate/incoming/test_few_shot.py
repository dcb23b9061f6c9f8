"""Prompts with examples of their own: taken apart where they part cleanly, else left whole."""

import pytest

from annotate.datasets.incoming import few_shot
from annotate.datasets.incoming.formats import FORMATS, Options
from annotate.errors import Invalid
from tests.annotate.incoming.test_examples import said


@pytest.mark.parametrize(("asks", "answers"), few_shot.LABELS)
def test_a_prompt_parts(asks, answers):
    prompt = f"{asks}: one\ntwo\n{answers}: three\n\n{asks}:\nfour\n  {answers}:\n"
    assert few_shot.apart(prompt) == [("user", "one\ntwo"), ("assistant", "three"), ("user", "four")]


def test_without_an_example():
    assert few_shot.apart("Be brief.\n\nQ: Why?\nA:") == [("user", "Be brief.\n\nWhy?")]


@pytest.mark.parametrize(
    "prompt",
    [
        "Why?",
        "Q: Why?",
        "Q: Why?\nA: So.",
        "Q: Why?\nA: So.\nQ: How?",
        "Q: Why?\nQ: How?\nA: So.\nA:",
        "A: So.\nQ: Why?",
        "Q:\nA: So.\nQ: Why?\nA:",
        "Q: Why?\nA:\nQ: How?\nA:",
        "Why does Q: stand here, and A: there? A:",
        "Q: Why?\nAnswer:",
        "q: why?\na:",
    ],
)
def test_a_prompt_that_does_not_part(prompt):
    assert few_shot.apart(prompt) is None


def read(options: Options, **row):
    return FORMATS["instructions"].read(row, options)


PROMPT = "Q: 1+1\nA: 2\n\nQ: 2+2\nA:"


def test_whole_where_that_is_asked_for():
    item = read(Options(few_shot="whole"), prompt=PROMPT, completion="4")
    assert said(item) == [[f"user: {PROMPT}", "assistant: 4"]]
    assert item.mended == ["few_shot_whole"]


def test_instruction_and_input_part_together():
    item = read(Options(), instruction="Add the numbers.", input=PROMPT, output="4", system="Be exact.")
    assert said(item) == [
        ["system: Be exact.", "user: Add the numbers.\n\n1+1", "assistant: 2", "user: 2+2", "assistant: 4"]
    ]


def test_after_a_history_it_stays_whole():
    item = read(Options(), instruction=PROMPT, output="4", history=[["Hi", "Hello"]])
    assert said(item) == [["user: Hi", "assistant: Hello", f"user: {PROMPT}", "assistant: 4"]]
    assert item.mended == ["few_shot_whole"]


@pytest.mark.parametrize("name", ["few_shot", "broken"])
def test_an_option_that_there_is_not(name):
    with pytest.raises(Invalid, match=rf"^{name} is \w+ or \w+, not 'perhaps'\.$"):
        Options(**{name: "perhaps"})
