"""Exports: asked for, watched, stopped, gone on with, and downloaded file by file."""

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from annotate import access, exports
from annotate.api.jobs import JobOut
from annotate.api.paging import PageInput, one_page
from annotate.api.parsing import NoOthers
from annotate.api.refusals import InvalidInput, Refusal
from annotate.datasets import asking, downloads
from annotate.models import Export, Project


class ExportOut(JobOut):
    """An export without its manifest."""

    iteration = serializers.IntegerField(source="iteration.number", allow_null=True, default=None)
    what = serializers.CharField(help_text="comparisons, demonstrations, conversations or prompts.")
    format = serializers.CharField()
    filters = serializers.DictField(help_text="All of them, also those that were not given.")
    files_as = serializers.SerializerMethodField(help_text="How it is written: `kind` and `shard_rows`.")
    rows = serializers.IntegerField(help_text="0 until it is done.")
    digest = serializers.CharField(help_text="SHA-256 over the digests of its files; empty until it is done.")

    @extend_schema_field(serializers.DictField)
    def get_files_as(self, export: Export) -> dict:
        return exports.written_as(export)


class ParentOut(serializers.Serializer):
    """An export from which another was made."""

    id = serializers.IntegerField()
    what = serializers.CharField()
    format = serializers.CharField()
    digest = serializers.CharField()


class FileOut(serializers.Serializer):
    """A file of an export."""

    name = serializers.CharField()
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    rows = serializers.IntegerField(allow_null=True, help_text="Lines; null in files that hold none.")
    url = serializers.URLField()


class ExportDetail(ExportOut):
    """An export with its manifest and files."""

    counts = serializers.SerializerMethodField(help_text="Of the manifest: rows by split, and what was left out.")
    manifest = serializers.DictField(help_text="Empty until it is done.")
    parents = ParentOut(many=True, help_text="The exports that it was made from.")
    files = serializers.SerializerMethodField(help_text="None until it is done; `manifest.json` can be read beside.")

    @extend_schema_field(serializers.DictField)
    def get_counts(self, export: Export) -> dict:
        return export.manifest.get("counts", {})

    @extend_schema_field(FileOut(many=True))
    def get_files(self, export: Export) -> list[dict]:
        def url(name: str) -> str:
            return reverse("api_export_file", args=[export.pk, name], request=self.context["request"])

        return [described | {"url": url(described["name"])} for described in exports.shards(export)]


def _detail(export: Export, request: Request, status: int = 200) -> Response:
    return Response(ExportDetail(export, context={"request": request}).data, status=status)


class ExportPage(serializers.Serializer):
    """Some exports, and where the following ones are."""

    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last one.")
    results = ExportOut(many=True)


class FilesInput(serializers.Serializer):
    """How an export is written."""

    kind = serializers.CharField(required=False, help_text="jsonl (by default), jsonl.zst or parquet.")
    shard_rows = serializers.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="Most rows in one file; 100,000 by default."
    )


class NewExport(NoOthers, serializers.Serializer):
    """What is to be exported."""

    what = serializers.CharField(help_text="comparisons, demonstrations, conversations or prompts.")
    format = serializers.CharField(help_text="One of its formats; docs/export-formats.md has all.")
    filters = serializers.DictField(
        required=False,
        help_text="By name, as the options of `manage.py export`: iteration, split, since, include, without, personal "
        "and those of its own.",
    )
    files = FilesInput(required=False)


class ExportList(APIView):
    """A project's exports."""

    @extend_schema(
        operation_id="projects_exports_list",
        parameters=[PageInput],
        responses={200: ExportPage, 403: Refusal, 404: Refusal, 422: InvalidInput},
        tags=["exports"],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Read a project's exports, oldest first, page by page; those that are not done too."""
        given = PageInput(data=request.query_params)
        given.is_valid(raise_exception=True)
        project = access.dataset_project_for(request.user, slug)
        rows = exports.listed(project)
        return one_page(request, rows, **given.validated_data, shown_as=lambda found: ExportOut(found, many=True).data)

    @extend_schema(
        operation_id="projects_exports_create",
        request=NewExport,
        responses={202: ExportDetail, 403: Refusal, 404: Refusal, 422: InvalidInput},
        tags=["exports"],
    )
    def post(self, request: Request, slug: str) -> Response:
        """Ask for an export. A worker writes it; read it again until `state` is `done`, `failed` or `stopped`."""
        project = access.dataset_project_for(request.user, slug)
        given = NewExport(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = given.validated_data
        theirs = access.projects_of(request.user)

        def may_read(other: Project) -> bool:
            return theirs.filter(pk=other.pk).exists()

        export = asking.ask(
            project=project,
            what=wanted["what"],
            format=wanted["format"],
            given=wanted.get("filters", {}),
            files=dict(wanted.get("files", {})),
            created_by=request.user,
            may_read=may_read,
        )
        return _detail(export, request, status=202)


ONE = {200: ExportDetail, 403: Refusal, 404: Refusal}


class ExportView(APIView):
    """One export."""

    @extend_schema(responses=ONE, tags=["exports"])
    def get(self, request: Request, export_id: int) -> Response:
        """Read one export: how far it is, and when it is done its manifest and files."""
        return _detail(access.export_for(request.user, export_id), request)


class ExportStop(APIView):
    """The end of an export that is not done."""

    @extend_schema(request=None, responses=ONE | {409: Refusal}, tags=["exports"])
    def post(self, request: Request, export_id: int) -> Response:
        """Stop an export. One that runs ends a moment later; it can be gone on with."""
        export = access.export_for(request.user, export_id)
        exports.stop(export)
        return _detail(export, request)


class ExportGoOn(APIView):
    """Another beginning of an export that is not done."""

    @extend_schema(
        request=None, responses={202: ExportDetail, 403: Refusal, 404: Refusal, 409: Refusal}, tags=["exports"]
    )
    def post(self, request: Request, export_id: int) -> Response:
        """Have a worker go on with an export that failed, was stopped or was interrupted, where it stopped."""
        export = access.export_for(request.user, export_id)
        exports.go_on(export)
        return _detail(export, request, status=202)


IN_PART = [
    OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="One range, as `bytes=1000-`."),
    OpenApiParameter("If-Range", str, OpenApiParameter.HEADER, description="The ETag of what you have a part of."),
    OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="The ETag of what you have."),
]


class ExportFile(APIView):
    """One file of an export."""

    def perform_content_negotiation(self, request, force=False):
        """Whatever a client accepts: it gets the bytes as they are, and only refusals are JSON."""
        return super().perform_content_negotiation(request, force=True)

    @extend_schema(
        parameters=IN_PART,
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            (206, "application/octet-stream"): OpenApiTypes.BINARY,
            304: OpenApiResponse(description="You have it: the ETag is the one that you sent."),
            403: Refusal,
            404: Refusal,
            416: OpenApiResponse(description="The range lies outside of the file."),
            503: Refusal,
        },
        tags=["exports"],
    )
    def get(self, request: Request, export_id: int, name: str) -> HttpResponse:
        """Download a file, whole or from a byte on. Its ETag is its SHA-256."""
        return downloads.response(request._request, access.export_for(request.user, export_id), name)
