"""Conversations and their messages."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models


class Conversation(models.Model):
    """A linear exchange. A finished one never changes."""

    class Kind(models.TextChoices):
        CHAT = "chat", "A trainer talked to the policy"
        WRITE = "write", "A trainer wrote both sides"
        IMPORTED = "imported", "Brought in from a file"

    class State(models.TextChoices):
        OPEN = "open", "Open: being held"
        FINISHED = "finished", "Finished: part of the record"
        ABANDONED = "abandoned", "Abandoned: skipped or run out before its end"

    class ReviewState(models.TextChoices):
        NONE = "none", "Not drawn for review"
        WANTED = "wanted", "To be reviewed"
        APPROVED = "approved", "Approved by a reviewer"
        RETURNED = "returned", "Returned to its trainer with comments"

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="conversations")
    iteration = models.ForeignKey(
        "annotate.Iteration",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="conversations",
        help_text="Empty where it was brought in from a file.",
    )
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.CHAT)
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    trainer = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="conversations",
        help_text="Empty where it was brought in from a file.",
    )
    prompt = models.ForeignKey("annotate.Prompt", models.SET_NULL, null=True, blank=True, related_name="conversations")
    family = models.CharField(
        max_length=64,
        blank=True,
        help_text="The family of its opening, set at the end, or after the import; decides its split.",
    )
    revises = models.ForeignKey(
        "self",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="revisions",
        help_text="The conversation in whose place this one stands: mended, revised or edited by a reviewer.",
    )
    forked_from = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="branches", help_text="What it branched from."
    )
    review_state = models.CharField(max_length=8, choices=ReviewState, default=ReviewState.NONE, db_default="none")
    near = ArrayField(
        models.BigIntegerField(),
        default=list,
        db_default=[],
        blank=True,
        editable=False,
        help_text="Keys that near-duplicates share, set at the end.",
    )
    exported_at = models.DateTimeField(
        null=True, blank=True, help_text="When it first became part of an export; it can no longer be revised then."
    )
    imported_in = models.ForeignKey(
        "annotate.Import",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="conversations",
        help_text="The import that brought it in.",
    )
    source_id = models.CharField(
        max_length=200, blank=True, db_default="", help_text="Its name in the file that it came from."
    )
    digest = models.CharField(
        max_length=64,
        blank=True,
        db_default="",
        editable=False,
        help_text="SHA-256 of what was said, where it was brought in; the same is not brought in twice.",
    )
    facts = models.JSONField(null=True, blank=True, help_text="What its source says of it beside its messages.")
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
                condition=~models.Q(state="finished", family="") | models.Q(kind="imported"),
                name="conversation_finished_has_family",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    kind="imported",
                    state="finished",
                    imported_in__isnull=False,
                    trainer__isnull=True,
                    iteration__isnull=True,
                )
                | (
                    ~models.Q(kind="imported")
                    & models.Q(imported_in__isnull=True, trainer__isnull=False, iteration__isnull=False)
                ),
                name="conversation_imported_has_no_trainer",
            ),
            models.UniqueConstraint(
                fields=["project", "digest"], condition=models.Q(kind="imported"), name="conversation_imported_once"
            ),
            models.CheckConstraint(
                condition=models.Q(review_state="none") | models.Q(kind="write", state="finished"),
                name="conversation_reviewed_is_written",
            ),
        ]
        indexes = [
            models.Index(fields=["project", "state", "-id"], name="conversation_listing"),
            models.Index(
                fields=["project", "review_state", "-id"],
                condition=models.Q(kind="write", state="finished"),
                name="conversation_written",
            ),
            models.Index(
                fields=["project", "source_id"],
                condition=models.Q(kind="imported"),
                name="conversation_source",
            ),
            models.Index(
                fields=["project", "id"],
                condition=models.Q(kind="imported", family=""),
                name="conversation_without_family",
            ),
            # Without a list of pending entries: after a large import a look through it would take a second.
            GinIndex(fields=["near"], fastupdate=False, name="conversation_near"),
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
        TAKEN = "taken", "A suggestion, whole"
        EDITED = "edited", "A suggestion or an opening, changed by a person"
        REPLY = "reply", "The policy's own"
        IMPORTED = "imported", "Brought in from elsewhere, as an opening is"

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=9, choices=ChatRole)
    text = models.TextField()
    source = models.CharField(max_length=8, choices=Source)
    completion = models.ForeignKey(
        "annotate.Completion", models.PROTECT, null=True, blank=True, related_name="messages"
    )
    edit_distance = models.FloatField(
        null=True, blank=True, help_text="From the suggestion or opening, 0 to 1: Levenshtein over the longer length."
    )
    passed = ArrayField(
        models.BigIntegerField(),
        default=list,
        db_default=[],
        blank=True,
        help_text="Completions that were shown as suggestions for this turn and not taken.",
    )
    active_seconds = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Time at this turn, idle time left out."
    )
    source_id = models.CharField(
        max_length=200,
        blank=True,
        db_default="",
        help_text="Where it was brought in: its name in its source, or a digest of it and all before it. The same "
        "message in several conversations has the same one.",
    )
    facts = models.JSONField(null=True, blank=True, help_text="What its source says of it beside its text.")
    typed = models.PositiveIntegerField(default=0, db_default=0, help_text="Characters typed.")
    pasted = models.PositiveIntegerField(default=0, db_default=0, help_text="Characters pasted or dropped.")
    taken = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Characters taken from suggestions or the opening."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["conversation", "position"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "position"], name="message_position_once"),
            models.CheckConstraint(
                condition=models.Q(source="reply", completion__isnull=False, role="assistant")
                | models.Q(source="taken", completion__isnull=False)
                | models.Q(source="edited")
                | models.Q(source__in=["written", "imported"], completion__isnull=True),
                name="message_source_has_completion",
            ),
            models.UniqueConstraint(
                fields=["completion"], condition=models.Q(source="reply"), name="message_reply_once"
            ),
            models.CheckConstraint(
                condition=models.Q(edit_distance__isnull=True) | models.Q(edit_distance__gte=0, edit_distance__lte=1),
                name="message_edit_distance_0_to_1",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.position} of conversation {self.conversation_id}"
