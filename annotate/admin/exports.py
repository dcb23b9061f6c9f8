"""Exports: asked for, watched, and downloaded here; never changed."""

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.forms import Script
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from annotate import exports, lineage
from annotate.admin.export_form import FIELDSETS, NewExportForm
from annotate.admin.jobs import JobAdmin, as_lines
from annotate.admin.reading import linked
from annotate.datasets import downloads
from annotate.errors import NotFound, Unavailable
from annotate.models import Export, Job

SHOWN = 100
"""Files that a page lists; of an export with more the manifest lists the rest."""


@admin.register(Export)
class ExportAdmin(JobAdmin):
    """Each dataset as it is or was written."""

    class Media:
        js = (Script("annotate/new-export.js", type="module"),)

    form = NewExportForm
    list_display = ("id", "how_far", "kind", "lines", "splits", "project", "short_digest", "created_at")
    list_filter = ("state", "what", "format", "project")
    list_select_related = ("project", "iteration")
    search_fields = ("=id", "digest__startswith")
    search_help_text = "Number of the export, or the beginning of its digest"
    ordering = ("-id",)
    readonly_fields = (
        "id",
        "kind",
        "lines",
        "how_far",
        "counts",
        "downloads",
        "made_from",
        "made_of_it",
        "learnt_from_it",
        "step_of",
        "filter_values",
        "written_as",
    )
    fieldsets = (
        (None, {"fields": ("id", "how_far", "reason", "project", "kind", "lines", "digest")}),
        ("Files", {"fields": ("downloads",)}),
        ("What is in it", {"fields": ("counts", "made_from", "step_of", "made_of_it", "learnt_from_it")}),
        (
            "How it was asked for",
            {
                "fields": (
                    "filter_values",
                    "written_as",
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

    def has_add_permission(self, request, obj=None) -> bool:
        return request.user.has_perm("annotate.add_export")

    def get_form(self, request, obj=None, change=False, **kwargs):
        if obj is not None:
            return super(JobAdmin, self).get_form(request, obj, change, form=admin.ModelAdmin.form, **kwargs)

        class Form(NewExportForm):
            """Of this request: it knows who asks."""

            def __init__(self, *args, **kwargs):
                super().__init__(*args, asked_by=request.user, **kwargs)

        return Form

    def get_fieldsets(self, request, obj=None):
        return FIELDSETS if obj is None else super().get_fieldsets(request, obj)

    def get_readonly_fields(self, request, obj=None):
        return () if obj is None else self.readonly_fields

    # The form has made the record already, with all that belongs to it.

    def save_form(self, request, form, change) -> Export:
        return form.made

    def save_model(self, request, obj, form, change) -> None:
        pass

    def save_related(self, request, form, formsets, change) -> None:
        pass

    def response_add(self, request, obj, post_url_continue=None) -> HttpResponse:
        messages.success(request, "The export waits for a worker. This page shows how far it is.")
        return redirect(reverse("admin:annotate_export_change", args=[obj.pk]))

    def go_on(self, job: Job) -> None:
        exports.go_on(job)

    @admin.display(description="what and format")
    def kind(self, export: Export) -> str:
        return f"{export.what}: {export.format}"

    @admin.display(description="rows")
    def lines(self, export: Export) -> str:
        return f"{export.rows:,}" if export.state == Export.State.DONE else "–"

    def splits(self, export: Export) -> str:
        by_split = export.manifest.get("counts", {}).get("by_split", {})
        return ", ".join(f"{name} {split.get('rows', 0):,}" for name, split in by_split.items()) or "–"

    @admin.display(description="digest")
    def short_digest(self, export: Export) -> str:
        return export.digest[:8] or "–"

    def counts(self, export: Export) -> SafeString:
        return as_lines(export.manifest.get("counts", {}))

    @admin.display(description="filters")
    def filter_values(self, export: Export) -> SafeString:
        return as_lines({name: value for name, value in export.filters.items() if value not in (None, [], "")})

    @admin.display(description="written as")
    def written_as(self, export: Export) -> str:
        written = exports.written_as(export)
        return f"{written['kind']}, at most {written['shard_rows']:,} rows in a file" if written else "–"

    @admin.display(description="made from")
    def made_from(self, export: Export) -> SafeString:
        return linked(*export.parents.order_by("id"))

    @admin.display(description="others made from it")
    def made_of_it(self, export: Export) -> SafeString:
        return linked(*export.children.order_by("id")[:SHOWN])

    @admin.display(description="trainings that learn from it")
    def learnt_from_it(self, export: Export) -> SafeString:
        return linked(*export.training_runs.defer("metrics").order_by("id")[:SHOWN])

    @admin.display(description="a step of")
    def step_of(self, export: Export) -> SafeString:
        return linked(lineage.passage_of_export(export))

    def downloads(self, export: Export) -> SafeString:
        """Each file as a link, with its size, its lines and its digest."""
        described = {one["name"]: one for one in exports.shards(export)}
        names = downloads.names(export)
        rows = []
        for name in [*names[:SHOWN], *names[-1:]] if len(names) > SHOWN else names:
            one = described.get(name, {})
            rows.append(
                (
                    reverse("admin:annotate_export_file", args=[export.pk, name]),
                    name,
                    filesizeformat(one["bytes"]) if one else "",
                    f"{one['rows']:,}" if one.get("rows") is not None else "",
                    one.get("sha256", ""),
                )
            )
        if not rows:
            return format_html("{}", "None until it is done.")
        more = f"{len(names) - SHOWN:,} more are listed in the manifest." if len(names) > SHOWN + 1 else ""
        body = format_html_join(
            "", '<tr><td><a href="{}">{}</a></td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>', rows
        )
        return format_html(
            '<div class="files"><table><thead><tr><th scope="col">File</th><th scope="col">Size</th>'
            '<th scope="col">Rows</th><th scope="col">SHA-256</th></tr></thead><tbody>{}</tbody></table></div>{}',
            body,
            more,
        )

    def get_urls(self):
        file = path(
            "<int:export_id>/files/<str:name>/",
            self.admin_site.admin_view(self.file, cacheable=True),
            name="annotate_export_file",
        )
        return [file, *super().get_urls()]

    def file(self, request: HttpRequest, export_id: int, name: str) -> HttpResponse:
        """A file of an export, as by REST."""
        export = self.get_object(request, str(export_id))
        if not self.has_view_permission(request, export):
            raise PermissionDenied
        if export is None:
            raise Http404
        try:
            return downloads.response(request, export, name)
        except NotFound as error:
            raise Http404(error.message) from error
        except Unavailable as error:
            messages.error(request, error.message)
            return redirect(reverse("admin:annotate_export_change", args=[export_id]))
