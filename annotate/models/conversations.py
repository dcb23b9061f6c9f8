"""Conversations and their messages."""

from django.conf import settings
from django.db import models


class Conversation(models.Model):
    """A linear exchange. A finished one never changes."""

    class Kind(models.TextChoices):
        CHAT = "chat", "A trainer talked to the policy"

    class State(models.TextChoices):
        OPEN = "open", "Open: being held"
        FINISHED = "finished", "Finished: part of the record"
        ABANDONED = "abandoned", "Abandoned: skipped or run out before its end"

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="conversations")
    iteration = models.ForeignKey("annotate.Iteration", models.PROTECT, related_name="conversations")
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.CHAT)
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    trainer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="conversations")
    prompt = models.ForeignKey("annotate.Prompt", models.SET_NULL, null=True, blank=True, related_name="conversations")
    family = models.CharField(
        max_length=64, blank=True, help_text="The family of its opening, set at the end; decides its split."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state="finished", finished_at__isnull=False)
                | (~models.Q(state="finished") & models.Q(finished_at__isnull=True)),
                name="conversation_finished_has_time",
            ),
            models.CheckConstraint(
                condition=~models.Q(state="finished", family=""), name="conversation_finished_has_family"
            ),
        ]
        indexes = [
            models.Index(fields=["project", "state", "-id"], name="conversation_listing"),
        ]

    def __str__(self) -> str:
        return f"Conversation {self.pk}"


class Message(models.Model):
    """One turn of a conversation, or its system message at position 0."""

    class ChatRole(models.TextChoices):
        SYSTEM = "system", "System"
        USER = "user", "User"
        ASSISTANT = "assistant", "Assistant"

    class Source(models.TextChoices):
        WRITTEN = "written", "Written by a person"
        REPLY = "reply", "The policy's own"

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=9, choices=ChatRole)
    text = models.TextField()
    source = models.CharField(max_length=8, choices=Source)
    completion = models.OneToOneField(
        "annotate.Completion", models.PROTECT, null=True, blank=True, related_name="message"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["conversation", "position"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "position"], name="message_position_once"),
            models.CheckConstraint(
                condition=models.Q(source="reply", completion__isnull=False, role="assistant")
                | models.Q(source="written", completion__isnull=True),
                name="message_reply_has_completion",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.position} of conversation {self.conversation_id}"
