"""Conversations: read here."""

from django.contrib import admin
from django.db.models import Count

from annotate.admin.reading import ReadOnly, ReadOnlyInline, linked, state
from annotate.models import Conversation, Message, Review


class MessagesInline(ReadOnlyInline):
    """The turns in their order, each with where it came from."""

    model = Message
    fields = (
        "position",
        "role",
        "text",
        "source",
        "suggestion",
        "changed",
        "effort",
        "not_taken",
        "finish",
        "created_at",
    )
    readonly_fields = ("suggestion", "changed", "effort", "not_taken", "finish", "created_at")

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("completion__request__policy").order_by("position")

    @admin.display(description="suggestion or reply")
    def suggestion(self, message: Message) -> str:
        completion = message.completion
        return (
            f"request {completion.request_id}, text {completion.index}, {completion.request.policy}"
            if completion
            else ""
        )

    @admin.display(description="changed")
    def changed(self, message: Message) -> str:
        """How far it is from the suggestion or the opening that it began as."""
        return "" if message.edit_distance is None else f"{message.edit_distance:.0%}"

    @admin.display(description="typed / pasted / taken, seconds")
    def effort(self, message: Message) -> str:
        """Characters that came into the box, and the time at it. Nothing for what was not written here."""
        counts = (message.typed, message.pasted, message.taken)
        return f"{' / '.join(map(str, counts))}, {message.active_seconds} s" if any(counts) else ""

    @admin.display(description="shown, not taken")
    def not_taken(self, message: Message) -> str:
        return str(len(message.passed)) if message.passed else ""

    @admin.display(description="ended by")
    def finish(self, message: Message) -> str:
        return message.completion.get_finish_reason_display() if message.completion else ""


class ReviewsInline(ReadOnlyInline):
    """What reviewers said of it."""

    model = Review
    fk_name = "conversation"
    fields = ("verdict", "reviewer", "current", "note", "comment_count", "edited_into", "created_at")
    readonly_fields = ("comment_count", "edited_into", "created_at")

    def get_queryset(self, request):
        found = super().get_queryset(request).select_related("reviewer", "edit")
        return found.annotate(counted=Count("comments")).order_by("id")

    @admin.display(description="comments")
    def comment_count(self, review: Review) -> int:
        return review.counted

    @admin.display(description="edited into")
    def edited_into(self, review: Review) -> str:
        return linked(review.edit)


@admin.register(Conversation)
class ConversationAdmin(ReadOnly):
    """What trainers and policies said, and what trainers wrote."""

    list_display = (
        "id", "what", state, "reviewed", "project", "round", "trainer", "prompt", "created_at", "finished_at",
    )  # fmt: skip
    list_filter = ("kind", "state", "review_state", "project")
    list_select_related = ("project", "iteration", "trainer", "prompt")
    search_fields = ("=id", "trainer__email", "=source_id")
    search_help_text = "Number of the conversation, e-mail address of its trainer, or its name in an imported file"
    ordering = ("-id",)
    inlines = (MessagesInline, ReviewsInline)
    exclude = ("revises", "forked_from")
    readonly_fields = ("stands_in_place_of", "newer_versions", "branched_from", "branched_into")

    @admin.display(description="kind")
    def what(self, conversation: Conversation) -> str:
        return conversation.kind

    @admin.display(description="review")
    def reviewed(self, conversation: Conversation) -> str:
        return "" if conversation.review_state == Conversation.ReviewState.NONE else conversation.review_state

    @admin.display(description="iteration")
    def round(self, conversation: Conversation) -> int | str:
        return conversation.iteration.number if conversation.iteration else "imported"

    @admin.display(description="stands in the place of")
    def stands_in_place_of(self, conversation: Conversation) -> str:
        return linked(conversation.revises)

    @admin.display(description="newer versions")
    def newer_versions(self, conversation: Conversation) -> str:
        return linked(*conversation.revisions.order_by("pk")[:20])

    @admin.display(description="branched from")
    def branched_from(self, conversation: Conversation) -> str:
        return linked(conversation.forked_from)

    @admin.display(description="branches")
    def branched_into(self, conversation: Conversation) -> str:
        return linked(*conversation.branches.order_by("pk")[:20])
