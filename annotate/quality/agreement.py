"""How far several rankings of the same candidates agree."""

from collections.abc import Iterable, Sequence
from itertools import combinations, permutations

from annotate.quality import shares
from annotate.quality.shares import Share


def of_ranks(rankings: Sequence[dict[int, int]]) -> float | None:
    """Of all pairs of candidates and pairs of rankings, the share on which both say the same: better, worse or tied.

    None where there are no two rankings. It is agreement as it is, not above chance: as InstructGPT gives it of its
    labelers, who agreed on 73 % of pairs.
    """
    same, pairs = of_pairs(rankings)
    return same / pairs if pairs else None


def of_pairs(rankings: Sequence[dict[int, int]]) -> tuple[int, int]:
    """What `of_ranks` is made of: on how many pairs two rankings say the same, and of how many. Each ranking has all
    candidates of the first."""
    same = pairs = 0
    if len(rankings) > 1:
        for one, other in combinations(rankings[0], 2):
            says = [(ranks[one] > ranks[other]) - (ranks[one] < ranks[other]) for ranks in rankings]
            same += sum(count * (count - 1) // 2 for count in map(says.count, (-1, 0, 1)))
            pairs += len(says) * (len(says) - 1) // 2
    return same, pairs


def foretold(ranks: dict[int, int | float], by: dict[int, int | float]) -> tuple[float, int]:
    """How many strict pairs of `ranks` another order has the same way, and of how many; a tie of the other is half.

    It is the accuracy of the other where it is asked which of two is better, and tosses a coin where it cannot tell.
    """
    hits, pairs = 0.0, 0
    for better, worse in permutations(ranks, 2):
        if ranks[better] < ranks[worse] and better in by and worse in by:
            pairs += 1
            hits += 1.0 if by[better] < by[worse] else 0.5 * (by[better] == by[worse])
    return hits, pairs


def between(comparisons: Iterable[Sequence[dict[int, int]]]) -> Share | None:
    """`of_ranks` over many comparisons, each a cluster; None where none was ranked twice."""
    return shares.of(of_pairs(rankings) for rankings in comparisons)


def foretelling(comparisons: Iterable[Sequence[dict[int, int]]]) -> Share | None:
    """How often one trainer foretells which of two completions another one prefers, over many comparisons, each a
    cluster: the most that a model which learns from them can be expected to. None where none was ranked twice."""
    return shares.of(_foretold(rankings) for rankings in comparisons)


def _foretold(rankings: Sequence[dict[int, int]]) -> tuple[float, int]:
    found = [foretold(one, other) for one, other in permutations(rankings, 2)]
    return sum(hits for hits, _ in found), sum(pairs for _, pairs in found)
