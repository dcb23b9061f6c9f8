"""How little a reward model knows about the order of a comparison's candidates."""

from collections.abc import Sequence
from itertools import combinations
from math import exp, pi, sqrt


def of_rewards(rewards: Sequence[tuple[float, float]]) -> float:
    """The mean, over all pairs, of the chance that a person orders the pair otherwise than the mean rewards do.

    `rewards` are mean and spread (standard deviation over the heads) of each candidate, two at least. From 0, where all
    is known, to 0.5, where nothing is.
    """
    pairs = list(combinations(rewards, 2))
    return sum(of_pair(*one, *other) for one, other in pairs) / len(pairs)


def of_pair(reward: float, spread: float, other: float, other_spread: float) -> float:
    """The chance that a person prefers the one with the lower mean reward: large where rewards are close, and where
    heads disagree.

    People choose by a logistic function of the difference, as the loss of the reward model has it. The difference is
    taken as normal, with the squares of both spreads added up as its variance; the mean of the logistic function over
    a normal is approximated as by MacKay (1992, The evidence framework applied to classification networks). To ask for
    what a model knows least about is uncertainty sampling (Lewis and Gale 1994, arXiv cmp-lg/9407020); Christiano et
    al. (2017, arXiv 1706.03741) ask where an ensemble of reward models disagrees.
    """
    sharpness = 1 / sqrt(1 + pi / 8 * (spread**2 + other_spread**2))
    # The exponent is never above 0, so that it cannot overflow.
    odds = exp(-sharpness * abs(reward - other))
    return odds / (1 + odds)
