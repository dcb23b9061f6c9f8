"""What the pages of all kinds of task show around the task itself."""

from django.conf import settings

from annotate import assignments
from trainers_ui import lists
from trainers_ui.views.sent import sent


def around(request, assignment, *, ended: bool) -> dict:
    """Context of task.html: project, guidelines of the iteration, today's tally, why one can skip."""
    return {
        "assignment": assignment,
        "project": assignment.project,
        "guidelines": assignment.iteration.guidelines,
        "ended": ended,
        "expired": assignment.state == "expired",
        "lease": settings.ASSIGNMENT_LEASE_SECONDS,
        "today": 0 if ended else sum(lists.done_today(request.user).values()),
        "skip_reasons": assignments.SkipReason.choices,
        "sent": sent(request),
    }
