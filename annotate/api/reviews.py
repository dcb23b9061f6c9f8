"""Reviews: the verdict on what was written."""

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate import access, derive, reviews
from annotate.api.parsing import MOST, by_number
from annotate.api.refusals import InvalidInput, Refusal
from annotate.models import Review


class CommentOut(serializers.Serializer):
    """A comment at one message."""

    position = serializers.IntegerField(help_text="The message it is about; 0 is the system message.")
    text = serializers.CharField()


class ReviewOut(serializers.Serializer):
    """A verdict as it is stored."""

    id = serializers.IntegerField()
    conversation = serializers.IntegerField(source="conversation_id")
    verdict = serializers.ChoiceField(Review.Verdict.choices)
    note = serializers.CharField()
    comments = CommentOut(many=True)
    edit = serializers.IntegerField(
        source="edit_id",
        allow_null=True,
        help_text="The conversation as the reviewer edited it; it stands in its place.",
    )
    current = serializers.BooleanField(help_text="Whether it counts; one that came in too late does not.")
    reviewer = serializers.SerializerMethodField(help_text="The same made-up code as in the project's exports.")
    created_at = serializers.DateTimeField()

    def get_reviewer(self, review: Review) -> str:
        return derive.pseudonym(review.conversation.project.secret, review.reviewer_id)


class Verdict(APIView):
    """Sending a verdict."""

    @extend_schema_serializer(
        component_name="VerdictInput",
        examples=[
            OpenApiExample("Approved as it is", {"verdict": "approved"}),
            OpenApiExample("Approved with a change", {"verdict": "approved", "edits": {"2": "Nine minutes."}}),
            OpenApiExample("Returned", {"verdict": "returned", "comments": {"2": "Say how large the egg is."}}),
        ],
    )
    class Input(serializers.Serializer):
        verdict = serializers.ChoiceField(Review.Verdict.choices)
        note = serializers.CharField(default="", allow_blank=True, help_text="A word on the whole.")
        comments = serializers.DictField(
            child=serializers.CharField(), default={}, help_text="A word at a message, by its position."
        )
        edits = serializers.DictField(
            child=serializers.CharField(allow_blank=True, trim_whitespace=False),
            default={},
            help_text="Changed texts, by position. Only with `approved`: the edited conversation stands in its place.",
        )
        active_seconds = serializers.IntegerField(
            min_value=0, max_value=MOST, default=0, help_text="Time at work, idle time left out."
        )

        def validate_comments(self, comments: dict[str, str]) -> dict[int, str]:
            return by_number(comments, "positions")

        def validate_edits(self, edits: dict[str, str]) -> dict[int, str]:
            return by_number(edits, "positions")

    @extend_schema(
        request=Input,
        responses={201: ReviewOut, 404: Refusal, 409: Refusal, 422: InvalidInput},
        tags=["writing"],
    )
    def post(self, request: Request, assignment_id: int) -> Response:
        """Approve a written conversation, with or without changes of yours, or return it to its trainer.

        422 where a return says nothing, or a comment or edit names no message; 409 where a verdict was sent before.
        """
        given = self.Input(data=request.data)
        given.is_valid(raise_exception=True)
        assignment = access.assignment_for(request.user, assignment_id)
        review = reviews.submit(assignment=assignment, user=request.user, **given.validated_data)
        return Response(ReviewOut(review).data, status=201)
