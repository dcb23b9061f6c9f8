"""Imports: files of conversations that are sent, brought in by a worker, and what came of them."""

from dataclasses import fields

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate import access, imports, jobs
from annotate.api.jobs import JobOut
from annotate.api.paging import PageInput, one_page
from annotate.api.parsing import NoOthers
from annotate.api.refusals import InvalidInput, Refusal
from annotate.api.uploads import ToDisk
from annotate.datasets.incoming import bringing
from annotate.models import Import


class ImportOut(JobOut):
    """An import without its report."""

    source = serializers.CharField(help_text="The set that it is from.")
    format = serializers.CharField(help_text="As asked for, or as recognised.")
    options = serializers.DictField(help_text="How it was to be read.")


class ImportDetail(ImportOut):
    """An import with what came of its lines."""

    report = serializers.DictField(
        help_text="Counts of what came in, was there already, was mended or left out; `refused_lines` has the first "
        "bad lines with their reasons."
    )


class ImportPage(serializers.Serializer):
    """Some imports, and where the following ones are."""

    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last one.")
    results = ImportOut(many=True)


class NewImport(NoOthers, serializers.Serializer):
    """A file to bring in, and how."""

    file = serializers.FileField(help_text="JSON lines, a JSON list or Parquet, also .gz and .zst.")
    source = serializers.CharField(
        required=False, help_text="The set that it is from; by default the name of the file."
    )
    format = serializers.CharField(required=False, help_text="auto (by default) or a format of import_conversations.")
    system = serializers.CharField(
        required=False,
        help_text="The system message of conversations that have none: project (by default), none, or this text.",
    )
    few_shot = serializers.CharField(required=False, help_text="apart (by default) or whole.")
    broken = serializers.CharField(required=False, help_text="mend (by default) or refuse.")
    on_error = serializers.CharField(
        required=False, help_text="stop (by default): one bad line and nothing comes in; skip: they are left out."
    )


class ImportList(APIView):
    """A project's imports."""

    parser_classes = [MultiPartParser]

    def initialize_request(self, request, *args, **kwargs):
        """Before anything reads the body: where it is to be kept."""
        request.upload_handlers = [ToDisk(request)]
        return super().initialize_request(request, *args, **kwargs)

    @extend_schema(
        operation_id="projects_imports_list",
        parameters=[PageInput],
        responses={200: ImportPage, 403: Refusal, 404: Refusal, 422: InvalidInput},
        tags=["imports"],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Read a project's imports, oldest first, page by page."""
        given = PageInput(data=request.query_params)
        given.is_valid(raise_exception=True)
        project = access.dataset_project_for(request.user, slug)
        rows = Import.objects.filter(project=project).select_related("project")
        return one_page(request, rows, **given.validated_data, shown_as=lambda found: ImportOut(found, many=True).data)

    @extend_schema(
        operation_id="projects_imports_create",
        request={"multipart/form-data": NewImport},
        responses={
            202: ImportDetail,
            403: Refusal,
            404: Refusal,
            413: Refusal,
            422: InvalidInput,
            503: Refusal,
        },
        tags=["imports"],
    )
    def post(self, request: Request, slug: str) -> Response:
        """Send a file of conversations. A worker brings it in, whole or not at all; read the import until it has ended.

        A file that came in before can be sent again: what the project has already is counted and left as it is.
        """
        project = access.dataset_project_for(request.user, slug)
        given = NewImport(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = given.validated_data
        how = bringing.How.given({one.name: wanted[one.name] for one in fields(bringing.How) if one.name in wanted})
        made = bringing.prepare(
            project=project,
            file=wanted["file"],
            how=how,
            source=wanted.get("source", ""),
            created_by=request.user,
        )
        return Response(ImportDetail(made).data, status=202)


ONE = {200: ImportDetail, 403: Refusal, 404: Refusal}


class ImportView(APIView):
    """One import."""

    @extend_schema(responses=ONE, tags=["imports"])
    def get(self, request: Request, import_id: int) -> Response:
        """Read one import: how far it is, and what came of its lines."""
        return Response(ImportDetail(access.import_for(request.user, import_id)).data)


class ImportStop(APIView):
    """The end of an import that is not done."""

    @extend_schema(request=None, responses=ONE | {409: Refusal}, tags=["imports"])
    def post(self, request: Request, import_id: int) -> Response:
        """Stop an import. One that runs ends a moment later, with nothing brought in unless all of it was already."""
        job = access.import_for(request.user, import_id)
        jobs.ask_to_stop(job)
        return Response(ImportDetail(job).data)


class ImportGoOn(APIView):
    """Another beginning of an import that is not done."""

    @extend_schema(
        request=None, responses={202: ImportDetail, 403: Refusal, 404: Refusal, 409: Refusal}, tags=["imports"]
    )
    def post(self, request: Request, import_id: int) -> Response:
        """Have a worker begin an import again that failed or was stopped, as long as its file is kept."""
        job = access.import_for(request.user, import_id)
        imports.go_on(job)
        return Response(ImportDetail(job).data, status=202)
