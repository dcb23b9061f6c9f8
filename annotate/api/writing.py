"""Writing both sides: suggestions while a piece is open, and its end. Its text is kept as a draft."""

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate import access, demonstrations
from annotate.api.conversations import ConversationDetail, detail
from annotate.api.parsing import MOST
from annotate.api.refusals import DraftRefusal, InvalidInput, Refusal
from annotate.errors import NotFound
from annotate.models import Completion, GenerationRequest

SIDES = ["user", "assistant"]


class TurnIn(serializers.Serializer):
    """One turn as chat templates know it."""

    role = serializers.ChoiceField(SIDES)
    content = serializers.CharField(allow_blank=True, trim_whitespace=False)


class SuggestedOut(serializers.Serializer):
    """One suggestion, once it is whole."""

    id = serializers.IntegerField()
    index = serializers.IntegerField(help_text="A turn of the draft names it in `from` as `[request, index]`.")
    text = serializers.CharField()
    finish_reason = serializers.ChoiceField(Completion.FinishReason.choices)


class SuggestionsOut(serializers.Serializer):
    """What was asked for one turn, with the suggestions as far as they are there."""

    id = serializers.IntegerField(help_text="Of the request.")
    state = serializers.ChoiceField(GenerationRequest.State.choices, help_text="Ask again until it is `done`.")
    reason = serializers.CharField(help_text="Why it failed or was refused.")
    role = serializers.ChoiceField(SIDES)
    position = serializers.IntegerField(help_text="Of the message that is suggested; 0 is the system message.")
    hint = serializers.CharField()
    n = serializers.IntegerField()
    completions = SuggestedOut(many=True)


class Suggestions(APIView):
    """Suggestions for the turn that is being written."""

    @extend_schema_serializer(
        component_name="SuggestionsInput",
        examples=[
            OpenApiExample(
                "Two short answers",
                {
                    "role": "assistant",
                    "before": [{"role": "user", "content": "How do I boil an egg?"}],
                    "hint": "shorter",
                    "n": 2,
                },
            )
        ],
    )
    class Input(serializers.Serializer):
        role = serializers.ChoiceField(SIDES, help_text="The side whose next turn is suggested.")
        before = TurnIn(many=True, default=[], help_text="All turns before it, without the system message.")
        system = serializers.CharField(
            required=False,
            allow_null=True,
            allow_blank=True,
            help_text="In place of the project's system message, where trainers may change that.",
        )
        hint = serializers.CharField(default="", allow_blank=True, help_text="What it is to be: shorter, more formal …")
        n = serializers.IntegerField(
            required=False, min_value=1, max_value=3, help_text="How many; the project's number where it is left out."
        )

    @extend_schema(
        request=Input,
        responses={201: SuggestionsOut, 404: Refusal, 409: Refusal, 422: InvalidInput},
        tags=["writing"],
    )
    def post(self, request: Request, assignment_id: int) -> Response:
        """Ask for suggestions. What was asked before for this piece and is not there yet is stopped."""
        given = self.Input(data=request.data)
        given.is_valid(raise_exception=True)
        assignment = access.assignment_for(request.user, assignment_id)
        asked = demonstrations.suggest(assignment=assignment, user=request.user, **given.validated_data)
        return Response(SuggestionsOut(asked).data, status=201)

    @extend_schema(responses={200: SuggestionsOut, 404: Refusal}, tags=["writing"])
    def get(self, request: Request, assignment_id: int) -> Response:
        """Read what was asked last for a piece; 404 where nothing was asked yet."""
        newest = demonstrations.newest_suggestions(access.assignment_for(request.user, assignment_id))
        if newest is None:
            raise NotFound("No suggestions were asked for here yet.")
        return Response(SuggestionsOut(newest).data)


class Finish(APIView):
    """The end of a piece."""

    @extend_schema_serializer(
        component_name="FinishInput", examples=[OpenApiExample("The third draft", {"version": 3})]
    )
    class Input(serializers.Serializer):
        version = serializers.IntegerField(
            min_value=0, max_value=MOST, help_text="The `draft_version` of the draft that is to be the conversation."
        )

    @extend_schema(
        request=Input,
        responses={201: ConversationDetail, 404: Refusal, 409: DraftRefusal, 422: InvalidInput},
        tags=["writing"],
    )
    def post(self, request: Request, assignment_id: int) -> Response:
        """Finish a piece as its draft is saved; the conversation that came of it.

        422 with what is to be mended; 409 where a newer draft was saved, it has ended, or a suggestion that was taken
        is still being written. Nothing is changed then.
        """
        given = self.Input(data=request.data)
        given.is_valid(raise_exception=True)
        assignment = access.assignment_for(request.user, assignment_id)
        finished = demonstrations.finish(assignment=assignment, user=request.user, **given.validated_data)
        return Response(detail(finished, request.user), status=201)
