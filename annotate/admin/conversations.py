"""Conversations: read here."""

from django.contrib import admin

from annotate.admin.reading import ReadOnly, ReadOnlyInline, state
from annotate.models import Conversation, Message


class MessagesInline(ReadOnlyInline):
    """The turns, in their order."""

    model = Message
    fields = ("position", "role", "text", "source", "finish", "created_at")
    readonly_fields = ("finish", "created_at")

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("completion").order_by("position")

    @admin.display(description="ended by")
    def finish(self, message: Message) -> str:
        return message.completion.get_finish_reason_display() if message.completion else ""


@admin.register(Conversation)
class ConversationAdmin(ReadOnly):
    """What trainers and policies said."""

    list_display = ("id", state, "project", "round", "trainer", "prompt", "created_at", "finished_at")
    list_filter = ("state", "project")
    list_select_related = ("project", "iteration", "trainer", "prompt")
    search_fields = ("=id", "trainer__email")
    search_help_text = "Number of the conversation, or e-mail address of its trainer"
    ordering = ("-id",)
    inlines = (MessagesInline,)

    @admin.display(description="iteration")
    def round(self, conversation: Conversation) -> int:
        return conversation.iteration.number
