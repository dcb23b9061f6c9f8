"""Conversations with their messages and where each came from."""

from collections.abc import Iterable

from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate import access, demonstrations, derive
from annotate.api.paging import PageInput, one_page
from annotate.api.refusals import InvalidInput, Refusal
from annotate.api.reviews import ReviewOut
from annotate.models import Completion, Conversation, Message, User


class CompletionOut(serializers.Serializer):
    """The suggestion or reply that a message came of."""

    id = serializers.IntegerField()
    request = serializers.IntegerField(source="request_id")
    index = serializers.IntegerField()
    text = serializers.CharField(help_text="As it was sampled.")
    policy = serializers.CharField(source="request.policy.name")
    sampling = serializers.DictField(source="request.sampling")
    seed = serializers.IntegerField(allow_null=True, help_text="Only where the engine honours one.")
    hint = serializers.CharField(source="request.hint", help_text="What the trainer asked it to be.")
    finish_reason = serializers.ChoiceField(Completion.FinishReason.choices)


class PassedOut(serializers.Serializer):
    """A suggestion that was shown and not taken."""

    id = serializers.IntegerField()
    text = serializers.CharField()


class MessageOut(serializers.Serializer):
    """One message and where it came from."""

    position = serializers.IntegerField(help_text="From 0, the system message.")
    role = serializers.ChoiceField(Message.ChatRole.choices)
    text = serializers.CharField()
    source = serializers.ChoiceField(Message.Source.choices)
    completion = serializers.SerializerMethodField(
        help_text="What it came of. Of a policy's own reply it is told to those who read the work of others."
    )
    reasoning = serializers.SerializerMethodField(
        help_text="What a model that thinks wrote before its reply, of which it is no part; empty of all else."
    )
    edit_distance = serializers.FloatField(
        allow_null=True, help_text="From the suggestion or opening, 0 to 1: Levenshtein over the longer length."
    )
    passed = serializers.SerializerMethodField(help_text="Suggestions that were shown for it and not taken.")
    active_seconds = serializers.IntegerField()
    typed = serializers.IntegerField(help_text="Characters.")
    pasted = serializers.IntegerField()
    taken = serializers.IntegerField()

    @extend_schema_field(CompletionOut(allow_null=True))
    def get_completion(self, message: Message) -> dict | None:
        # Somebody may rank a reply of their own chat, without knowing where it is from.
        hidden = message.source == Message.Source.REPLY and not self.context["reads_all"]
        return None if message.completion is None or hidden else CompletionOut(message.completion).data

    def get_reasoning(self, message: Message) -> str:
        return message.completion.reasoning if message.source == Message.Source.REPLY else ""

    @extend_schema_field(PassedOut(many=True))
    def get_passed(self, message: Message) -> list[dict]:
        texts = self.context["passed"]
        return [{"id": pk, "text": texts[pk]} for pk in message.passed if pk in texts]


class ConversationOut(serializers.Serializer):
    """A conversation without its messages."""

    id = serializers.IntegerField()
    project = serializers.SlugField(source="project.slug")
    iteration = serializers.IntegerField(
        source="iteration.number", default=None, allow_null=True, help_text="Null where it was imported."
    )
    source = serializers.CharField(
        source="imported_in.source", default=None, allow_null=True, help_text="Of an imported one: the set it is from."
    )
    source_id = serializers.CharField(help_text="Of an imported one: its name there, where it has one.")
    kind = serializers.ChoiceField(Conversation.Kind.choices)
    state = serializers.ChoiceField(Conversation.State.choices)
    review_state = serializers.ChoiceField(Conversation.ReviewState.choices)
    trainer = serializers.SerializerMethodField(
        help_text="The same made-up code as in the project's exports; null where it was imported."
    )
    prompt = serializers.IntegerField(source="prompt_id", allow_null=True)
    revises = serializers.IntegerField(
        source="revises_id", allow_null=True, help_text="The conversation in whose place this one stands."
    )
    forked_from = serializers.IntegerField(source="forked_from_id", allow_null=True)
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    exported_at = serializers.DateTimeField(
        allow_null=True, help_text="When it became part of an export of demonstrations; it is not revised after that."
    )

    def get_trainer(self, conversation: Conversation) -> str | None:
        return conversation.trainer_id and derive.pseudonym(conversation.project.secret, conversation.trainer_id)


class ConversationDetail(ConversationOut):
    """A conversation with its messages and verdicts."""

    superseded_by = serializers.SerializerMethodField(help_text="The newer version that stands in its place.")
    messages = serializers.SerializerMethodField(help_text="Of what is still being written they are in the draft.")
    reviews = serializers.SerializerMethodField(help_text="The newest first.")

    def get_superseded_by(self, conversation: Conversation) -> int | None:
        newer = demonstrations.standing_in(conversation)
        return newer.pk if newer else None

    @extend_schema_field(MessageOut(many=True))
    def get_messages(self, conversation: Conversation) -> list[dict]:
        messages = list(conversation.messages.select_related("completion__request__policy").order_by("position"))
        context = {"reads_all": self.context["reads_all"], "passed": _passed(messages)}
        return MessageOut(messages, many=True, context=context).data

    @extend_schema_field(ReviewOut(many=True))
    def get_reviews(self, conversation: Conversation) -> list[dict]:
        found = conversation.reviews.select_related("conversation__project").prefetch_related("comments")
        return ReviewOut(found, many=True).data


def _passed(messages: Iterable[Message]) -> dict[int, str]:
    ids = {pk for message in messages for pk in message.passed}
    return dict(Completion.objects.filter(pk__in=ids).values_list("id", "text")) if ids else {}


def detail(conversation: Conversation, user: User) -> dict:
    """A conversation as this person may read it."""
    reads_all = access.has_role(user, *access.READS_ALL)
    return ConversationDetail(conversation, context={"reads_all": reads_all}).data


class ConversationPage(serializers.Serializer):
    """Some conversations, and where the following ones are."""

    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last one.")
    results = ConversationOut(many=True)


class ConversationList(APIView):
    """A project's conversations."""

    @extend_schema_serializer(component_name="ConversationFilter")
    class Input(PageInput):
        kind = serializers.ChoiceField(Conversation.Kind.choices, required=False)
        state = serializers.ChoiceField(Conversation.State.choices, required=False)
        review_state = serializers.ChoiceField(Conversation.ReviewState.choices, required=False)

    @extend_schema(
        operation_id="projects_conversations_list",
        parameters=[Input],
        responses={200: ConversationPage, 404: Refusal, 422: InvalidInput},
        tags=["conversations"],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Read a project's conversations, oldest first, page by page; trainers read their own.

        Follow `next` to the end; later, ask for what came `after` the last id that you have.
        """
        given = self.Input(data=request.query_params)
        given.is_valid(raise_exception=True)
        wanted = dict(given.validated_data)
        project = access.project_for(request.user, slug)
        page = {"after": wanted.pop("after"), "limit": wanted.pop("limit")}
        rows = access.conversations_read_by(request.user, project).filter(**wanted)
        rows = rows.select_related("project", "iteration", "imported_in")
        return one_page(request, rows, **page, shown_as=lambda found: ConversationOut(found, many=True).data)


class ConversationView(APIView):
    """One conversation."""

    @extend_schema(responses={200: ConversationDetail, 403: Refusal, 404: Refusal}, tags=["conversations"])
    def get(self, request: Request, conversation_id: int) -> Response:
        """Read one conversation with its messages, where each came from, and what reviewers said."""
        return Response(detail(access.conversation_for(request.user, conversation_id), request.user))
