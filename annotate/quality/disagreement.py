"""How far a reward model and the people who ranked differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotate.models import Assignment, RankedCandidate, Ranking, Score, TrainingRun
from annotate.quality import agreement


@dataclass(frozen=True, slots=True)
class Difference:
    """Of so many pairs that people ordered, those that the model orders the other way round; a tie of its is half."""

    reversed: float = 0.0
    pairs: int = 0

    @property
    def share(self) -> float | None:
        """0 to 1; None where there is no pair."""
        return self.reversed / self.pairs if self.pairs else None

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(self.reversed + other.reversed, self.pairs + other.pairs)


def of_ranks(ranks: Mapping[int, int], rewards: Mapping[int, float]) -> Difference:
    """Between one ranking (0 is best) and rewards, by candidate. Pairs with a candidate that has no reward are out, and
    so are those that the ranking has tied."""
    hits, pairs = agreement.foretold(dict(ranks), {candidate: -reward for candidate, reward in rewards.items()})
    return Difference(pairs - hits, pairs)


def of_comparisons(comparisons: Sequence[int], run: TrainingRun) -> dict[int, Difference]:
    """Between all current rankings of each comparison that count, together, and what the run's model gives. Those of
    which it scores nothing are left out. Two queries for any number."""
    rewards: dict[int, dict[int, float]] = {}
    scored = Score.objects.filter(run=run, reward__isnull=False, candidate__comparison__in=comparisons)
    for comparison, candidate, reward in scored.values_list("candidate__comparison", "candidate", "reward"):
        rewards.setdefault(comparison, {})[candidate] = reward
    ranks: dict[tuple[int, int], dict[int, int]] = {}
    places = RankedCandidate.objects.filter(ranking__current=True, ranking__comparison__in=list(rewards))
    counting = places.filter(ranking__assignment__state=Assignment.State.SUBMITTED) | places.filter(
        ranking__kind=Ranking.Kind.IMPORTED
    )
    for comparison, ranking, candidate, rank in counting.values_list(
        "ranking__comparison", "ranking", "candidate", "rank"
    ):
        ranks.setdefault((comparison, ranking), {})[candidate] = rank
    found = dict.fromkeys(rewards, Difference())
    for (comparison, _), places_of in ranks.items():
        found[comparison] += of_ranks(places_of, rewards[comparison])
    return found
