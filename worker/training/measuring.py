"""How well a reward model foretells what trainers prefer, and beside it how well they foretell one another."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import comb, exp, log1p

from annotate.quality import agreement, calibration, shares
from worker.training.ranked import Comparison


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of which somebody prefers one, and by how much the model does."""

    comparison: int
    by: float
    """By how much more reward the preferred one has."""
    ranks_apart: int
    ratings_apart: int | None
    k: int
    iteration: int | None

    @property
    def right(self) -> float:
        """1 where the model prefers the same, a half where it cannot tell."""
        return 1.0 if self.by > 0 else 0.5 * (self.by == 0)


Rewards = dict[int, dict[int, tuple[float, float]]]
"""By comparison and candidate: the reward and its spread."""


def figures(comparisons: Sequence[Comparison], rewards: Rewards) -> dict:
    """What docs/training.md calls the figures of a split: plain numbers, None where there is nothing to tell."""
    pairs = [pair for one in comparisons for pair in pairs_of(one, rewards[one.pk])]
    same = shares.of(_same(one, rewards[one.pk]) for one in comparisons)
    spreads = [spread for one in comparisons for _, spread in rewards[one.pk].values()]
    return {
        "comparisons": len(comparisons),
        "rankings": sum(order.rankings for one in comparisons for order in one.orders),
        **_of_pairs(pairs),
        **_named("agreement", same),
        "spread": sum(spreads) / len(spreads) if spreads else None,
        "calibration": calibration.of(_told_both_ways(pairs)),
        "by_k": _by(pairs, lambda pair: pair.k),
        "by_ranks_apart": _by(pairs, lambda pair: pair.ranks_apart),
        "by_ratings_apart": _by(pairs, lambda pair: pair.ratings_apart),
        "by_iteration": _by(pairs, lambda pair: pair.iteration),
        "people": people(comparisons),
    }


def people(comparisons: Iterable[Comparison]) -> dict | None:
    """The same of trainers who ranked the same comparisons, each asked to foretell the others; None where there are
    none. A consensus tells how far its rankings agree, and no more."""
    several = [one for one in comparisons if sum(order.rankings for order in one.orders) > 1]
    same = shares.of(_same_of_people(one) for one in several)
    if same is None:
        return None
    right = agreement.foretelling([order.ranks for order in one.orders if order.rankings == 1] for one in several)
    return {"comparisons": same.clusters, **_named("accuracy", right), **_named("agreement", same)}


def pairs_of(comparison: Comparison, rewards: dict[int, tuple[float, float]]) -> Iterable[Pair]:
    """The strict pairs of each order."""
    for order in comparison.orders:
        for better, worse in permutations(order.ranks, 2):
            apart = order.ranks[worse] - order.ranks[better]
            if apart > 0:
                ratings = [order.ratings.get(one) for one in (better, worse)]
                yield Pair(
                    comparison=comparison.pk,
                    by=rewards[better][0] - rewards[worse][0],
                    ranks_apart=apart,
                    ratings_apart=None if None in ratings else ratings[0] - ratings[1],
                    k=len(order.ranks),
                    iteration=comparison.iteration,
                )


def _told_both_ways(pairs: Iterable[Pair]) -> Iterator[tuple[float, bool]]:
    """That the one is better, which is so, and that the other is: which one is named first must not matter, as the
    candidates of imported comparisons may stand in the order of their ranks."""
    for pair in pairs:
        yield _chance(pair.by), True
        yield _chance(-pair.by), False


def _chance(difference: float) -> float:
    """σ(difference), which large ones do not overflow."""
    if difference >= 0:
        return 1 / (1 + exp(-difference))
    return exp(difference) / (1 + exp(difference))


def _surprise(difference: float) -> float:
    """−log σ(difference)."""
    return log1p(exp(-difference)) if difference >= 0 else log1p(exp(difference)) - difference


def _of_pairs(pairs: Sequence[Pair]) -> dict:
    clusters: dict[int, list[float]] = {}
    for pair in pairs:
        clusters.setdefault(pair.comparison, []).append(pair.right)
    right = shares.of((sum(held), len(held)) for held in clusters.values())
    surprise = sum(_surprise(pair.by) for pair in pairs) / len(pairs) if pairs else None
    return {"pairs": len(pairs), **_named("accuracy", right), "log_loss": surprise}


def _by(pairs: Sequence[Pair], key: Callable[[Pair], int | None]) -> dict[str, dict]:
    held: dict[int, list[Pair]] = {}
    for pair in pairs:
        value = key(pair)
        if value is not None:
            held.setdefault(value, []).append(pair)
    return {str(value): _of_pairs(held[value]) for value in sorted(held)}


def _same(comparison: Comparison, rewards: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """On how many pairs, tied ones too, the model says what an order says."""
    by_reward = {candidate: -reward for candidate, (reward, _) in rewards.items()}
    found = [agreement.of_pairs([order.ranks, by_reward]) for order in comparison.orders]
    return sum(same for same, _ in found), sum(pairs for _, pairs in found)


def _same_of_people(comparison: Comparison) -> tuple[float, float]:
    orders = [order.ranks for order in comparison.orders if order.rankings == 1]
    complete = [ranks for ranks in orders if len(ranks) == len(comparison.texts)]
    same, trials = agreement.of_pairs(complete)
    hits = float(same)
    for order in comparison.orders:
        if order.agreement is not None:
            told = comb(len(order.ranks), 2) * comb(order.rankings, 2)
            hits, trials = hits + order.agreement * told, trials + told
    return hits, trials


def _named(name: str, share: shares.Share | None) -> dict:
    return {name: share and share.value, f"{name}_error": share and share.error}
