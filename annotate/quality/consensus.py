"""One order out of several over the same candidates: by their median ranks.

That an order by medians is near to all of them, ties included, is shown by Fagin, Kumar, Mahdian, Sivakumar and Vee
(Comparing and aggregating rankings with ties, PODS 2004); one who ranks against all others moves it little. Ranks are
dense here, as everywhere: 0 is best, equal ranks are ties.
"""

from collections.abc import Sequence
from statistics import median


def of_ranks(rankings: Sequence[dict[int, int]]) -> dict[int, int]:
    """The dense rank of each candidate, by the median of its ranks; where even, by the mean of the middle two."""
    medians = {key: median(ranks[key] for ranks in rankings) for key in rankings[0]}
    place = {value: rank for rank, value in enumerate(sorted(set(medians.values())))}
    return {key: place[value] for key, value in medians.items()}


def by_majority(says: Sequence[bool]) -> bool:
    """Whether more than half of them say so."""
    return 2 * sum(says) > len(says)
