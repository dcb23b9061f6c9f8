"""Slots of work: read here, made and ended by what people do."""

from django.contrib import admin
from django.utils.formats import date_format
from django.utils.timezone import localtime

from annotate.admin.reading import ReadOnly, linked, state
from annotate.models import Assignment


@admin.register(Assignment)
class AssignmentAdmin(ReadOnly):
    """Who holds, held, sent and skipped what."""

    list_display = (
        "id", "work", state, "project", "round", "trainer", "waits_for", "personal", "about", "held_at", "lease_until",
        "ended_at",
    )  # fmt: skip
    list_filter = ("state", "kind", "personal", "skip_reason", "project")
    list_select_related = ("project", "iteration", "trainer", "reserved_for", "subject")
    search_fields = ("=id", "=subject__id", "trainer__email", "reserved_for__email")
    search_help_text = (
        "Number of the slot or of the conversation that is reviewed or mended, or e-mail address of its trainer or of "
        "whom it waits for"
    )
    ordering = ("-id",)

    @admin.display(description="kind")
    def work(self, assignment: Assignment) -> str:
        return assignment.kind

    @admin.display(description="reserved for")
    def waits_for(self, assignment: Assignment) -> str:
        """Whom it is reserved for, and until when."""
        if assignment.reserved_for is None:
            return ""
        if assignment.reserved_until is None:
            return str(assignment.reserved_for)
        return f"{assignment.reserved_for}, until {date_format(localtime(assignment.reserved_until), 'j F, H:i')}"

    @admin.display(description="subject")
    def about(self, assignment: Assignment) -> str:
        return linked(assignment.subject) if assignment.subject else ""

    @admin.display(description="iteration")
    def round(self, assignment: Assignment) -> int:
        return assignment.iteration.number
