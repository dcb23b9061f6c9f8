"""How the K places of a comparison are shared between the policies of its round."""

import math
from collections.abc import Iterable
from fractions import Fraction

from annotate import derive


def shares(*, k: int, weights: dict[int, int], original: int | None = None) -> dict[int, Fraction]:
    """The places that each policy has on average: K in proportion to the weights.

    With an `original` that counts for its policy, that one has one place at least, whatever its weight; the others
    then share what is left. At least one weight is above 0.
    """
    total = sum(weights.values())
    if original in weights and k * weights[original] < total:
        others = {policy: weight for policy, weight in weights.items() if policy != original}
        return {original: Fraction(1)} | shares(k=k - 1, weights=others)
    return {policy: Fraction(k * weight, total) for policy, weight in weights.items() if weight}


def allot(
    *, secret: str, comparison_id: int, k: int, weights: dict[int, int], keeps_original: bool, original: int | None
) -> dict[int, int]:
    """How many texts to sample from each policy for one comparison, in the order in which they are asked for.

    With `keeps_original` the selected message has one of the K places. It counts for its policy, `original`, where
    that is one of the round's.

    Systematic sampling: the shares stand end to end on a line, from which one draw takes each whole step. So each
    policy has its share on average, and in no comparison one place more or less. The order on the line is drawn too:
    in one order that stays, policies with half a place each would never meet some of the others. Both are made from
    the project's secret and the comparison's id, so that they can be made again.
    """
    counts = keeps_original and original in weights
    exact = shares(
        k=k - 1 if keeps_original and not counts else k, weights=weights, original=original if counts else None
    )
    seed = derive.keyed(secret, "places", comparison_id)
    places = _steps(exact, order=sorted(exact, key=lambda policy: derive.digest_of(f"{seed}:{policy}")), seed=seed)
    if counts:
        places[original] -= 1
    return {policy: number for policy, number in places.items() if number}


def _steps(exact: dict[int, Fraction], *, order: Iterable[int], seed: str) -> dict[int, int]:
    start, end, places = Fraction(int(seed, 16), 16 ** len(seed)), Fraction(0), {}
    for policy in order:
        begin, end = end, end + exact[policy]
        places[policy] = math.ceil(end - start) - math.ceil(begin - start)
    return places
