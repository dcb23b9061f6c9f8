"""Sampling jobs and the texts that come of them."""

from django.db import models
from django.utils import timezone

from annotate.models.policies import Policy


class GenerationRequest(models.Model):
    """One sampling job: n completions of one context by one policy."""

    class Purpose(models.TextChoices):
        REPLY = "reply", "The next message of a chat"
        SUGGESTION = "suggestion", "Suggestions to somebody who writes both sides"
        ALTERNATIVES = "alternatives", "Candidates beside a selected message"

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting for a worker"
        CLAIMED = "claimed", "A worker is sampling it"
        DONE = "done", "Done"
        FAILED = "failed", "Failed: see the reason; it can be tried again"
        CANCELLED = "cancelled", "Cancelled: stopped by a person"
        REFUSED = "refused", "Refused: too long for the model's context"

    RANK_OF_PURPOSE = {"reply": 0, "suggestion": 1, "alternatives": 2}

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="requests")
    policy = models.ForeignKey("annotate.Policy", models.PROTECT, related_name="requests")
    purpose = models.CharField(max_length=12, choices=Purpose)
    urgency = models.PositiveSmallIntegerField(help_text="0 is served first: replies 0, suggestions 1, alternatives 2.")
    conversation = models.ForeignKey(
        "annotate.Conversation", models.CASCADE, null=True, blank=True, related_name="requests"
    )
    position = models.PositiveIntegerField(
        null=True, blank=True, help_text="Where in the conversation its text belongs."
    )
    comparison = models.ForeignKey(
        "annotate.Comparison", models.CASCADE, null=True, blank=True, related_name="requests"
    )
    assignment = models.ForeignKey(
        "annotate.Assignment",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="requests",
        help_text="Whose page the text streams to.",
    )
    role = models.CharField(
        max_length=9,
        choices=[("user", "User"), ("assistant", "Assistant")],
        default="assistant",
        db_default="assistant",
        help_text="The side whose next message is sampled.",
    )
    hint = models.TextField(blank=True, default="", db_default="", help_text="What the person who asked wants of it.")
    messages = models.JSONField(help_text="The context as the model sees it: a list of role and content.")
    template_hash = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the chat template; empty where a server has its own."
    )
    n = models.PositiveSmallIntegerField(default=1)
    sampling = models.JSONField()
    state = models.CharField(max_length=9, choices=State, default=State.WAITING)
    attempt = models.PositiveSmallIntegerField(default=0, help_text="How often a worker has claimed it.")
    claim_token = models.UUIDField(null=True, blank=True, editable=False)
    claimed_by = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    stop_asked = models.BooleanField(default=False, help_text="A person asked to stop; the worker closes it.")
    reason = models.TextField(blank=True, help_text="Why it failed, was refused or was tried again.")
    created_at = models.DateTimeField(auto_now_add=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    state="claimed", claim_token__isnull=False, lease_until__isnull=False, claimed_at__isnull=False
                )
                | (~models.Q(state="claimed") & models.Q(claim_token__isnull=True, lease_until__isnull=True)),
                name="request_claimed_has_lease",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["waiting", "claimed"], ended_at__isnull=True)
                | (~models.Q(state__in=["waiting", "claimed"]) & models.Q(ended_at__isnull=False)),
                name="request_ended_has_time",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    purpose="reply", conversation__isnull=False, position__isnull=False, comparison__isnull=True, n=1
                )
                | models.Q(
                    purpose="suggestion",
                    conversation__isnull=False,
                    position__isnull=False,
                    comparison__isnull=True,
                    n__gte=1,
                    n__lte=3,
                )
                | models.Q(purpose="alternatives", comparison__isnull=False, conversation__isnull=True),
                name="request_belongs_to_its_purpose",
            ),
            models.CheckConstraint(
                condition=models.Q(purpose="reply", urgency=0)
                | models.Q(purpose="suggestion", urgency=1)
                | models.Q(purpose="alternatives", urgency=2),
                name="request_urgency_of_purpose",
            ),
            models.CheckConstraint(
                condition=models.Q(role="assistant") | models.Q(purpose="suggestion"), name="request_user_is_suggested"
            ),
            models.UniqueConstraint(
                fields=["conversation"],
                condition=models.Q(purpose="reply", state__in=["waiting", "claimed"]),
                name="request_one_reply_at_a_time",
            ),
        ]
        indexes = [
            models.Index(fields=["policy", "urgency", "id"], condition=models.Q(state="waiting"), name="request_queue"),
            models.Index(fields=["lease_until"], condition=models.Q(state="claimed"), name="request_leases"),
            models.Index(fields=["state", "-id"], name="request_listing"),
            # What ended in the last minutes, for figures.
            models.Index(fields=["ended_at"], condition=models.Q(ended_at__isnull=False), name="request_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} request {self.pk}"

    @classmethod
    def beginning(cls, policy: Policy) -> dict:
        """Fields of a new request: it waits; of a policy that is switched off it has failed already."""
        if policy.active:
            return {"policy": policy, "state": cls.State.WAITING}
        return {"policy": policy, "state": cls.State.FAILED, "reason": policy.off, "ended_at": timezone.now()}


class Completion(models.Model):
    """One text for the place of a message: sampled from a policy, or brought in from a file."""

    class Kind(models.TextChoices):
        SAMPLED = "sampled", "Sampled from a policy"
        IMPORTED = "imported", "Brought in from a file"

    class FinishReason(models.TextChoices):
        STOP = "stop", "The model ended it"
        LENGTH = "length", "Cut at the longest length"
        STOPPED = "stopped", "Stopped by a person"

    request = models.ForeignKey(GenerationRequest, models.CASCADE, null=True, blank=True, related_name="completions")
    index = models.PositiveSmallIntegerField(default=0, db_default=0)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.SAMPLED)
    text = models.TextField()
    reasoning = models.TextField(
        blank=True, db_default="", help_text="What a model that thinks wrote before the text. Never part of it."
    )
    source_id = models.CharField(
        max_length=200, blank=True, db_default="", help_text="Where it was brought in: its name in its source."
    )
    model = models.CharField(
        max_length=120, blank=True, db_default="", help_text="The model that wrote it, where its source says so."
    )
    finish_reason = models.CharField(max_length=8, choices=FinishReason, blank=True, db_default="")
    prompt_tokens = models.PositiveIntegerField(
        null=True, blank=True, help_text="0 where a server did not tell, as of a text that was stopped."
    )
    completion_tokens = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Of pieces that came, where a server did not tell, as of a text that was stopped.",
    )
    first_token_ms = models.PositiveIntegerField(
        null=True, help_text="From the claim to the first token, of the thought where there is one."
    )
    total_ms = models.PositiveIntegerField(null=True, help_text="From the claim to the last token.")
    seed = models.BigIntegerField(null=True, help_text="Only where the engine honours one.")
    rejected = models.CharField(
        max_length=40, blank=True, help_text="Why it is no candidate: stopped, empty, duplicate. Blank where it may be."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["request", "index"]
        constraints = [
            models.UniqueConstraint(fields=["request", "index"], name="completion_index_once"),
            models.CheckConstraint(
                condition=models.Q(
                    kind="sampled",
                    request__isnull=False,
                    prompt_tokens__isnull=False,
                    completion_tokens__isnull=False,
                )
                & ~models.Q(finish_reason="")
                | models.Q(kind="imported", request__isnull=True),
                name="completion_sampled_has_request",
            ),
        ]

    def __str__(self) -> str:
        return f"Completion {self.pk}" if self.request_id is None else f"Text {self.index} of request {self.request_id}"
