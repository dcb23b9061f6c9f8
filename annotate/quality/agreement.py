"""How far several rankings of the same candidates agree."""

from collections.abc import Sequence
from itertools import combinations


def of_ranks(rankings: Sequence[dict[int, int]]) -> float | None:
    """Of all pairs of candidates and pairs of rankings, the share on which both say the same: better, worse or tied.

    None where there are no two rankings. It is agreement as it is, not above chance: as InstructGPT gives it of its
    labelers, who agreed on 73 % of pairs.
    """
    if len(rankings) < 2:
        return None
    same = pairs = 0
    for one, other in combinations(rankings[0], 2):
        says = [(ranks[one] > ranks[other]) - (ranks[one] < ranks[other]) for ranks in rankings]
        same += sum(count * (count - 1) // 2 for count in map(says.count, (-1, 0, 1)))
        pairs += len(says) * (len(says) - 1) // 2
    return same / pairs if pairs else None
