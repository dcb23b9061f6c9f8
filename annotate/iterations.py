"""Iterations: rounds with fixed policies and settings."""

from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from annotate import reviews
from annotate.errors import Conflict, Invalid
from annotate.models import (
    Assignment,
    Comparison,
    GenerationRequest,
    Iteration,
    IterationPolicy,
    Policy,
    Project,
    ProjectPolicy,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next round of a project samples from, and which policy trainers chat with."""

    weights: dict[Policy, int]
    reply_policy: Policy


def plan(*, project: Project) -> Plan:
    """The active policies of a project with their weights, as the next round will copy them.

    Raises Invalid where none is active, the one that trainers are to chat with is not, or all weights are 0.
    """
    rows = list(ProjectPolicy.objects.filter(project=project).select_related("policy").order_by("id"))
    active = [row for row in rows if row.policy.active]
    if not active:
        raise Invalid(f"Give project {project.slug} an active policy first.")
    chosen = next((row for row in rows if row.replies), active[0])
    if not chosen.policy.active:
        raise Invalid(
            f"Trainers of project {project.slug} are to chat with {chosen.policy}, which is inactive: "
            "switch it on or choose another one first."
        )
    if not any(row.weight for row in active):
        raise Invalid(f"All active policies of project {project.slug} have weight 0: give one of them more first.")
    return Plan(weights={row.policy: row.weight for row in active}, reply_policy=chosen.policy)


@transaction.atomic
def open_next(*, project: Project) -> Iteration:
    """Open the next round with the project's settings as they stand now. Later changes count from the next one on.

    Raises Invalid where its policies do not do (see `plan`), Conflict where a round is open.
    """
    planned = plan(project=project)
    number = (project.iterations.aggregate(last=Max("number"))["last"] or 0) + 1
    try:
        with transaction.atomic():
            iteration = Iteration.objects.create(
                project=project,
                number=number,
                k=project.k,
                overlap=project.overlap,
                sampling=project.sampling(),
                keeps_original=project.keeps_original,
                reply_policy=planned.reply_policy,
                guidelines=project.guideline_versions.order_by("-number").first(),
            )
    except IntegrityError:
        raise Conflict(f"Project {project.slug} has an open iteration already.") from None
    IterationPolicy.objects.bulk_create(
        IterationPolicy(iteration=iteration, policy=policy, weight=weight) for policy, weight in planned.weights.items()
    )
    reviews.give_back_again(project=project)
    return iteration


@transaction.atomic
def close(*, iteration: Iteration) -> None:
    """Hand out nothing more. Held work may still come in; the sweep closes the round when none is left."""
    changed = Iteration.objects.filter(pk=iteration.pk, state=Iteration.State.OPEN).update(
        state=Iteration.State.CLOSING
    )
    if not changed:
        raise Conflict("Only an open iteration can be closed.")
    withdraw_free(iteration_id=iteration.pk)


def withdraw_free(*, iteration_id: int) -> int:
    """Take back the free slots of a round that is being closed. What was written is still reviewed."""
    free = Assignment.objects.filter(iteration_id=iteration_id, state=Assignment.State.FREE)
    return free.exclude(kind=Assignment.Kind.REVIEW).update(state=Assignment.State.WITHDRAWN, ended_at=timezone.now())


def close_finished() -> int:
    """Close rounds that are closing and have no held work, no review and no sampling left. How many were closed."""
    closed = 0
    for iteration in Iteration.objects.filter(state=Iteration.State.CLOSING):
        with transaction.atomic():
            # A skip that ran beside the closing may have made a slot after the free ones were taken back.
            withdraw_free(iteration_id=iteration.pk)
            # After the withdrawal only reviews are still free.
            held = iteration.assignments.filter(state__in=[Assignment.State.HELD, Assignment.State.FREE]).exists()
            sampling = GenerationRequest.objects.filter(
                comparison__iteration=iteration,
                state__in=[GenerationRequest.State.WAITING, GenerationRequest.State.CLAIMED],
            ).exists()
            # What is left of pools ends when it is settled, which the sweep does first.
            if held or sampling or iteration.comparisons.filter(state=Comparison.State.SAMPLING).exists():
                continue
            now = timezone.now()
            iteration.comparisons.filter(state=Comparison.State.OPEN).update(
                state=Comparison.State.CLOSED, closed_at=now
            )
            closed += Iteration.objects.filter(pk=iteration.pk, state=Iteration.State.CLOSING).update(
                state=Iteration.State.CLOSED, closed_at=now
            )
    return closed
