"""Slots of work: read here, made and ended by what people do."""

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html

from annotate.admin.reading import ReadOnly, state
from annotate.models import Assignment


@admin.register(Assignment)
class AssignmentAdmin(ReadOnly):
    """Who holds, held, sent and skipped what."""

    list_display = (
        "id", "work", state, "project", "round", "trainer", "waits_for", "own", "about", "held_at", "lease_until",
        "ended_at",
    )  # fmt: skip
    list_filter = ("state", "kind", "personal", "skip_reason", "project")
    list_select_related = ("project", "iteration", "trainer", "reserved_for")
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
        return str(assignment.reserved_for or "")

    @admin.display(description="personal")
    def own(self, assignment: Assignment) -> str:
        return "yes" if assignment.personal else ""

    @admin.display(description="subject", empty_value="")
    def about(self, assignment: Assignment) -> str:
        """The conversation that is reviewed, mended or revised."""
        if assignment.subject_id is None:
            return ""
        page = reverse("admin:annotate_conversation_change", args=[assignment.subject_id])
        return format_html('<a href="{}">{}</a>', page, assignment.subject_id)

    @admin.display(description="iteration")
    def round(self, assignment: Assignment) -> int:
        return assignment.iteration.number
