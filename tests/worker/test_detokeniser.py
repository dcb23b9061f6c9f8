"""Text out of tokens as they come: appended only, whole characters only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from worker.engines.detokeniser import Detokeniser


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return AutoTokenizer.from_pretrained(tiny_models / "tiny")


def pieces(tokenizer, ids):
    detokeniser = Detokeniser(tokenizer)
    return [*(detokeniser.add(one) for one in ids), detokeniser.end()]


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_out_as_it_went_in(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    # A text that itself ends with the sign of a broken character loses it, as that cannot be told apart.
    assert "".join(pieces(tokenizer, ids)) == text.rstrip("\ufffd")


def test_a_character_of_several_tokens_comes_whole(tokenizer):
    ids = tokenizer("a🙂é", add_special_tokens=False).input_ids
    assert len(ids) == 1 + 4 + 2
    assert pieces(tokenizer, ids) == ["a", "", "", "", "🙂", "", "é", ""]


def test_a_character_that_is_cut_off_is_left_out(tokenizer):
    ids = tokenizer("to 🙂", add_special_tokens=False).input_ids[:-1]
    assert "".join(pieces(tokenizer, ids)) == "to "


def test_special_tokens_say_nothing(tokenizer):
    ids = tokenizer("<|im_start|>the word<|im_end|>", add_special_tokens=False).input_ids
    assert "".join(pieces(tokenizer, ids)) == "the word"
