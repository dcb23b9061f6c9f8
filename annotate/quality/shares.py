"""Shares of trials that come in clusters, with their errors: the pairs of one comparison are not independent."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the trials were hits."""

    value: float
    error: float | None
    """Its standard error; None where all is one cluster."""
    trials: float
    clusters: int


def of(clusters: Iterable[tuple[float, float]]) -> Share | None:
    """The share of hits among trials, from (hits, trials) of each cluster; None where there is no trial.

    A ratio of totals over clusters of unequal sizes with its linearised standard error (Cochran, Sampling Techniques,
    3rd edition 1977, chapter 9A), which Miller (2024, arXiv 2411.00640) recommends for evaluations of language models.
    """
    found = [(hits, trials) for hits, trials in clusters if trials]
    if not found:
        return None
    total = sum(trials for _, trials in found)
    value = sum(hits for hits, _ in found) / total
    error = None
    if len(found) > 1:
        squares = sum((hits - value * trials) ** 2 for hits, trials in found)
        error = sqrt(squares * len(found) / (len(found) - 1)) / total
    return Share(value=value, error=error, trials=total, clusters=len(found))
