"""How much the ranking of a comparison would teach, from the rewards and spreads of its candidates."""

import random
from math import exp, log2
from statistics import fmean

import pytest

from annotate.quality import uncertainty


def test_it_is_large_where_heads_disagree_the_more_so_where_rewards_are_close():
    agreed = uncertainty.of_pair(3, 0.1, 0, 0.1)
    close = uncertainty.of_pair(0.1, 0.1, 0, 0.1)
    disagreed = uncertainty.of_pair(3, 2, 0, 2)
    both = uncertainty.of_pair(0.1, 2, 0, 2)
    assert agreed < 0.02
    assert close < 0.02
    assert 0.1 < disagreed < both < 1


def test_a_toss_up_on_which_all_heads_agree_teaches_nothing():
    assert uncertainty.of_pair(1, 0, 1, 0) == pytest.approx(0, abs=1e-9)


def test_it_does_not_hang_on_which_of_two_comes_first():
    assert uncertainty.of_pair(2, 1, 1, 3) == pytest.approx(uncertainty.of_pair(1, 3, 2, 1))


@pytest.mark.parametrize(("difference", "spread", "other"), [(1, 0.5, 0.5), (2, 2, 1), (0.3, 0, 3), (0, 0.3, 0.3)])
def test_it_is_near_to_what_simulated_heads_disagree(difference, spread, other):
    def entropy(chance: float) -> float:
        return -sum(part * log2(part) for part in (chance, 1 - chance) if part > 0)

    chance = random.Random(1)
    heads = [1 / (1 + exp(-difference + chance.gauss(0, spread) - chance.gauss(0, other))) for _ in range(5_000)]
    told = entropy(fmean(heads)) - fmean(map(entropy, heads))
    assert uncertainty.of_pair(difference, spread, 0, other) == pytest.approx(told, abs=0.05)


def test_of_more_than_two_it_is_the_mean_over_pairs():
    rewards = [(0, 0.1), (1, 1.2), (5, 2.3)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert uncertainty.of_rewards(rewards) == pytest.approx(
        fmean(uncertainty.of_pair(*rewards[one], *rewards[other]) for one, other in pairs)
    )


@pytest.mark.parametrize("spread", [0, 1, 1e6, 1e30])
def test_numbers_of_any_size_give_bits(spread):
    assert 0 <= uncertainty.of_pair(1e6, spread, -1e6, spread) <= 1
