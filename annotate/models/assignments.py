"""Assignments: slots of work, and how far each trainer has looked through the queue."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models


class SkipReason(models.TextChoices):
    """Why a trainer passed a slot on."""

    UNCLEAR = "unclear", "I cannot tell what is being asked"
    EXPERTISE = "expertise", "It needs knowledge that I do not have"
    LANGUAGE = "language", "It is in a language that I do not read well"
    SENSITIVE = "sensitive", "I would rather not work on this subject"
    BROKEN = "broken", "Something is broken"
    OTHER = "other", "Another reason"


class Assignment(models.Model):
    """One slot of work. A row once held keeps its trainer for ever."""

    class Kind(models.TextChoices):
        CHAT = "chat", "Talk to the model"
        RANK = "rank", "Rank answers"
        WRITE = "write", "Write both sides"
        REVIEW = "review", "Review what was written"

    class State(models.TextChoices):
        FREE = "free", "Free: can be claimed"
        HELD = "held", "Held by a trainer, until its lease runs out"
        SUBMITTED = "submitted", "Submitted: counts"
        SKIPPED = "skipped", "Skipped by its trainer, with a reason"
        EXPIRED = "expired", "Expired: its lease ran out"
        SURPLUS = "surplus", "Surplus: came in after its place was taken; kept, not counted"
        WITHDRAWN = "withdrawn", "Withdrawn: not needed any more, never worked on"

    LIVE = ("free", "held", "submitted")

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="assignments")
    iteration = models.ForeignKey("annotate.Iteration", models.PROTECT, related_name="assignments")
    kind = models.CharField(max_length=8, choices=Kind)
    state = models.CharField(max_length=9, choices=State, default=State.FREE)
    priority = models.SmallIntegerField(default=0, help_text="Lower numbers are handed out first.")
    ordinal = models.PositiveSmallIntegerField(
        default=1, help_text="Which of its comparison's rankings it is, 1 to the overlap."
    )
    trainer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="assignments"
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Who held the conversation that is ranked or reviewed; not offered to them. Rankings are where the "
        "project says so.",
    )
    seat = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="1 is what its trainer works on, 2 is what was fetched ahead."
    )
    comparison = models.ForeignKey(
        "annotate.Comparison", models.CASCADE, null=True, blank=True, related_name="assignments"
    )
    conversation = models.OneToOneField(
        "annotate.Conversation", models.PROTECT, null=True, blank=True, related_name="assignment"
    )
    subject = models.ForeignKey(
        "annotate.Conversation",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="slots",
        help_text="The finished conversation that is reviewed, or that is to be mended or revised.",
    )
    reserved_for = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="reserved",
        help_text="While it is free, offered to this person only.",
    )
    reserved_until = models.DateTimeField(
        null=True, blank=True, help_text="After this anyone may take it; empty where that never happens."
    )
    personal = models.BooleanField(
        default=False,
        db_default=False,
        help_text="A branch or a revision that its trainer asked for: nobody else gets it.",
    )
    replaces = models.OneToOneField("self", models.PROTECT, null=True, blank=True, related_name="replacement")
    shown_order = ArrayField(
        models.BigIntegerField(),
        default=list,
        blank=True,
        help_text="Candidates in the order in which they are shown: A, B, C …",
    )
    draft = models.JSONField(default=dict, blank=True, help_text="What was typed and not yet sent.")
    draft_version = models.PositiveIntegerField(default=0)
    active_seconds = models.PositiveIntegerField(default=0, help_text="Time at work, idle time left out.")
    skip_reason = models.CharField(max_length=10, choices=SkipReason, blank=True)
    skip_note = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    held_at = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["comparison", "trainer"], name="assignment_comparison_once_a_trainer"),
            models.UniqueConstraint(
                fields=["comparison", "ordinal"],
                condition=models.Q(state__in=["free", "held", "submitted"]),
                name="assignment_live_ordinal_once",
            ),
            models.UniqueConstraint(
                fields=["project", "trainer", "seat"],
                condition=models.Q(state="held"),
                name="assignment_seat_once_a_trainer",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["free", "withdrawn"], trainer__isnull=True)
                | (~models.Q(state__in=["free", "withdrawn"]) & models.Q(trainer__isnull=False)),
                name="assignment_held_has_trainer",
            ),
            models.CheckConstraint(
                condition=models.Q(state="held", seat__in=[1, 2], lease_until__isnull=False, held_at__isnull=False)
                | (~models.Q(state="held") & models.Q(seat__isnull=True, lease_until__isnull=True)),
                name="assignment_held_has_lease",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["free", "held"], ended_at__isnull=True)
                | (~models.Q(state__in=["free", "held"]) & models.Q(ended_at__isnull=False)),
                name="assignment_ended_has_time",
            ),
            models.CheckConstraint(
                condition=models.Q(kind="rank", comparison__isnull=False, conversation__isnull=True)
                | models.Q(kind="chat", comparison__isnull=True)
                | models.Q(kind="write", comparison__isnull=True)
                | models.Q(kind="review", comparison__isnull=True, conversation__isnull=True, subject__isnull=False),
                name="assignment_belongs_to_its_kind",
            ),
            models.CheckConstraint(
                condition=models.Q(state="skipped") & ~models.Q(skip_reason="")
                | ~models.Q(state="skipped") & models.Q(skip_reason=""),
                name="assignment_skip_has_reason",
            ),
            models.CheckConstraint(condition=models.Q(ordinal__gte=1), name="assignment_ordinal_from_1"),
            models.CheckConstraint(
                condition=models.Q(subject__isnull=True) | models.Q(kind__in=["write", "review"]),
                name="assignment_subject_of_its_kind",
            ),
            models.CheckConstraint(
                condition=models.Q(personal=False) | models.Q(kind="write", reserved_for__isnull=False),
                name="assignment_personal_has_its_person",
            ),
            models.UniqueConstraint(
                fields=["subject"],
                condition=models.Q(kind="review", state__in=["free", "held", "submitted"]),
                name="assignment_one_review_at_a_time",
            ),
            models.UniqueConstraint(
                fields=["subject"],
                condition=models.Q(kind="write", state__in=["free", "held", "submitted"]),
                name="assignment_one_revision_at_a_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["project", "kind", "priority", "ordinal", "id"],
                condition=models.Q(state="free", reserved_for__isnull=True),
                name="assignment_queue",
            ),
            models.Index(
                fields=["reserved_for", "project"],
                condition=models.Q(state="free", reserved_for__isnull=False),
                name="assignment_reserved",
            ),
            models.Index(fields=["lease_until"], condition=models.Q(state="held"), name="assignment_leases"),
            models.Index(fields=["trainer", "-ended_at"], name="assignment_history"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} assignment {self.pk}"


class QueueCursor(models.Model):
    """Up to which free slot of one part of the queue nothing can ever be for this trainer.

    It makes the search for the next slot as short for someone who has ranked half of everything
    as for someone new. Only a hint of where to begin: eligibility is always checked.
    """

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="+")
    trainer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    kind = models.CharField(max_length=8)
    priority = models.SmallIntegerField()
    ordinal = models.PositiveSmallIntegerField()
    after = models.BigIntegerField(help_text="The assignment after which to look.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "trainer", "kind", "priority", "ordinal"], name="queue_cursor_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.trainer_id} after {self.after}"
