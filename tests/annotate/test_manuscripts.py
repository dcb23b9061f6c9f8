"""Manuscripts: read from drafts, and what forbids to finish one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate import manuscripts
from annotate.errors import Invalid
from annotate.manuscripts import Manuscript, Turn
from tests.factory import written_turn

LONGEST = 100


def problems(*turns: tuple[str, str], alternate: bool = True, system: str | None = None) -> list[str]:
    manuscript = Manuscript([Turn(role, text) for role, text in turns], system=system)
    return manuscripts.problems(manuscript, alternate=alternate, longest=LONGEST)


def test_an_empty_draft_is_one_empty_turn_of_the_user():
    assert manuscripts.read({}) == Manuscript([Turn("user")])


def test_what_is_read_is_written_back():
    draft = {
        "turns": [
            written_turn("user", "Hi", shown=[[3, 0], [3, 1]]),
            written_turn("assistant", "Yes", **{"from": [4, 2]}),
        ],
        "at": 1,
        "system": "Be brief.",
    }
    manuscript = manuscripts.read(draft | {"theirs": "unknown"})
    assert manuscript.turns[1].came_from == (4, 2)
    assert manuscript.as_draft() == draft


def test_line_ends_and_null_characters_are_cleaned():
    assert manuscripts.read({"turns": [{"role": "user", "text": "a\r\nb\rc\x00d"}]}).turns[0].text == "a\nb\ncd"


def test_a_suggestion_that_was_shown_twice_counts_once():
    turns = [{"role": "user", "shown": [[1, 0], [1, 1], [1, 0]]}]
    assert manuscripts.read({"turns": turns}).turns[0].shown == [(1, 0), (1, 1)]


@pytest.mark.parametrize(
    "draft",
    [
        {"turns": "none"},
        {"turns": ["text"]},
        {"turns": [{"role": "system", "text": ""}]},
        {"turns": [{"role": "user", "text": 3}]},
        {"turns": [{"role": "user", "typed": -1}]},
        {"turns": [{"role": "user", "typed": True}]},
        {"turns": [{"role": "user", "typed": 1.5}]},
        {"turns": [{"role": "user", "typed": 2**40}]},
        {"turns": [{"role": "user", "from": [1]}]},
        {"turns": [{"role": "user", "from": [1, "0"]}]},
        {"turns": [{"role": "user", "shown": [7]}]},
        {"turns": [{"role": "user", "opening": 1}]},
        {"turns": [{"role": "user"}], "at": 1},
        {"turns": [{"role": "user"}], "at": -1},
        {"turns": [{"role": "user"}], "system": 5},
        {"turns": [{"role": "user"}] * 201},
    ],
)
def test_a_damaged_draft_is_refused(draft):
    with pytest.raises(Invalid):
        manuscripts.read(draft)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "text", "from", "at"]), inner),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={"turns": json | st.lists(json, max_size=3), "at": json, "system": json}))
def test_any_draft_is_read_or_refused(draft):
    try:
        manuscript = manuscripts.read(draft)
    except Invalid:
        return
    assert manuscripts.read(manuscript.as_draft()) == manuscript
    assert 0 <= manuscript.at < len(manuscript.turns)


def test_a_whole_piece_has_no_problems():
    assert problems(("user", "Hi"), ("assistant", "Hello")) == []
    assert problems(("user", "Hi"), ("assistant", "Hello"), ("user", " ")) == []


@pytest.mark.parametrize(
    ("turns", "sentence"),
    [
        ([], "Nothing is written yet."),
        ([("user", " ")], "Nothing is written yet."),
        ([("user", ""), ("assistant", "Hello")], "Turn 1 is empty: write it or delete it."),
        ([("user", "Hi")], "The last turn is the user's: write the assistant's answer, or delete it."),
        ([("user", "Hi"), ("assistant", "a" * 101)], "Turn 2 has 101 characters; a turn may have 100."),
        ([("assistant", "Hello")], "The first turn is the assistant's; here the user begins."),
        (
            [("user", "Hi"), ("user", "Anybody?"), ("assistant", "Hello")],
            "Turn 2 is the user's like the one before it; here the sides take turns.",
        ),
    ],
)
def test_what_must_be_mended_is_said(turns, sentence):
    assert sentence in problems(*turns)


def test_where_any_order_is_allowed_only_both_sides_must_speak():
    assert problems(("user", "Hi"), ("user", "Anybody?"), ("assistant", "Hello"), alternate=False) == []
    assert problems(("assistant", "Hello"), ("user", "Hi"), ("assistant", "Yes?"), alternate=False) == []
    assert problems(("assistant", "Hello"), alternate=False) == ["The user says nothing yet: write what they ask."]


def test_an_empty_system_message_is_said():
    (said,) = problems(("user", "Hi"), ("assistant", "Hello"), system=" ")
    assert said.startswith("The system message is empty")
