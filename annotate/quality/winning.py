"""How often people prefer what one policy says to what another one says: Bradley–Terry over rankings, with ties."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
DRAWS_OF_MORE = 1000
"""Where there are more than two policies a draw takes a quarter of a millisecond."""
SEED = 0
"""The same rankings give the same interval."""
AT_ONCE = 1_000_000
"""So many numbers of one kind are held in memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a comparison came out."""

    policies: tuple[int | None, ...]
    """By whom each candidate is; None where no policy wrote it."""
    rankings: tuple[tuple[int, ...], ...]
    """Of each ranking the ranks of these candidates; 0 is best, equal ranks are ties."""
    times: int = 1
    """Of how many comparisons this is so."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often a policy is preferred to another one; a tie is half."""

    value: float
    low: float
    high: float
    """The ends of the 95 % interval."""
    comparisons: int
    """In how many both had candidates."""
    better: int
    tied: int
    worse: int
    """Pairs of a candidate of the one and a candidate of the other, each ranking's own."""


def over(policy: int, outcomes: Sequence[Outcome]) -> dict[int, WinRate]:
    """The win rate of a policy over each other one that it met, directly or through others.

    Each pair of candidates of different policies is a match, a tie half a win for both, and all matches of one
    comparison weigh 1 together, however many candidates and rankings it has. In the model of Bradley and Terry
    (Biometrika 39, 1952) A wins against B with the chance p_A / (p_A + p_B); under the strengths p that make the
    matches most likely, that chance is the win rate.

    The interval is of the Bayesian bootstrap (Rubin, Annals of Statistics 9, 1981) over comparisons: in each draw
    every comparison weighs an amount of its own from Gamma(1). So that all is finite where one won everything, any two
    that met have half a match each way besides, which in the draws weighs Gamma(1/2). For two policies with one pair
    a comparison and no ties this is the interval of Jeffreys.
    """
    names, ways, times, counts = _matches(outcomes)
    if policy not in names:
        return {}
    totals = np.tensordot(times, ways, axes=1)
    there = _reached(totals + totals.T > 0, names.index(policy))
    if len(there) == 1:
        return {}
    me, ways, totals = there.index(names.index(policy)), ways[:, there][:, :, there], totals[np.ix_(there, there)]
    met = (totals + totals.T > 0).astype(float)
    values = _chances(totals[None] + met / 2, me)[0]
    drawn = np.concatenate([_chances(won, me, near=values) for won in _draws(ways, times, met)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    found = {}
    for place, number in enumerate(there):
        if place != me:
            comparisons, better, tied, worse = counts[:, there[me], number].tolist()
            found[names[number]] = WinRate(
                float(values[place]), float(low[place]), float(high[place]), comparisons, better, tied, worse
            )
    return found


def _matches(outcomes: Sequence[Outcome]) -> tuple[list[int], NDArray, NDArray, NDArray]:
    """The policies; the ways to come out (ways, policies, policies), of each what everyone won against everyone as a
    share of its matches; how many comparisons came out so (ways,); and of each two policies the comparisons with both,
    and the pairs in which the first was better, tied and worse (4, policies, policies)."""
    names = sorted({policy for one in outcomes for policy in one.policies if policy is not None})
    place = {name: number for number, name in enumerate(names)}
    alike = defaultdict(list)
    for one in outcomes:
        alike[len(one.policies), len(one.rankings)].append(one)
    shares, times = [np.zeros((0, len(names), len(names)))], [np.zeros(0, int)]
    counts = np.zeros((4, len(names), len(names)), int)
    for (k, rankings), some in alike.items():
        step = max(1, AT_ONCE // (k * k * rankings))
        for first in range(0, len(some), step):
            part = some[first : first + step]
            by = np.array([[place.get(policy, -1) for policy in one.policies] for one in part])
            better, tied = _pairs(by, np.array([one.rankings for one in part]), len(names))
            won = better + tied / 2
            matches = won.sum(axis=(1, 2), keepdims=True)
            many = np.array([one.times for one in part])
            counted = (won + won.transpose(0, 2, 1) > 0, better, tied, better.transpose(0, 2, 1))
            counts += np.array([np.tensordot(many, one, axes=1).round() for one in counted]).astype(int)
            shares.append(np.divide(won, matches, out=np.zeros_like(won), where=matches > 0))
            times.append(many)
    won, many = np.concatenate(shares), np.concatenate(times)
    with_matches = won.any(axis=(1, 2))
    # Many comparisons come out alike, and a draw is then quick, whatever the number of comparisons.
    ways, which = np.unique(won[with_matches].round(12), axis=0, return_inverse=True)
    return names, ways, np.bincount(which.reshape(-1), many[with_matches], len(ways)), counts


def _pairs(by: NDArray, ranks: NDArray, policies: int) -> tuple[NDArray, NDArray]:
    """Of comparisons with candidates `by` policies (comparisons, K) and `ranks` (comparisons, rankings, K): the pairs
    in which each policy was better than each other, and those in which they tied (comparisons, policies, policies)."""
    one, other = ranks[..., :, None], ranks[..., None, :]
    own = (by[..., None] == np.arange(policies)).astype(float)
    apart = 1 - np.eye(policies)
    return tuple(
        np.einsum("nap,nab,nbq->npq", own, says.sum(axis=1).astype(float), own, optimize=True) * apart
        for says in (one < other, one == other)
    )


def _reached(met: NDArray, place: int) -> list[int]:
    """The places that one gets to from this one by matches, itself too, in their order."""
    found, new = {place}, {place}
    while new:
        new = {int(other) for one in new for other in np.flatnonzero(met[one])} - found
        found |= new
    return sorted(found)


def _draws(ways: NDArray, times: NDArray, met: NDArray) -> Iterator[NDArray]:
    """What everyone won against everyone with the comparisons weighed anew (draws, policies, policies), in parts."""
    source = np.random.default_rng(SEED)
    draws = DRAWS if len(met) == 2 else DRAWS_OF_MORE
    step = max(1, AT_ONCE // len(ways))
    for first in range(0, draws, step):
        count = min(step, draws - first)
        # The weights of so many comparisons that came out alike, each from Gamma(1), together.
        weights = source.standard_gamma(times, (count, len(times)))
        besides = source.standard_gamma(0.5, (count, *met.shape))
        yield np.tensordot(weights, ways, axes=1) + besides * met


def _chances(won: NDArray, policy: int, near: NDArray | None = None) -> NDArray:
    """From what everyone won against everyone (draws, policies, policies): how likely this one is to win against each
    (draws, policies). With `near`, what it comes to about, it is quicker and right to three digits."""
    if won.shape[1] == 2:
        # What the model comes to; nearly all rounds have two policies.
        share = won[:, policy].sum(axis=1) / won.sum(axis=(1, 2))
        return np.where(np.arange(2) == policy, 0.5, share[:, None])
    # It brings SciPy, which takes memory and most of a second.
    import choix

    start, within = (None, 1e-8) if near is None else (np.log(1 / near - 1), 1e-3)
    strengths = np.array(
        [choix.ilsr_pairwise_dense(one, initial_params=start, max_iter=10_000, tol=within) for one in won]
    )
    return 1 / (1 + np.exp(strengths - strengths[:, [policy]]))
