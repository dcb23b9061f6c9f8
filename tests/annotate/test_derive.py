"""Draws, splits and pseudonyms come from the secret alone."""

from collections import Counter

import pytest

from annotate import derive

SECRET, OTHER = "ab" * 32, "cd" * 32


def test_the_same_secret_and_value_give_the_same():
    assert derive.draw(SECRET, "conversation", 7, 5) == derive.draw(SECRET, "conversation", 7, 5)
    assert derive.pseudonym(SECRET, 3) == derive.pseudonym(SECRET, 3)
    assert derive.draw(SECRET, "conversation", 7, 5)[0] != derive.draw(OTHER, "conversation", 7, 5)[0]
    assert derive.pseudonym(SECRET, 3) != derive.pseudonym(OTHER, 3)
    assert derive.keyed(SECRET, "trainer", 3) != derive.keyed(SECRET, "split", 3)


def test_splits_have_their_shares():
    shares = Counter(derive.split_of(SECRET, derive.family_of(f"prompt {number}")) for number in range(10_000))
    assert 8_800 < shares["train"] < 9_200
    assert 400 < shares["validation"] < 600
    assert 400 < shares["test"] < 600


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Write a poem.", "  write a POEM!", True),
        ("Straße", "STRASSE", True),
        ("Write a poem.", "Write two poems.", False),
        ("???", "!!!", False),
        ("为什么天空是蓝色的？", "为什么天空是蓝色的", True),
    ],
)
def test_families(one, other, same):
    assert (derive.family_of(one) == derive.family_of(other)) is same
