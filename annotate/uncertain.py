"""Uncertain comparisons: of each pool the one is ranked from which the reward model would learn most.

A pool is drawn uniformly, in the same way as comparisons that are drawn by themselves, and all its messages leave the
set that is drawn from, whichever is chosen. So no score decides what is left, and later draws from it are as uniform as
if the pool had been drawn at random and thrown away.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, FilteredRelation, OuterRef, Q, QuerySet
from django.utils import timezone

from annotate import comparisons, scores
from annotate.errors import Invalid
from annotate.models import Candidate, Comparison, GenerationRequest, Iteration, Project, Score, TrainingRun
from annotate.quality import uncertainty

POOLS_AT_ONCE = 100
POOL_SIZES = range(2, 51)

State, Selection = Comparison.State, Comparison.Selection


def sample(
    *, project: Project, count: int, share: float = 0.5, pool_size: int = 4, messages: str = "any"
) -> list[Comparison]:
    """Up to `count` new comparisons for people, a `share` of them (above 0, at most 1) chosen from pools.

    The others are drawn first, as `comparisons.sample` draws that many alone. Returns all that were begun, those of
    pools too: of each pool one will be ranked. Raises Invalid where no reward model scores the project's comparisons,
    its heads cannot disagree, or the numbers make no sense; Conflict where no iteration is open.
    """
    if not 0 < share <= 1:
        raise Invalid("The share is above 0 and at most 1.")
    if pool_size not in POOL_SIZES:
        raise Invalid(f"A pool has {POOL_SIZES[0]} to {POOL_SIZES[-1]} comparisons.")
    _check_scores(project)
    at_random = round((1 - share) * count)
    if at_random == count:
        raise Invalid(f"A share of {share:g} of {count} is none: draw more, or give them a larger share.")
    return comparisons.sample(
        project=project, count=at_random, messages=messages, pools=count - at_random, pool_size=pool_size
    )


def _check_scores(project: Project) -> None:
    run: TrainingRun | None = project.scored_by
    if run is None:
        raise Invalid(
            f"No reward model scores the comparisons of {project.slug}, so that none is known to be uncertain. "
            "Train one and choose it on the project's page."
        )
    if trouble := scores.trouble(run):
        raise Invalid(
            f"The reward model of {project.slug} does not score now: {trouble.rstrip('.')}. A worker that listens to "
            "the queue training tries again every few minutes."
        )
    if run.metrics.get("heads", 1) < 2:
        raise Invalid(
            f"The reward model of run {run.pk} has one head, which has nobody to disagree with. "
            "Train one with --heads 4, or choose another on the project's page."
        )


def choose_ready(*, pools: Collection[int] | None = None) -> int:
    """Of each pool in which nothing is being sampled and all is scored, open the one from which most is to be learnt,
    and pass over the others. How many pools were decided.

    With `pools` only these are looked at: to look at all takes longer, the more of them wait.

    Where nothing scores the project any more, or scores have not come for POOL_PATIENCE_HOURS, the first one that was
    drawn opens: that is a random one. Safe to call at any time and twice at once. Call it outside of transactions.
    """
    member = Comparison.objects.filter(pool=OuterRef("pool"), state=State.SAMPLING)
    unsampled = member.filter(~Exists(Candidate.objects.filter(comparison=OuterRef("pk"))))
    alone = ~Exists(member.exclude(pk=OuterRef("pk")))
    waiting = Comparison.objects.filter(
        ~Exists(unsampled), pool__isnull=False, state=State.SAMPLING, iteration__state=Iteration.State.OPEN
    )
    if pools is not None:
        waiting = waiting.filter(pool__in=pools)
    ready = waiting.filter(~Exists(_unscored()) | alone | Q(project__scored_by=None) | ~Exists(_recent()))
    found = list(ready.order_by("pool_id").values_list("pool_id", flat=True).distinct()[:POOLS_AT_ONCE])
    return sum(_choose(pool) for pool in found)


def _unscored() -> QuerySet[Candidate]:
    """The candidates of the pool of an outer comparison that its project's reward model has not looked at."""
    by_run = Score.objects.filter(run=OuterRef("comparison__project__scored_by"), candidate=OuterRef("pk"))
    return Candidate.objects.filter(
        ~Exists(by_run), comparison__pool=OuterRef("pool"), comparison__state=State.SAMPLING
    )


