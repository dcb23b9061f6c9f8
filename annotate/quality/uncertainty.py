"""How much a ranking of a comparison's candidates would teach a reward model."""

from collections.abc import Sequence
from itertools import combinations
from math import erf, exp, log, log2, pi, sqrt

AS_NORMAL = sqrt(pi / 8)
"""The logistic function of x is near to the normal distribution's of x times this (MacKay 1992)."""
WIDTH = sqrt(pi * log(2) / 2)
"""Of the bell curve that stands for the entropy of a choice, as a function of the difference."""


def of_rewards(rewards: Sequence[tuple[float, float]]) -> float:
    """The mean over all pairs of what is to be learnt from each, in bits from 0 to 1.

    `rewards` are mean and spread (standard deviation over the heads) of each candidate, two at least.
    """
    pairs = list(combinations(rewards, 2))
    return sum(of_pair(*one, *other) for one, other in pairs) / len(pairs)


def of_pair(reward: float, spread: float, other: float, other_spread: float) -> float:
    """What a person's choice between two candidates tells of which heads are right, in bits.

    How unsure the model is of the choice, less how unsure its heads are by themselves, on average: large where heads
    disagree, the more so where rewards are close, and 0 where all heads agree that it is a toss-up, as a person's
    choice is chance there and teaches nothing. People choose by a logistic function of the difference, as the loss of
    the reward model has it; the difference is taken as normal, with the squares of both spreads added up as its
    variance.

    BALD, with the approximation of Houlsby et al. (2011, arXiv 1112.5745, section 3).
    """
    mean = AS_NORMAL * (reward - other)
    variance = AS_NORMAL**2 * (spread**2 + other_spread**2)
    of_model = _entropy(0.5 * (1 + erf(mean / sqrt(2 * (1 + variance)))))
    of_heads = WIDTH / sqrt(variance + WIDTH**2) * exp(-(mean**2) / (2 * (variance + WIDTH**2)))
    # The approximation is off by a hundredth of a bit, and may fall below what it stands for.
    return max(0.0, of_model - of_heads)


def _entropy(chance: float) -> float:
    """Of a choice with this chance, in bits."""
    if not 0 < chance < 1:
        return 0.0
    return -(chance * log2(chance) + (1 - chance) * log2(1 - chance))
