"""How much the ranking of a comparison would teach, from what the heads give to its candidates."""

from math import log2
from statistics import fmean

import pytest

from annotate.quality import uncertainty


def heads(reward: float, spread: float) -> list[float]:
    """What two heads give that disagree so much."""
    return [reward + spread, reward - spread]


def test_it_is_large_where_heads_disagree_the_more_so_where_rewards_are_close():
    agreed = uncertainty.of_pair(heads(3, 0.1), [0, 0])
    close = uncertainty.of_pair(heads(0.1, 0.1), [0, 0])
    disagreed = uncertainty.of_pair(heads(3, 3), [0, 0])
    both = uncertainty.of_pair(heads(0.1, 3), [0, 0])
    assert agreed < 0.02
    assert close < 0.02
    assert 0.1 < disagreed < both < 1


def test_a_toss_up_on_which_all_heads_agree_teaches_nothing():
    assert uncertainty.of_pair([1, 1, 1], [1, 1, 1]) == 0


def test_what_a_head_gives_to_both_alike_counts_for_nothing():
    assert uncertainty.of_pair([7, -7, 3], [7, -7, 3]) == 0
    assert uncertainty.of_pair([7, -7], [6, -6]) == pytest.approx(uncertainty.of_pair([1, -1], [0, 0]))


def test_it_does_not_hang_on_which_of_two_comes_first():
    assert uncertainty.of_pair([2, 5, 1], [1, 4, 2]) == pytest.approx(uncertainty.of_pair([1, 4, 2], [2, 5, 1]))


def test_heads_that_are_sure_and_of_two_minds_tell_a_whole_bit():
    assert uncertainty.of_pair([50, -50], [0, 0]) == pytest.approx(1)
    # One of four is of its own mind.
    assert uncertainty.of_pair([50, 50, 50, -50], [0, 0, 0, 0]) == pytest.approx(2 - 0.75 * log2(3))


def test_of_more_than_two_it_is_the_mean_over_pairs():
    rewards = [[0, 0.1], [1, 1.2], [5, 2.3]]
    pairs = [(0, 1), (0, 2), (1, 2)]
    told = fmean(uncertainty.of_pair(rewards[one], rewards[other]) for one, other in pairs)
    assert uncertainty.of_rewards(rewards) == pytest.approx(told)


@pytest.mark.parametrize("spread", [0, 1, 1e6, 1e30, 1e308])
def test_numbers_of_any_size_give_bits(spread):
    assert 0 <= uncertainty.of_pair(heads(1e6, spread), heads(-1e6, spread)) <= 1
    assert 0 <= uncertainty.of_pair(heads(1e6, spread), heads(-1e6, -spread)) <= 1
