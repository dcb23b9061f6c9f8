"""Assignments: a trainer's slots of work, from the claim to the end."""

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate import access, assignments, comparisons, rankings
from annotate.api.parsing import MOST, by_number
from annotate.api.refusals import DraftRefusal, InvalidInput, Refusal
from annotate.api.reviews import ReviewOut
from annotate.models import Assignment, Flag, Message, Ranking, Review, SkipReason


class Turn(serializers.Serializer):
    """One message."""

    role = serializers.ChoiceField(Message.ChatRole.choices)
    text = serializers.CharField()


class Answer(serializers.Serializer):
    """One candidate as its trainer sees it: no word of where it came from."""

    letter = serializers.CharField(help_text="As on the page: A is shown first.")
    id = serializers.IntegerField(source="candidate_id", help_text="What `tiers`, `ratings` and `flags` name.")
    text = serializers.CharField()


class RankingOut(serializers.Serializer):
    """A trainer's own ranking as it is stored."""

    id = serializers.IntegerField()
    state = serializers.ChoiceField(
        [Assignment.State.SUBMITTED, Assignment.State.SURPLUS],
        source="assignment.state",
        help_text="`surplus`: it came after its place was taken; kept, but not counted.",
    )
    tiers = serializers.SerializerMethodField(help_text="Candidate ids, best first; those of one tier are tied.")
    ratings = serializers.SerializerMethodField()
    flags = serializers.SerializerMethodField()
    all_bad = serializers.BooleanField()
    active_seconds = serializers.IntegerField()
    created_at = serializers.DateTimeField()

    def get_tiers(self, ranking: Ranking) -> list[list[int]]:
        return rankings.tiers_of(ranking)

    def get_ratings(self, ranking: Ranking) -> dict[str, int]:
        return {str(place.candidate_id): place.rating for place in ranking.places.all() if place.rating}

    def get_flags(self, ranking: Ranking) -> dict[str, list[str]]:
        return {str(place.candidate_id): place.flags for place in ranking.places.all() if place.flags}


class AssignmentOut(serializers.Serializer):
    """A slot of work as the trainer who holds or held it sees it."""

    id = serializers.IntegerField()
    project = serializers.SlugField(source="project.slug")
    iteration = serializers.IntegerField(source="iteration.number")
    kind = serializers.ChoiceField(Assignment.Kind.choices)
    state = serializers.ChoiceField(Assignment.State.choices)
    lease_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when it is yours without a sign of life; a saved draft is one."
    )
    context = serializers.SerializerMethodField(
        help_text="The messages before the answers that are ranked; of a review, those that are reviewed; of a chat, "
        "all messages so far; of a piece of writing none until it is finished, see `draft`."
    )
    conversation = serializers.IntegerField(
        source="conversation_id", allow_null=True, help_text="What is being held or written."
    )
    subject = serializers.IntegerField(
        source="subject_id", allow_null=True, help_text="The conversation that is reviewed, mended or revised."
    )
    candidates = serializers.SerializerMethodField(help_text="In the order shown. Empty where nothing is ranked.")
    shown_order = serializers.ListField(child=serializers.IntegerField(), help_text="Their ids in the order shown.")
    draft = serializers.DictField()
    draft_version = serializers.IntegerField(help_text="Send it along with the next draft.")
    active_seconds = serializers.IntegerField()
    skip_reason = serializers.ChoiceField(SkipReason.choices, allow_blank=True)
    held_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    ranking = serializers.SerializerMethodField(help_text="The order that you submitted.")
    review = serializers.SerializerMethodField(help_text="The verdict that you submitted.")

    @extend_schema_field(Turn(many=True))
    def get_context(self, assignment: Assignment) -> list[dict]:
        if assignment.kind == Assignment.Kind.RANK:
            return Turn(comparisons.context(assignment.comparison), many=True).data
        shown = assignment.subject if assignment.kind == Assignment.Kind.REVIEW else assignment.conversation
        return Turn(shown.messages.order_by("position"), many=True).data

    @extend_schema_field(Answer(many=True))
    def get_candidates(self, assignment: Assignment) -> list[dict]:
        if assignment.kind != Assignment.Kind.RANK:
            return []
        return Answer(comparisons.shown(assignment), many=True).data

    @extend_schema_field(RankingOut(allow_null=True))
    def get_ranking(self, assignment: Assignment) -> dict | None:
        if assignment.state not in (Assignment.State.SUBMITTED, Assignment.State.SURPLUS):
            return None
        ranking = assignment.rankings.filter(current=True).prefetch_related("places").first()
        return RankingOut(ranking).data if ranking else None

    @extend_schema_field(ReviewOut(allow_null=True))
    def get_review(self, assignment: Assignment) -> dict | None:
        if assignment.kind != Assignment.Kind.REVIEW:
            return None
        review = (
            Review.objects.filter(assignment=assignment)
            .select_related("conversation__project")
            .prefetch_related("comments")
            .first()
        )
        return ReviewOut(review).data if review else None


