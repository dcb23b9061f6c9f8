"""Projects: what a person works on."""

from django.db.models import Prefetch, prefetch_related_objects
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate import access, projects
from annotate.api.refusals import Refusal
from annotate.models import Assignment, Iteration, Project


class ProjectOut(serializers.Serializer):
    """A project as its members see it."""

    slug = serializers.SlugField(help_text="Its name in addresses and commands.")
    name = serializers.CharField()
    kinds = serializers.ListField(
        child=serializers.ChoiceField(Assignment.Kind.choices), help_text="Work in the order in which it is offered."
    )
    iteration = serializers.SerializerMethodField(help_text="The number of the open iteration, if one is open.")

    def get_iteration(self, project: Project) -> int | None:
        return next((iteration.number for iteration in project.open_iterations), None)


class GuidelinesOut(serializers.Serializer):
    """How the work is to be done."""

    number = serializers.IntegerField(help_text="The version.")
    text = serializers.CharField(help_text="Markdown.")


class ProjectDetail(ProjectOut):
    """A project with its guidelines."""

    guidelines = serializers.SerializerMethodField()

    @extend_schema_field(GuidelinesOut(allow_null=True))
    def get_guidelines(self, project: Project) -> dict | None:
        newest = projects.current_guidelines(project)
        return GuidelinesOut(newest).data if newest else None


OPEN = Prefetch(
    "iterations", Iteration.objects.filter(state=Iteration.State.OPEN).only("number", "project"), "open_iterations"
)


class ProjectList(APIView):
    """The projects that the caller is a member of, by name."""

    @extend_schema(operation_id="projects_list", responses=ProjectOut(many=True), tags=["projects"])
    def get(self, request: Request) -> Response:
        """The projects that you work on."""
        return Response(ProjectOut(access.projects_of(request.user).prefetch_related(OPEN), many=True).data)


class ProjectView(APIView):
    """One project."""

    @extend_schema(responses={200: ProjectDetail, 404: Refusal}, tags=["projects"])
    def get(self, request: Request, slug: str) -> Response:
        """One project, with its newest guidelines."""
        project = access.project_for(request.user, slug)
        prefetch_related_objects([project], OPEN)
        return Response(ProjectDetail(project).data)
