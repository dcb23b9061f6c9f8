"""Imports: read here, sent by REST or brought in by `manage.py import_conversations`."""

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from annotate import imports
from annotate.admin.jobs import JobAdmin, as_lines
from annotate.models import Import, Job

SHOWN = 200
"""Bad lines that a page lists."""


@admin.register(Import)
class ImportAdmin(JobAdmin):
    """Each file that was brought in, and what came of its lines."""

    list_display = ("id", "how_far", "source", "format", "came_in", "bad_lines", "project", "created_at")
    list_filter = ("state", "format", "project")
    list_select_related = ("project",)
    search_fields = ("=id", "source")
    search_help_text = "Number of the import, or a part of its source"
    ordering = ("-id",)
    readonly_fields = ("id", "how_far", "counts", "refused_lines", "option_values")
    fieldsets = (
        (None, {"fields": ("id", "how_far", "reason", "project", "source", "format")}),
        ("What came of it", {"fields": ("counts", "refused_lines")}),
        (
            "How it was asked for",
            {
                "fields": (
                    "option_values",
                    "created_by",
                    "created_at",
                    "started_at",
                    "ended_at",
                    "attempt",
                    "background",
                )
            },
        ),
    )

    def go_on(self, job: Job) -> None:
        imports.go_on(job)

    @admin.display(description="came in")
    def came_in(self, job: Import) -> str:
        parts = [f"{job.report[name]:,} {name}" for name in ("conversations", "prompts") if job.report.get(name)]
        return ", ".join(parts) or "–"

    @admin.display(description="bad lines")
    def bad_lines(self, job: Import) -> str:
        return f"{job.report['refused']:,}" if job.report.get("refused") else "–"

    def counts(self, job: Import) -> SafeString:
        """All numbers of the report."""
        numbers = {
            name: value for name, value in job.report.items() if name not in ("refused_lines", "format", "taken")
        }
        return as_lines({name: value for name, value in numbers.items() if value})

    @admin.display(description="bad lines")
    def refused_lines(self, job: Import) -> SafeString:
        lines = job.report.get("refused_lines", [])
        if not lines:
            return format_html("{}", "–")
        more = job.report["refused"] - min(len(lines), SHOWN)
        return format_html(
            '<ul class="bad-lines">{}</ul>{}',
            format_html_join("", "<li>line {}: {}</li>", lines[:SHOWN]),
            f"and {more:,} more" if more else "",
        )

    @admin.display(description="options")
    def option_values(self, job: Import) -> SafeString:
        return as_lines(job.options)
