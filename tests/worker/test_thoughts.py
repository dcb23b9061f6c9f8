"""A thought is told apart from the answer after it, whatever pieces the two come in."""

from pathlib import Path

import pytest
import trl
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests import tiny
from worker.engines import thoughts
from worker.engines.templates import ChatTemplate
from worker.engines.thoughts import ANY, Marks, Thoughts

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
THINK = Marks(thoughts.FAMILIES[0])
HARMONY = Marks(thoughts.FAMILIES[3], everywhere=True)


def split(pieces, marks=THINK, **how):
    """The whole answer and the whole thought."""
    splitter = Thoughts(marks, **how)
    said = [*(splitter.add(piece) for piece in pieces), splitter.finish()]
    return "".join(text for text, _ in said), "".join(thought for _, thought in said)


@pytest.mark.parametrize(
    ("whole", "text", "thought"),
    [
        ("<think>\nThey greet.\nSo do I.\n</think>\n\nHello.\n", "Hello.\n", "They greet.\nSo do I."),
        ("\n<think>a</think>b", "b", "a"),
        ("<think>\n\n</think>\n\nHello.", "Hello.", ""),
        ("<think>never ended ", "", "never ended"),
        ("<think>never ended </thi", "", "never ended </thi"),
        ("<think>a</think>\n<think>b</think> c", "c", "a\n\nb"),
        ("<think>a <think> b</think>c", "c", "a\n\nb"),
        ("  An answer.", "  An answer.", ""),
        ("Write <think>a</think> around it.", "Write <think>a</think> around it.", ""),
        ("<think>a</think>Write <think>b</think>.", "Write <think>b</think>.", "a"),
        ("<thin ice>", "<thin ice>", ""),
        ("<", "<", ""),
        ("\n\n", "\n\n", ""),
        ("", "", ""),
    ],
)
def test_a_thought_is_no_part_of_the_text(whole, text, thought):
    assert split([whole]) == (text, thought)
    assert split(whole) == (text, thought)


@given(st.data())
def test_it_does_not_matter_where_the_pieces_are_cut(data):
    parts = st.sampled_from(["<think>", "</think>", "<", "</", "think>", "a", " ", "\n", "b c"])
    whole = "".join(data.draw(st.lists(parts, max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[one:other] for one, other in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    for marks in (THINK, Marks(THINK.after, everywhere=True), ANY):
        for inside in (True, False):
            assert split(pieces, marks, inside=inside) == split([whole], marks, inside=inside)


@given(st.text())
def test_a_model_that_does_not_think_says_what_it_says(text):
    assert split(text, Marks()) == (text, "")


def test_words_are_handed_out_as_soon_as_they_are_certain():
    splitter = Thoughts(THINK, inside=True)
    said = [splitter.add(piece) for piece in ("\nThey", " greet", " \n", "<", "/think", ">", "\n\n", "Hel", "lo")]
    assert said == [
        ("", "They"),
        ("", " greet"),
        *[("", "")] * 5,
        ("Hel", ""),
        ("lo", ""),
    ]


def test_a_template_that_opens_the_thought_has_it_begin_inside():
    assert split(["Hm.\n</think>\n\nYes."], inside=True) == ("Yes.", "Hm.")
    # Some models open it once more.
    assert split(["<think>\nHm.</think>Yes."], inside=True) == ("Yes.", "Hm.")


def test_the_channels_of_harmony():
    whole = "<|channel|>analysis<|message|>They greet.<|end|>assistant<|channel|>final<|message|>Hello."
    assert split([whole], HARMONY) == split(whole, HARMONY) == ("Hello.", "They greet.")
    twice = "<|channel|>analysis<|message|>a<|end|>assistant<|channel|>commentary<|message|>b<|end|>assistant"
    assert split(f"{twice}<|channel|>final<|message|>c", HARMONY) == ("c", "a\n\nb")
    assert split("<|channel|>final<|message|>Hello.", HARMONY) == ("Hello.", "")
    assert split("<|channel|>analysis<|message|>They greet.", HARMONY) == ("", "They greet.")


def test_marks_that_nobody_writes_about_count_everywhere():
    marks = Marks(thoughts.FAMILIES[1], everywhere=True)
    assert split("Yes, [THINK]no[/THINK] and so on.", marks) == ("Yes,\n\nand so on.", "no")


def test_a_thought_about_another_familys_marks_goes_on():
    assert split("<think>[/THINK] is a mark</think>Yes.", ANY) == ("Yes.", "[/THINK] is a mark")


@pytest.fixture
def tokenizer(tmp_path):
    def make(template=tiny.CHAT_TEMPLATE, **tokens):
        return AutoTokenizer.from_pretrained(tiny.build(tmp_path / "model", template=template, **tokens))

    return make


def test_a_model_without_marks_has_none(tokenizer):
    assert thoughts.marks_of(tokenizer()) == Marks()


def test_marks_are_known_by_the_tokens(tokenizer):
    marks = thoughts.marks_of(tokenizer(tokens=["<think>", "</think>"]))
    assert marks == THINK


def test_one_mark_alone_is_none(tokenizer):
    assert not thoughts.marks_of(tokenizer(tokens=["<think>"])).after


def test_marks_of_special_tokens_are_shown_and_count_everywhere(tokenizer):
    made = tokenizer(special_tokens=["[THINK]", "[/THINK]"])
    marks = thoughts.marks_of(made)
    assert (marks.after, marks.everywhere) == (thoughts.FAMILIES[1], True)
    assert marks.shown == {made.convert_tokens_to_ids(mark): mark for mark in ("[THINK]", "[/THINK]")}


MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("name", "families", "opened"),
    [
        ("qwen3", [0], {"": False, "on": False, "off": False}),
        ("qwen3_6", [0], {"": True, "on": True, "off": False}),
        ("qwen3_5_nothink", [0], {"": False, "on": True, "off": False}),
        ("deepseek_r1_distill", [0], {"": True}),
        ("nemotron_3_nano", [0], {"": True, "on": True, "off": False}),
        ("glm4moe", [0], {"": False, "on": False, "off": False}),
        ("gemma4", [2], {"": False, "on": False, "off": False}),
        ("gptoss", [3], {"": False}),
        ("qwen2_5", [], {"": False}),
        ("phi3", [], {"": False}),
    ],
)
def test_templates_of_larger_models(tokenizer, name, families, opened):
    made = tokenizer((TEMPLATES / f"{name}.jinja").read_text())
    marks = thoughts.marks_of(made)
    assert marks.after == {mark: after for number in families for mark, after in thoughts.FAMILIES[number].items()}
    for thinking, inside in opened.items():
        prompt = ChatTemplate(made, thinking).to_reply(MESSAGES)
        assert thoughts.left_open(made, prompt, marks) == inside, thinking
