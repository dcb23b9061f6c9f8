"""What changed between two texts, and between two versions of a conversation."""

import re
from dataclasses import dataclass

import pytest

from trainers_ui import changes


@dataclass
class Said:
    """A message as far as it is compared."""

    role: str
    text: str


def stretches(before: str, after: str) -> list[tuple[str, str]]:
    return [(change.kind, change.text) for change in changes.between(before, after)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("", "New."),
        ("Old.", ""),
        ("Boil the egg.", "Boil the egg."),
        ("Boil it for five minutes.", "Boil it for six minutes, then cool it."),
        ("One\n\ntwo", "One\n\nthree\n\ntwo"),
        ("蛋煮八分钟", "蛋煮九分钟"),
        ("a b c d e f", "b a d c f e"),
    ],
)
def test_both_texts_can_be_put_together_again(before, after):
    found = changes.between(before, after)
    assert "".join(change.text for change in found if change.kind != "added") == before
    assert "".join(change.text for change in found if change.kind != "gone") == after


def test_words_are_compared():
    found = stretches("Boil the egg for five minutes.", "Boil the egg for six minutes.")
    assert found == [("same", "Boil the egg for "), ("gone", "five "), ("added", "six "), ("same", "minutes.")]


def test_crumbs_between_changes_belong_to_them():
    found = stretches("One story, not a speech.", "Six minutes, then a bath.")
    assert found == [("gone", "One story, not a speech"), ("added", "Six minutes, then a bath"), ("same", ".")]


def test_long_texts_are_compared_line_by_line():
    lines = [f"Line {number} has a few words in it.\n" for number in range(500)]
    other = [*lines[:200], "Another one.\n", *lines[201:]]
    assert len(stretches("".join(lines), "".join(other))) == 4


def test_endless_texts_cost_nothing():
    found = stretches("a\n" * 20_000, "b\n" * 20_000)
    assert [kind for kind, _ in found] == ["gone", "added"]


def test_everything_is_escaped():
    html = changes.shown("<b>old</b> & one", "<img src=x onerror=alert(1)> & two")
    assert set(re.findall(r"<(\w+)", html)) == {"del", "ins", "span"}
    assert "img src=x onerror=alert(1)&gt; &amp; two" in html


def test_changes_are_said_to_those_who_do_not_see_them():
    html = changes.shown("Boil it five minutes long.", "Boil it six minutes long.")
    assert '<del><span class="unseen">[taken out: </span>five <span class="unseen">]</span></del>' in html
    assert '<ins><span class="unseen">[put in: </span>six <span class="unseen">]</span></ins>' in html


def test_the_middle_of_what_is_the_same_is_left_out():
    html = changes.shown(f"First {'word ' * 400}old", f"First {'word ' * 400}new")
    assert html.count("word") < 50
    assert "…" in html


def test_turns_are_paired_by_text_then_by_side():
    old = [Said("user", "Hello"), Said("assistant", "Hi"), Said("user", "Bye"), Said("assistant", "See you")]
    new = [Said("user", "Hello"), Said("assistant", "Good day"), Said("user", "Bye"), Said("assistant", "See you")]
    pairs = changes.aligned(old, new)
    assert [pair.changed for pair in pairs] == [False, True, False, False]
    assert all(pair.old and pair.new for pair in pairs)


def test_turns_that_went_and_came():
    old = [Said("user", "Hello"), Said("assistant", "Hi"), Said("user", "More"), Said("assistant", "Well")]
    new = [Said("user", "Hello"), Said("assistant", "Hi")]
    assert [(pair.old is None, pair.new is None) for pair in changes.aligned(old, new)] == [
        (False, False),
        (False, False),
        (False, True),
        (False, True),
    ]
    assert [pair.old is None for pair in changes.aligned(new, old)] == [False, False, True, True]
