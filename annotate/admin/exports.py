"""Exports: read here, made by `manage.py export`."""

from django.contrib import admin

from annotate.admin.reading import ReadOnly
from annotate.models import Export


@admin.register(Export)
class ExportAdmin(ReadOnly):
    """Each dataset as it was written."""

    list_display = ("id", "project", "round", "what", "format", "rows", "digest", "created_at")
    list_filter = ("format", "project")
    list_select_related = ("project", "iteration")
    search_fields = ("digest",)
    ordering = ("-id",)

    @admin.display(description="iteration")
    def round(self, export: Export) -> int | None:
        return export.iteration.number if export.iteration else None
