"""An order as letters and as a sentence."""

import pytest

from trainers_ui.orders import Order, Place, lettered


@pytest.mark.parametrize(
    ("tiers", "text", "sentence"),
    [
        ([["B"], ["A", "D"], ["C"]], "B A = D C", "B first, then A and D tied, then C."),
        ([["B"], ["D", "A"], ["C"]], "B D = A C", "B first, then A and D tied, then C."),
        ([["A", "B"], ["C"]], "A = B C", "A and B tied for first, then C."),
        ([["A", "B", "C"]], "A = B = C", "A, B and C tied."),
        ([["A"]], "A", "A first."),
        ([], "", ""),
    ],
)
def test_it_reads(tiers, text, sentence):
    order = Order(tiers)

    assert order.text == text
    assert order.sentence == sentence


def test_all_bad_comes_first():
    assert Order([["A"], ["B"]], all_bad=True).sentence == "All are bad. A first, then B."
    assert Order([], all_bad=True).sentence == "All are bad."


def test_places():
    order = Order([["B"], ["A", "D"], ["C"], ["E"]])

    assert order.place("B") == Place(1, tied=False)
    assert order.place("D").word == "2nd, tied"
    assert [order.place(letter).word for letter in "BCE"] == ["1st", "3rd", "4th"]
    assert order.place("F") is None


def test_candidates_get_their_letters():
    assert lettered([[30], [10, 20]], {10: "A", 20: "B", 30: "C"}).text == "C A = B"