class Released(serializers.Serializer):
    """What became of the slot that was fetched ahead."""

    released = serializers.BooleanField(help_text="Whether there was one.")


class Saved(serializers.Serializer):
    """A stored draft."""

    draft_version = serializers.IntegerField(help_text="Its version: send it along with the next one.")


class Claim(APIView):
    """The next slot."""

    @extend_schema_serializer(
        component_name="ClaimInput",
        examples=[
            OpenApiExample("The next ranking", {}),
            OpenApiExample("The one after it", {"ahead": True}),
            OpenApiExample("The next piece to write", {"kinds": ["write"]}),
            OpenApiExample("The next review", {"kinds": ["review"]}),
        ],
    )
    class Input(serializers.Serializer):
        kinds = serializers.ListField(
            child=serializers.ChoiceField(Assignment.Kind.choices),
            default=[Assignment.Kind.RANK],
            allow_empty=False,
            help_text="Kinds of work in the order of preference. Chats are held in the browser; reviews are for "
            "reviewers, all else for trainers.",
        )
        reserved = serializers.IntegerField(
            required=False,
            min_value=1,
            max_value=2**63 - 1,
            help_text="The id of a slot of these kinds that waits for you alone. Those come first in any case.",
        )
        ahead = serializers.BooleanField(
            default=False, help_text="Fetch the next ranking while you are still at one; at most one ahead."
        )

    @extend_schema(
        request=Input,
        responses={200: AssignmentOut, 403: Refusal, 404: Refusal, 409: Refusal, 422: InvalidInput},
        tags=["assignments"],
    )
    def post(self, request: Request, slug: str) -> Response:
        """Take the next slot of work.

        Returns what you hold already, of any kind, before it hands out anything new. 404 with the code `nothing_left`
        where there is no slot for you now, with `not_found` where there is no such project.
        """
        given = self.Input(data=request.data)
        given.is_valid(raise_exception=True)
        project = access.project_for(request.user, slug)
        for kind in given.validated_data["kinds"]:
            access.require_role_for(request.user, kind)
        claimed = assignments.claim(user=request.user, project=project, **given.validated_data)
        return Response(AssignmentOut(claimed).data)


class ReleaseAhead(APIView):
    """Giving back what was fetched ahead."""

    @extend_schema(
        request=None,
        responses={200: Released, 404: Refusal},
        tags=["assignments"],
    )
    def post(self, request: Request, slug: str) -> Response:
        """Give back the slot that was fetched ahead. `released` says whether there was one."""
        project = access.project_for(request.user, slug)
        return Response({"released": assignments.release_ahead(user=request.user, project=project)})


class AssignmentView(APIView):
    """One slot."""

    @extend_schema(responses={200: AssignmentOut, 404: Refusal}, tags=["assignments"])
    def get(self, request: Request, assignment_id: int) -> Response:
        """Read a slot that you hold or held."""
        return Response(AssignmentOut(access.assignment_for(request.user, assignment_id)).data)


