"""Comparisons: read here."""

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from annotate import comparisons, prompts
from annotate.admin.rankings import written
from annotate.admin.reading import ReadOnly, ReadOnlyInline, linked, spoken, state
from annotate.models import Candidate, Comparison, Ranking


class CandidatesInline(ReadOnlyInline):
    """What is ranked, with its origin."""

    model = Candidate
    fields = ("text", "original", "policy", "ended_by")
    readonly_fields = ("text", "policy", "ended_by")

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("completion__request__policy").order_by("id")

    def text(self, candidate: Candidate) -> str:
        return candidate.completion.text

    def policy(self, candidate: Candidate) -> str:
        completion = candidate.completion
        return completion.request.policy.name if completion.request else f"imported {completion.model}".strip()

    def ended_by(self, candidate: Candidate) -> str:
        return candidate.completion.get_finish_reason_display() or "–"


class RankingsInline(ReadOnlyInline):
    """How it was ranked."""

    model = Ranking
    fields = ("trainer", "order", "all_bad", "counts", "active_seconds", "created_at")
    readonly_fields = ("order", "counts", "created_at")
    show_change_link = True

    def get_queryset(self, request):
        rows = super().get_queryset(request).select_related("trainer", "assignment").prefetch_related("places")
        return rows.order_by("id")

    def order(self, ranking: Ranking) -> str:
        return written(ranking)

    def counts(self, ranking: Ranking) -> str:
        return ranking.assignment.get_state_display() if ranking.assignment else ranking.get_kind_display()


@admin.register(Comparison)
class ComparisonAdmin(ReadOnly):
    """Contexts with their candidates and rankings."""

    list_display = (
        "id",
        state,
        "chosen",
        "project",
        "round",
        "k",
        "overlap",
        "reason",
        "created_at",
        "opened_at",
        "closed_at",
    )
    list_filter = ("state", "selection", "project")
    list_select_related = ("project", "iteration", "imported_in")
    search_fields = ("=id",)
    search_help_text = "Number of the comparison"
    ordering = ("-id",)
    fields = (
        "project",
        "iteration",
        "imported_in",
        "source_id",
        "state",
        "reason",
        "selected",
        "drawn_with",
        "context",
        "conversation",
        "k",
        "overlap",
        "draw_size",
        "draw_index",
        "draw_seed",
        "created_at",
        "opened_at",
        "closed_at",
    )
    inlines = (CandidatesInline, RankingsInline)

    @admin.display(description="selection")
    def chosen(self, comparison: Comparison) -> str:
        """A word, as the state is."""
        return comparison.selection if _was_selected(comparison) else "–"

    @admin.display(description="selection")
    def selected(self, comparison: Comparison) -> str:
        return comparison.get_selection_display() if _was_selected(comparison) else "–"

    @admin.display(description="iteration")
    def round(self, comparison: Comparison) -> int | str:
        return comparison.iteration.number if comparison.iteration else "imported"

    @admin.display(description="pool")
    def drawn_with(self, comparison: Comparison) -> SafeString:
        return linked(*Comparison.objects.filter(pool__isnull=False, pool=comparison.pool_id).order_by("id"))

    def conversation(self, comparison: Comparison) -> SafeString:
        message = comparison.message
        address = reverse("admin:annotate_conversation_change", args=[message.conversation_id])
        return format_html(
            '<a href="{}">Conversation {}, message {}</a>', address, message.conversation_id, message.position
        )

    def context(self, comparison: Comparison) -> SafeString:
        return spoken(prompts.render(comparisons.context(comparison)))


def _was_selected(comparison: Comparison) -> bool:
    """Whether its selection says anything: what was brought in was not drawn, but may have been chosen elsewhere."""
    return comparison.imported_in_id is None or comparison.selection != Comparison.Selection.RANDOM
