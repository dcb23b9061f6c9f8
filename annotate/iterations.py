"""Iterations: rounds with fixed policies and settings."""

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from annotate import reviews
from annotate.errors import Conflict, Invalid
from annotate.models import Assignment, Comparison, GenerationRequest, Iteration, Project


@transaction.atomic
def open_next(*, project: Project) -> Iteration:
    """Open the next round with the project's settings as they stand now. Later changes count from the next one on.

    Raises Invalid where the project has no active policy, Conflict where a round is open.
    """
    policies = list(project.policies.filter(active=True).order_by("id"))
    if not policies:
        raise Invalid(f"Give project {project.slug} an active policy first.")
    number = (project.iterations.aggregate(last=Max("number"))["last"] or 0) + 1
    try:
        with transaction.atomic():
            iteration = Iteration.objects.create(
                project=project,
                number=number,
                k=project.k,
                overlap=project.overlap,
                sampling=project.sampling(),
                reply_policy=policies[0],
                guidelines=project.guideline_versions.order_by("-number").first(),
            )
    except IntegrityError:
        raise Conflict(f"Project {project.slug} has an open iteration already.") from None
    iteration.policies.set(policies)
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
            if held or sampling:
                continue
            now = timezone.now()
            iteration.comparisons.filter(state=Comparison.State.OPEN).update(
                state=Comparison.State.CLOSED, closed_at=now
            )
            closed += Iteration.objects.filter(pk=iteration.pk, state=Iteration.State.CLOSING).update(
                state=Iteration.State.CLOSED, closed_at=now
            )
    return closed
