"""Rankings: read here."""

from django.contrib import admin

from annotate import rankings
from annotate.admin.reading import ReadOnly, ReadOnlyInline
from annotate.models import RankedCandidate, Ranking


def written(ranking: Ranking) -> str:
    """The order by numbers of candidates, as in `12 › 11 = 14 › 13`."""
    return " › ".join(" = ".join(map(str, tier)) for tier in rankings.tiers_of(ranking))


class PlacesInline(ReadOnlyInline):
    """The candidates in their order, best first."""

    model = RankedCandidate
    fields = ("rank", "candidate_number", "text", "rating", "flags")
    readonly_fields = ("candidate_number", "text")

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("candidate__completion").order_by("rank", "candidate_id")

    @admin.display(description="candidate")
    def candidate_number(self, place: RankedCandidate) -> int:
        return place.candidate_id

    def text(self, place: RankedCandidate) -> str:
        return place.candidate.completion.text


@admin.register(Ranking)
class RankingAdmin(ReadOnly):
    """What trainers found."""

    list_display = (
        "id",
        "comparison_id",
        "kind",
        "trainer",
        "order",
        "all_bad",
        "current",
        "active_seconds",
        "created_at",
    )
    list_filter = ("kind", "all_bad", "current", "comparison__project")
    list_select_related = ("trainer",)
    search_fields = ("=id", "=comparison__id", "trainer__email")
    search_help_text = "Number of the ranking or of its comparison, or e-mail address of its trainer"
    ordering = ("-id",)
    inlines = (PlacesInline,)

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("places")

    def order(self, ranking: Ranking) -> str:
        return written(ranking)