def _recent() -> QuerySet[GenerationRequest]:
    """The requests of the pool of an outer comparison that ended too lately to give up waiting for scores."""
    since = timezone.now() - timedelta(hours=settings.POOL_PATIENCE_HOURS)
    return GenerationRequest.objects.filter(comparison__pool=OuterRef("pool"), ended_at__gt=since)


@transaction.atomic
def _choose(pool: int) -> bool:
    # All rows of the pool, failed ones too, in one order: who tries one of them again waits, or is waited for.
    members = Comparison.objects.select_for_update(no_key=True, of=("self",)).filter(pool=pool).order_by("id")
    members = members.select_related("project", "iteration")
    waiting = [one for one in members if one.state == State.SAMPLING]
    if not waiting or waiting[0].iteration.state != Iteration.State.OPEN:
        return False
    run = waiting[0].project.scored_by_id
    scores = _scores(waiting, run)
    if not all(scores.values()):
        # One of them is being sampled again.
        return False
    scored = all(one.there for found in scores.values() for one in found)
    if scored or len(waiting) == 1:
        _open_most_telling(waiting, {pk: _figure(found) for pk, found in scores.items()}, run)
    else:
        chosen, *others = waiting
        comparisons.open_for_ranking(chosen)
        some = any(one.there for found in scores.values() for one in found)
        why = "not all are scored" if some else "none is scored"
        for other in others:
            _pass_over(other, f"Comparison {chosen.pk} was chosen instead, as the first that was drawn: {why}.")
    return True


@dataclass(frozen=True, slots=True)
class _Scored:
    """What is known of a candidate: nothing yet, that it is too long to be scored, or what the heads give to it."""

    there: bool
    by_head: list[float] | None


def _scores(waiting: list[Comparison], run: int | None) -> dict[int, list[_Scored]]:
    """By comparison what the run's reward model says of its candidates; an empty list where it has none yet."""
    found: dict[int, list[_Scored]] = {one.pk: [] for one in waiting}
    candidates = Candidate.objects.filter(comparison__in=waiting).annotate(
        by_run=FilteredRelation("scores", condition=Q(scores__run=run))
    )
    for comparison, score, by_head in candidates.values_list("comparison_id", "by_run__id", "by_run__by_head"):
        found[comparison].append(_Scored(score is not None, by_head))
    return found


def _figure(found: list[_Scored]) -> float | None:
    """How much is to be learnt from a comparison; None where a text of it has no score."""
    by_head = [one.by_head for one in found if one.by_head is not None]
    return uncertainty.of_rewards(by_head) if len(by_head) == len(found) else None


def _open_most_telling(waiting: list[Comparison], figures: dict[int, float | None], run: int | None) -> None:
    """Open the one with the highest figure; of the same the one that was drawn first, and what has none comes last."""
    chosen = max(waiting, key=lambda one: -1 if figures[one.pk] is None else figures[one.pk])
    comparisons.open_for_ranking(chosen, Selection.UNCERTAIN)
    for other in waiting:
        if other is not chosen:
            # No figure: reviewers read this, who may rank the other one.
            why = "cannot score this one" if figures[other.pk] is None else "learns more from it"
            _pass_over(other, f"Comparison {chosen.pk} was chosen instead: the model of run {run} {why}.")


def _pass_over(comparison: Comparison, reason: str) -> None:
    comparison.state, comparison.reason = State.PASSED_OVER, reason
    comparison.save(update_fields=["state", "reason"])
