"""Comparisons, with their candidates and rankings, for reviewers, admins and engineers."""

from django.db.models import prefetch_related_objects
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate import access, comparisons, derive
from annotate.api.assignments import RankingOut, Turn
from annotate.api.paging import PageInput, one_page
from annotate.api.refusals import InvalidInput, Refusal
from annotate.models import Assignment, Comparison, Completion, Ranking


class CandidateOut(serializers.Serializer):
    """A candidate with its origin."""

    id = serializers.IntegerField()
    text = serializers.CharField(source="completion.text")
    reasoning = serializers.CharField(
        source="completion.reasoning",
        help_text="What a model that thinks wrote before it, of which it is no part; else empty.",
    )
    original = serializers.BooleanField(help_text="Whether it is the message that stood in the conversation.")
    kind = serializers.ChoiceField(Completion.Kind.choices, source="completion.kind")
    policy = serializers.CharField(
        source="completion.request.policy.name", default=None, allow_null=True, help_text="Null where it was imported."
    )
    model = serializers.CharField(
        source="completion.model", help_text="Of an imported one: the model that wrote it, where its source says so."
    )
    finish_reason = serializers.CharField(source="completion.finish_reason", help_text="Empty where it was imported.")
    sampling = serializers.DictField(source="completion.request.sampling", default=None, allow_null=True)


class RankingRead(RankingOut):
    """A ranking as reviewers, admins and engineers read it."""

    kind = serializers.ChoiceField(Ranking.Kind.choices)
    state = serializers.ChoiceField(
        [Assignment.State.SUBMITTED, Assignment.State.SURPLUS],
        source="assignment.state",
        default=None,
        allow_null=True,
        help_text="`surplus`: it came after its place was taken; kept, but not counted. Null where it was imported.",
    )
    trainer = serializers.SerializerMethodField(
        help_text="The same made-up code as in the project's exports; null where it was imported."
    )
    current = serializers.BooleanField(help_text="Whether it is its assignment's latest.")
    shown_order = serializers.ListField(
        source="assignment.shown_order",
        child=serializers.IntegerField(),
        default=None,
        allow_null=True,
        help_text="Candidate ids as shown; null where it was imported.",
    )

    def get_trainer(self, ranking: Ranking) -> str | None:
        return ranking.trainer_id and derive.pseudonym(self.context["secret"], ranking.trainer_id)


class ComparisonOut(serializers.Serializer):
    """A comparison with its candidates and all its rankings."""

    id = serializers.IntegerField()
    project = serializers.SlugField(source="project.slug")
    iteration = serializers.IntegerField(
        source="iteration.number",
        default=None,
        allow_null=True,
        help_text="Null where it was imported with its ranking.",
    )
    source = serializers.CharField(
        source="imported_in.source", default=None, allow_null=True, help_text="Of an imported one: the set it is from."
    )
    state = serializers.ChoiceField(Comparison.State.choices)
    reason = serializers.CharField(help_text="Why it failed or was passed over.")
    selection = serializers.ChoiceField(
        Comparison.Selection.choices,
        help_text="How it came to be ranked; `uncertain`: chosen from its pool. Only random ones measure honestly.",
    )
    pool = serializers.IntegerField(
        source="pool_id", allow_null=True, help_text="The first that was drawn of its pool; null where it is in none."
    )
    conversation = serializers.IntegerField(source="message.conversation_id")
    position = serializers.IntegerField(source="message.position", help_text="Of the message that was selected.")
    draw_size = serializers.IntegerField(help_text="How many messages were eligible.")
    draw_index = serializers.IntegerField(help_text="Which of them was drawn, from 0.")
    k = serializers.IntegerField(help_text="Candidates wanted.")
    overlap = serializers.IntegerField(help_text="Rankings wanted.")
    created_at = serializers.DateTimeField()
    opened_at = serializers.DateTimeField(allow_null=True)
    closed_at = serializers.DateTimeField(allow_null=True)
    candidates = CandidateOut(many=True)
    rankings = serializers.SerializerMethodField()

    @extend_schema_field(RankingRead(many=True))
    def get_rankings(self, comparison: Comparison) -> list[dict]:
        rankings = comparison.rankings.all()
        return RankingRead(rankings, many=True, context={"secret": comparison.project.secret}).data


PARTS = ("candidates__completion__request__policy", "rankings__places", "rankings__assignment")
"""What is read of a comparison, to be fetched in as many queries for many as for one."""


class ComparisonDetail(ComparisonOut):
    """A comparison with its context."""

    context = serializers.SerializerMethodField(help_text="What stood before the candidates.")

    @extend_schema_field(Turn(many=True))
    def get_context(self, comparison: Comparison) -> list[dict]:
        return Turn(comparisons.context(comparison), many=True).data


class ComparisonPage(serializers.Serializer):
    """Some comparisons, and where the following ones are."""

    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last one.")
    results = ComparisonOut(many=True)


class ComparisonList(APIView):
    """A project's comparisons."""

    @extend_schema_serializer(component_name="ComparisonFilter")
    class Input(PageInput):
        state = serializers.ChoiceField(Comparison.State.choices, required=False)
        selection = serializers.ChoiceField(Comparison.Selection.choices, required=False)

    @extend_schema(
        operation_id="projects_comparisons_list",
        parameters=[Input],
        responses={200: ComparisonPage, 403: Refusal, 404: Refusal, 422: InvalidInput},
        tags=["comparisons"],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Read a project's comparisons, oldest first, page by page.

        Follow `next` to the end; later, ask for what came `after` the last id that you have.
        """
        given = self.Input(data=request.query_params)
        given.is_valid(raise_exception=True)
        wanted = given.validated_data
        project = access.reviewed_project_for(request.user, slug)
        rows = access.comparisons_read_by(request.user, project)
        rows = rows.filter(**{name: wanted[name] for name in ("state", "selection") if name in wanted})
        rows = rows.select_related("project", "iteration", "imported_in", "message").prefetch_related(*PARTS)
        return one_page(
            request,
            rows,
            after=wanted["after"],
            limit=wanted["limit"],
            shown_as=lambda found: ComparisonOut(found, many=True).data,
        )


class ComparisonView(APIView):
    """One comparison."""

    @extend_schema(responses={200: ComparisonDetail, 404: Refusal}, tags=["comparisons"])
    def get(self, request: Request, comparison_id: int) -> Response:
        """Read one comparison with its context, candidates and rankings."""
        comparison = access.comparison_for(request.user, comparison_id)
        prefetch_related_objects([comparison], *PARTS)
        return Response(ComparisonDetail(comparison).data)
