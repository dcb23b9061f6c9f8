"""How uncertain a comparison is, from the rewards and spreads of its candidates."""

import random
from math import exp
from statistics import fmean

import pytest

from annotate.quality import uncertainty


def test_without_a_spread_it_is_the_chance_of_the_less_likely_order():
    assert uncertainty.of_pair(2, 0, 1, 0) == pytest.approx(1 / (1 + exp(1)))
    assert uncertainty.of_pair(1, 0, 2, 0) == uncertainty.of_pair(2, 0, 1, 0)


def test_close_rewards_and_heads_that_disagree_make_it_large():
    sure = uncertainty.of_pair(3, 0.1, 0, 0.1)
    close = uncertainty.of_pair(0.1, 0.1, 0, 0.1)
    disagreed = uncertainty.of_pair(3, 4, 0, 4)
    assert sure < 0.06 < 0.3 < disagreed < close < 0.5
    assert uncertainty.of_pair(1, 5, 1, 5) == 0.5


def test_it_is_near_to_what_simulated_people_do():
    chance = random.Random(1)
    for difference, spread, other in ((1, 0.5, 0.5), (2, 2, 1), (0.3, 0, 3)):
        drawn = (difference + chance.gauss(0, spread) - chance.gauss(0, other) for _ in range(20_000))
        otherwise = fmean(1 / (1 + exp(one)) for one in drawn)
        assert uncertainty.of_pair(difference, spread, 0, other) == pytest.approx(otherwise, abs=0.015)


def test_of_more_than_two_it_is_the_mean_over_pairs():
    rewards = [(0, 0.1), (1, 0.2), (5, 0.3)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert uncertainty.of_rewards(rewards) == pytest.approx(
        fmean(uncertainty.of_pair(*rewards[one], *rewards[other]) for one, other in pairs)
    )


def test_rewards_that_are_far_apart_do_not_overflow():
    assert uncertainty.of_pair(1e6, 0, -1e6, 0) == 0
