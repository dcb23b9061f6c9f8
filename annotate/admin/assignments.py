"""Slots of work: read here, made and ended by what people do."""

from django.contrib import admin

from annotate.admin.reading import ReadOnly, state
from annotate.models import Assignment


@admin.register(Assignment)
class AssignmentAdmin(ReadOnly):
    """Who holds, held, sent and skipped what."""

    list_display = ("id", "work", state, "project", "round", "trainer", "held_at", "lease_until", "ended_at")
    list_filter = ("state", "kind", "skip_reason", "project")
    list_select_related = ("project", "iteration", "trainer")
    search_fields = ("=id", "trainer__email")
    search_help_text = "Number of the slot, or e-mail address of its trainer"
    ordering = ("-id",)

    @admin.display(description="kind")
    def work(self, assignment: Assignment) -> str:
        return assignment.kind

    @admin.display(description="iteration")
    def round(self, assignment: Assignment) -> int:
        return assignment.iteration.number
