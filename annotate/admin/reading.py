"""What the lists and pages of the admin site have in common: they are quick with many rows, and mostly for reading."""

from collections.abc import Iterable

from django.contrib import admin
from django.core.paginator import Paginator
from django.db import models
from django.template.defaultfilters import linebreaks_filter
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

MOST = 10_000
"""Rows that a list counts and turns pages through; what lies further is found by filter and search."""


class CappedPaginator(Paginator):
    """Counts no further than MOST: a count of millions would be slower than everything else on the page."""

    @cached_property
    def count(self) -> int:
        return self.object_list.order_by().values("pk")[:MOST].count()


class Listed(admin.ModelAdmin):
    """A list that stays quick with millions of rows: in the order of its index only."""

    paginator = CappedPaginator
    show_full_result_count = False
    # Facets would count the rows of every filter.
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    list_per_page = 50


class ReadOnly(Listed):
    """Nothing is added, changed or deleted by hand."""

    def has_add_permission(self, request, obj=None) -> bool:
        return False

    def has_change_permission(self, request, obj=None) -> bool:
        return False

    def has_delete_permission(self, request, obj=None) -> bool:
        return False


@admin.display(description="state")
def state(row) -> str:
    """The state as a word; the sentence that explains it would fill a column."""
    return row.state


class ReadOnlyInline(admin.TabularInline):
    """Rows of another table on the page of what they belong to."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request, obj=None) -> bool:
        return False

    def has_change_permission(self, request, obj=None) -> bool:
        return False


def linked(*rows: models.Model | None) -> SafeString:
    """The pages of these rows as links, a dash where there is none."""
    there = [row for row in rows if row is not None]
    if not there:
        return format_html("{}", "–")
    pages = ((reverse(f"admin:annotate_{row._meta.model_name}_change", args=[row.pk]), str(row)) for row in there)
    return format_html_join(", ", '<a href="{}">{}</a>', pages)


def spoken(messages: Iterable[dict[str, str]]) -> SafeString:
    """Messages, each `{"role", "content"}`, as paragraphs."""
    parts = ((one["role"], linebreaks_filter(one["content"])) for one in messages)
    return format_html_join("", "<div><strong>{}</strong>{}</div>", parts)


def duration(seconds: float) -> str:
    """To the precision that a look needs: 0.4 s, 12 s, 5 min, 3 h, 4 days."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    for unit, size, up_to in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < up_to:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} days"
