"""Scores: what a reward model gives to candidates. What computes them is `worker.scoring`.

They are worked out beside everything else, and shown to nobody who may still rank: see `access.scored_for`.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

import redis
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet

from annotate import bell, streams, training
from annotate.errors import Conflict, Invalid
from annotate.models import Candidate, Comparison, Project, Score, TrainingRun

logger = logging.getLogger(__name__)

Reward = tuple[float, float]
"""The mean over the heads, and their standard deviation."""

SCORED = (Comparison.State.SAMPLING, Comparison.State.OPEN, Comparison.State.CLOSED)
"""Comparisons whose candidates are scored, the most urgent first: what is chosen by its scores waits for them."""

MOST_COUNTED = 10_000
"""What is missing is counted no further."""


def runs_of(project: Project) -> QuerySet[TrainingRun]:
    """The runs that made a reward model of this project, the newest first."""
    found = TrainingRun.objects.filter(project=project, kind=TrainingRun.Kind.REWARD, state=TrainingRun.State.DONE)
    return found.order_by("-id")


def run_of(*, project: Project, number: str = "") -> TrainingRun:
    """The run whose reward model is to score: the one of this number, else the one that the project has chosen.

    Raises NotFound, Invalid where it made no reward model of the project, Conflict where none is chosen.
    """
    if not number:
        if project.scored_by is None:
            raise Conflict(f"Project {project.slug} has no reward model that scores. Choose one, or name a --run.")
        return project.scored_by
    run = training.named(number)
    if not runs_of(project).filter(pk=run.pk).exists():
        what = f"of project {run.project.slug}, {run.kind} and {run.state}"
        raise Invalid(f"Run {run.pk} is {what}; what scores is a reward run of {project.slug} that is done.")
    return run


@transaction.atomic
def score_by(*, project: Project, run: TrainingRun | None) -> None:
    """Have this reward model score the project's candidates from now on; None, that nothing is scored."""
    Project.objects.filter(pk=project.pk).update(scored_by=run)
    project.scored_by = run
    if run is not None:
        bell.ring_for_scores(project.pk)


def missing(*, project: Project, run: TrainingRun, limit: int) -> list[Candidate]:
    """Candidates that this run has not scored, at most `limit`, each with its completion and comparison.

    The most urgent comparisons first, of those the newest. Imported ones are left out: they came with their ranking.
    """
    scored = Score.objects.filter(run=run, candidate=OuterRef("pk"))
    left = Candidate.objects.filter(~Exists(scored), comparison__project=project, comparison__imported_in=None)
    left = left.select_related("completion", "comparison__message").order_by("-comparison_id", "id")
    found: list[Candidate] = []
    for state in SCORED:
        if len(found) < limit:
            found += left.filter(comparison__state=state)[: limit - len(found)]
    return found


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the scoring of a project is, in candidates."""

    scored: int
    unreadable: int
    """Too long for the model, or refused by its chat template: never scored."""
    missing: int
    """At most MOST_COUNTED."""


def counts(*, project: Project, run: TrainingRun) -> Counts:
    """How many candidates the run has scored, and how many are left."""
    # What a run has scored is all of its own project: see `run_of`.
    kept = Score.objects.filter(run=run).aggregate(all=Count("pk"), scored=Count("reward"))
    scored = Score.objects.filter(run=run, candidate=OuterRef("pk"))
    wanted = Candidate.objects.filter(comparison__project=project, comparison__state__in=SCORED)
    left = wanted.filter(~Exists(scored), comparison__imported_in=None)
    return Counts(
        scored=kept["scored"],
        unreadable=kept["all"] - kept["scored"],
        missing=left.values("pk")[:MOST_COUNTED].count(),
    )


def keep(*, run: TrainingRun, by_head: Mapping[int, Sequence[float] | None]) -> None:
    """Keep what the heads give by candidate; None says that the model cannot read it, so that it is not tried again.

    What was kept before stays: whoever comes late with the same candidates changes nothing. What is no number counts
    as None.
    """
    Score.objects.bulk_create(
        (
            Score(run=run, candidate_id=candidate, reward=fmean(rewards), spread=pstdev(rewards), by_head=list(rewards))
            if rewards is not None and all(map(math.isfinite, rewards))
            else Score(run=run, candidate_id=candidate)
            for candidate, rewards in by_head.items()
        ),
        ignore_conflicts=True,
    )


def of_comparison(*, comparison: Comparison, run: TrainingRun) -> dict[int, Reward | None]:
    """What the run has given to a comparison's candidates so far, by candidate; None where it cannot read one."""
    found = Score.objects.filter(run=run, candidate__comparison=comparison)
    return {
        candidate: None if reward is None else (reward, spread)
        for candidate, reward, spread in found.values_list("candidate_id", "reward", "spread")
    }


# What workers and the sweep say to each other: in Redis, and lost without harm ---------------------------------------

RING_AGAIN_SECONDS = 60
"""How often the sweep rings for one project: to find that nothing is missing costs more than other bells do."""
HOLD_SECONDS = 30
"""After so many seconds without a word, whoever scored a project is thought to be dead."""
TROUBLE_SECONDS = 3600
"""So long it is told why a model does not score."""


def ring_for_missing() -> int:
    """Ring for projects that are scored, each once in a while. How many were rung for."""
    rung = 0
    for project_id in Project.objects.filter(scored_by__isnull=False).values_list("pk", flat=True):
        try:
            due = streams.client().set(f"bothsides:scores:rung:{project_id}", "", nx=True, ex=RING_AGAIN_SECONDS)
        except redis.RedisError:
            return rung
        if due:
            bell.ring_for_scores_now(project_id)
            rung += 1
    return rung


def hold(*, project_id: int, holder: str) -> bool:
    """Whether this holder is the one that scores a project now, for HOLD_SECONDS from now on.

    It spares work, no more: two that score the same do no harm. So where Redis does not answer everybody may.
    """
    key = f"bothsides:scores:held:{project_id}"
    try:
        if streams.client().set(key, holder, nx=True, ex=HOLD_SECONDS):
            return True
        return streams.client().get(key) == holder and bool(streams.client().expire(key, HOLD_SECONDS))
    except redis.RedisError:
        return True


def let_go(*, project_id: int, holder: str) -> None:
    """Let another score the project at once."""
    key = f"bothsides:scores:held:{project_id}"
    try:
        if streams.client().get(key) == holder:
            streams.client().delete(key)
    except redis.RedisError as error:
        logger.warning("Scoring is free again after %s s only: %s", HOLD_SECONDS, error)


def tell_trouble(*, run: TrainingRun, reason: str) -> None:
    """Keep for the project's page why a worker cannot score with this run's model; empty, that it can."""
    key = f"bothsides:scores:trouble:{run.pk}"
    try:
        if reason:
            streams.client().set(key, reason, ex=TROUBLE_SECONDS)
        else:
            streams.client().delete(key)
    except redis.RedisError as error:
        logger.warning("The page of the project does not hear of it: %s", error)


def trouble(run: TrainingRun) -> str:
    """Why a worker could not score with this run's model when it last tried; empty where none is known."""
    try:
        return streams.client().get(f"bothsides:scores:trouble:{run.pk}") or ""
    except redis.RedisError:
        return ""