class Draft(APIView):
    """What was typed and not yet sent."""

    @extend_schema_serializer(
        component_name="DraftInput",
        examples=[OpenApiExample("A first draft", {"draft": {"order": "B A"}, "version": 0, "active_seconds": 35})],
    )
    class Input(serializers.Serializer):
        draft = serializers.DictField(help_text="Any JSON object; it replaces the stored one.")
        version = serializers.IntegerField(
            min_value=0, max_value=MOST, help_text="The `draft_version` that it was made from."
        )
        active_seconds = serializers.IntegerField(
            min_value=0, max_value=MOST, default=0, help_text="Time at work so far, idle time left out; 0 keeps it."
        )

    @extend_schema(
        request=Input,
        responses={
            200: Saved,
            404: Refusal,
            409: DraftRefusal,
            422: InvalidInput,
        },
        tags=["assignments"],
    )
    def put(self, request: Request, assignment_id: int) -> Response:
        """Save a draft, which also renews the lease; the answer is its version.

        409 with the code `draft_conflict`, and the stored draft and its version, where a newer one was saved.
        """
        given = self.Input(data=request.data)
        given.is_valid(raise_exception=True)
        assignment = access.assignment_for(request.user, assignment_id)
        saved = assignments.save_draft(assignment=assignment, user=request.user, **given.validated_data)
        return Response({"draft_version": saved})


class Skip(APIView):
    """Passing a slot on."""

    @extend_schema_serializer(
        component_name="SkipInput",
        examples=[OpenApiExample("With a note", {"reason": "expertise", "note": "It takes a lawyer."})],
    )
    class Input(serializers.Serializer):
        reason = serializers.ChoiceField(SkipReason.choices)
        note = serializers.CharField(default="", allow_blank=True, max_length=2000)

    @extend_schema(
        request=Input,
        responses={204: None, 404: Refusal, 409: Refusal, 422: InvalidInput},
        tags=["assignments"],
    )
    def post(self, request: Request, assignment_id: int) -> Response:
        """Pass a slot on, with a reason. What it is about does not come back to you."""
        given = self.Input(data=request.data)
        given.is_valid(raise_exception=True)
        assignment = access.assignment_for(request.user, assignment_id)
        assignments.skip(assignment=assignment, user=request.user, **given.validated_data)
        return Response(status=204)


class Submit(APIView):
    """Sending a ranking."""

    @extend_schema_serializer(
        component_name="SubmitInput",
        examples=[
            OpenApiExample(
                "B A=D C",
                {
                    "tiers": [[12], [11, 14], [13]],
                    "ratings": {"12": 6, "13": 1},
                    "flags": {"13": ["hallucination"]},
                    "active_seconds": 84,
                },
            ),
            OpenApiExample("All are bad, and equally so", {"tiers": [], "all_bad": True}),
        ],
    )
    class Input(serializers.Serializer):
        tiers = serializers.ListField(
            child=serializers.ListField(child=serializers.IntegerField()),
            help_text="Candidate ids, best first; those of one tier are tied. Every candidate stands in one.",
        )
        ratings = serializers.DictField(
            child=serializers.IntegerField(min_value=1, max_value=7), default={}, help_text="1 to 7, by candidate id."
        )
        flags = serializers.DictField(
            child=serializers.ListField(child=serializers.ChoiceField(Flag.choices)),
            default={},
            help_text="What is wrong with a candidate, by its id.",
        )
        all_bad = serializers.BooleanField(default=False, help_text="None is acceptable; `tiers` may then be empty.")
        active_seconds = serializers.IntegerField(
            min_value=0, max_value=MOST, default=0, help_text="Time at work, idle time left out."
        )

        def validate_ratings(self, ratings: dict[str, int]) -> dict[int, int]:
            return by_number(ratings, "candidate ids")

        def validate_flags(self, flags: dict[str, list[str]]) -> dict[int, list[str]]:
            return by_number(flags, "candidate ids")

    @extend_schema(
        request=Input,
        responses={201: RankingOut, 404: Refusal, 409: Refusal, 422: InvalidInput},
        tags=["assignments"],
    )
    def post(self, request: Request, assignment_id: int) -> Response:
        """Send a ranking.

        422 where a candidate is left out, foreign or named twice, 409 where it was sent, skipped or withdrawn before;
        nothing is changed then. Late work is kept: it counts where its place is still free, else it is `surplus`.
        """
        given = self.Input(data=request.data)
        given.is_valid(raise_exception=True)
        assignment = access.assignment_for(request.user, assignment_id)
        ranking = rankings.submit(assignment=assignment, user=request.user, **given.validated_data)
        ranking.assignment.refresh_from_db(fields=["state"])
        return Response(RankingOut(ranking).data, status=201)
