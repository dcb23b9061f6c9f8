"""Win rates: as worked out by hand, as the likelihood has them, and how often the interval holds the true one."""

import numpy as np
import pytest

from annotate.quality import winning
from annotate.quality.winning import Outcome

NEW, LAST, OLD = 7, 5, 3


def test_of_two_policies_it_is_the_share_of_wins_with_ties_as_halves() -> None:
    outcomes = [
        Outcome((LAST, NEW), ((1, 0),), 6),
        Outcome((LAST, NEW), ((0, 1),), 2),
        Outcome((LAST, NEW), ((0, 0),), 1),
    ]
    rate = winning.over(NEW, outcomes)[LAST]
    # 6.5 of 9, and half a match each way besides.
    assert rate.value == pytest.approx(7 / 10)
    assert (rate.comparisons, rate.better, rate.tied, rate.worse) == (9, 6, 1, 2)
    assert rate.low < 0.5 < rate.value < rate.high < 1
    turned = winning.over(LAST, outcomes)[NEW]
    assert (turned.value, turned.better, turned.worse) == (pytest.approx(3 / 10), 2, 6)


def test_a_comparison_counts_once_however_many_candidates_and_rankings_it_has() -> None:
    outcomes = [
        # Of four matches in two rankings each, the new one wins five, ties one and loses two: 5.5 of 8.
        Outcome((LAST, LAST, NEW, NEW), ((0, 1, 0, 1), (1, 1, 0, 0))),
        Outcome((LAST, NEW), ((0, 1),)),
    ]
    rate = winning.over(NEW, outcomes)[LAST]
    won = (1 + 0 + 0.5 + 0.5 + 4) / 8
    assert rate.value == pytest.approx((won + 0 + 0.5) / (2 + 1))
    assert (rate.comparisons, rate.better, rate.tied, rate.worse) == (2, 5, 2, 2)


def test_what_no_policy_wrote_and_pairs_of_one_policy_are_no_matches() -> None:
    alone = [Outcome((NEW, NEW, None), ((1, 2, 0),)), Outcome((LAST, LAST), ((0, 1),))]
    assert winning.over(NEW, alone) == {}
    assert winning.over(NEW, []) == {}
    rate = winning.over(NEW, [*alone, Outcome((LAST, NEW, None), ((2, 1, 0),))])[LAST]
    assert (rate.comparisons, rate.better, rate.value) == (1, 1, pytest.approx(1.5 / 2))


def test_who_won_everything_has_a_finite_rate_and_an_honest_interval() -> None:
    rate = winning.over(NEW, [Outcome((LAST, NEW), ((1, 0),), 20)])[LAST]
    assert rate.value == pytest.approx(20.5 / 21)
    # As Jeffreys has it: the 2.5 % point of Beta(20.5, 0.5) is 0.8834.
    assert rate.low == pytest.approx(0.8834, abs=0.008)
    assert rate.value < rate.high < 1


@pytest.fixture
def few_draws(monkeypatch) -> None:
    monkeypatch.setattr(winning, "DRAWS_OF_MORE", 200)


@pytest.mark.usefixtures("few_draws")
def test_of_three_policies_strengths_are_the_likeliest_ones() -> None:
    outcomes = [
        Outcome((OLD, LAST), ((1, 0),), 40),
        Outcome((OLD, LAST), ((0, 1),), 15),
        Outcome((LAST, NEW), ((1, 0),), 30),
        Outcome((LAST, NEW), ((0, 1),), 10),
        Outcome((OLD, NEW), ((0, 0),), 2),
    ]
    rates = winning.over(NEW, outcomes)
    # In the maximum each wins as often as the model expects: with half a match each way besides.
    won = {(LAST, OLD): 40.5, (OLD, LAST): 15.5, (NEW, LAST): 30.5, (LAST, NEW): 10.5, (OLD, NEW): 1.5, (NEW, OLD): 1.5}
    strengths = {NEW: 1.0} | {other: 1 / rate.value - 1 for other, rate in rates.items()}
    for one in strengths:
        expected = sum(
            (won[one, other] + won[other, one]) * strengths[one] / (strengths[one] + strengths[other])
            for other in strengths
            if other != one
        )
        assert sum(times for (by, _), times in won.items() if by == one) == pytest.approx(expected)
    # It is told of both, though most of what is known of the oldest one comes through the last one.
    assert rates[OLD].comparisons == 2
    assert rates[OLD].high - rates[OLD].low < 0.5


def test_a_policy_that_is_not_connected_has_no_rate() -> None:
    outcomes = [Outcome((LAST, NEW), ((1, 0),), 3), Outcome((OLD, 1), ((1, 0),), 3)]
    assert set(winning.over(NEW, outcomes)) == {LAST}
    assert set(winning.over(OLD, outcomes)) == {1}


@pytest.mark.usefixtures("few_draws")
def test_the_same_rankings_give_the_same_interval_in_any_order_and_in_small_parts(monkeypatch) -> None:
    source = np.random.default_rng(3)
    outcomes = [
        Outcome((OLD, LAST, NEW), (tuple(source.integers(0, 3, 3).tolist()),), int(times))
        for times in source.integers(1, 5, 20)
    ]
    one = winning.over(NEW, outcomes)
    assert winning.over(NEW, outcomes[::-1]) == one
    monkeypatch.setattr(winning, "AT_ONCE", 100)
    parted = winning.over(NEW, outcomes)
    assert [(rate.value, rate.better) for rate in parted.values()] == [
        (pytest.approx(rate.value), rate.better) for rate in one.values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strengths", "comparisons", "by", "tie"),
    [
        ((0.7, 0.3), 30, (0, 1), 0),
        ((0.98, 0.02), 100, (0, 1), 0),
        ((0.6, 0.4), 100, (0, 0, 1, 1), 1.5),
        ((0.5, 0.3, 0.2), 60, (0, 1, 2, 2), 0),
    ],
)
def test_the_interval_holds_the_true_rate_in_about_95_of_100_cases(
    monkeypatch, strengths, comparisons, by, tie
) -> None:
    monkeypatch.setattr(winning, "DRAWS", 1000)
    monkeypatch.setattr(winning, "DRAWS_OF_MORE", 400)
    source = np.random.default_rng(1)

    def ranks(many: int) -> np.ndarray:
        """Rankings of candidates `by` policies of these strengths, those that are near to each other tied."""
        found = np.log([strengths[policy] for policy in by]) + source.gumbel(size=(many, len(by)))
        return -(np.round(found / tie) if tie else found)

    first, last = (place for place, policy in enumerate(by) if policy < 2 and policy not in by[:place])
    many = ranks(400_000)
    true = (many[:, first] < many[:, last]).mean() + (many[:, first] == many[:, last]).mean() / 2
    tries, held = 300 if tie or len(by) == 2 else 100, 0
    for _ in range(tries):
        outcomes = [
            Outcome(by, (tuple(np.unique(values, return_inverse=True)[1].tolist()),)) for values in ranks(comparisons)
        ]
        rate = winning.over(0, outcomes)[1]
        held += rate.low <= true <= rate.high
    # 300 tries tell it to 1.3 points, 100 to 2.2.
    assert abs(held / tries - 0.95) < (0.035 if tries == 300 else 0.06)
