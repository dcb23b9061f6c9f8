"""How much a ranking of a comparison's candidates would teach a reward model."""

from collections.abc import Sequence
from itertools import combinations
from math import log2, tanh
from statistics import fmean


def of_rewards(by_head: Sequence[Sequence[float]]) -> float:
    """The mean over all pairs of what is to be learnt from each, in bits from 0 to 1.

    `by_head` is of each candidate, two at least, what the heads give to it, in the same order of heads.
    """
    pairs = list(combinations(by_head, 2))
    return fmean(of_pair(one, other) for one, other in pairs)


def of_pair(one: Sequence[float], other: Sequence[float]) -> float:
    """What a person's choice between two candidates tells of which heads are right, in bits.

    How unsure the model is of the choice, less how unsure its heads are by themselves, on average: large where heads
    disagree, the more so where rewards are close, and 0 where all heads agree that it is a toss-up, as a person's
    choice is chance there and teaches nothing. People choose by a logistic function of the difference, as the loss of
    the reward model has it. What a head gives to both alike counts for nothing: no choice tells of it.

    BALD (Houlsby et al. 2011, arXiv 1112.5745).
    """
    chances = [_logistic(reward - of_other) for reward, of_other in zip(one, other, strict=True)]
    # Rounding may leave less than nothing.
    return max(0.0, _entropy(fmean(chances)) - fmean(map(_entropy, chances)))


def _logistic(difference: float) -> float:
    return 0.5 * (1 + tanh(difference / 2))


def _entropy(chance: float) -> float:
    """Of a choice with this chance, in bits."""
    if not 0 < chance < 1:
        return 0.0
    return -(chance * log2(chance) + (1 - chance) * log2(1 - chance))
