"""Comparisons: one context and the candidates for its next message."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


class Comparison(models.Model):
    """The context of one selected message, and the completions that are ranked for its place."""

    class State(models.TextChoices):
        SAMPLING = "sampling", "Sampling: alternatives are being drawn, or those of its pool are being scored"
        OPEN = "open", "Open: waits for rankings"
        CLOSED = "closed", "Closed: all rankings are in"
        FAILED = "failed", "Failed: fewer than two distinct candidates, or its round was closed"
        PASSED_OVER = "passed_over", "Passed over: it was sampled, but another one of its pool is ranked instead"

    class Selection(models.TextChoices):
        RANDOM = "random", "Drawn at random"
        UNCERTAIN = "uncertain", "Chosen because reward models are uncertain of it"

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="comparisons")
    iteration = models.ForeignKey(
        "annotate.Iteration",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="comparisons",
        help_text="Empty where it was brought in from a file with its ranking.",
    )
    imported_in = models.ForeignKey(
        "annotate.Import",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="comparisons",
        help_text="The import that brought it in.",
    )
    source_id = models.CharField(
        max_length=200,
        blank=True,
        db_default="",
        help_text="Where it was brought in: its name in its source, or a digest of it; the same comes in once.",
    )
    message = models.ForeignKey(
        "annotate.Message",
        models.PROTECT,
        related_name="comparisons",
        help_text="The selected message; the messages before it are the context.",
    )
    state = models.CharField(max_length=11, choices=State, default=State.SAMPLING)
    k = models.PositiveSmallIntegerField(
        "K",
        validators=[MinValueValidator(2), MaxValueValidator(9)],
        help_text="Candidates that are wanted, 2 to 9; one that was brought in may have more.",
    )
    overlap = models.PositiveSmallIntegerField()
    draw_seed = models.CharField(
        max_length=64, blank=True, help_text="What the draw was made from, so that it can be redone; else empty."
    )
    draw_size = models.PositiveIntegerField(help_text="How many messages were eligible.")
    draw_index = models.PositiveIntegerField(help_text="Which of them was drawn, from 0.")
    selection = models.CharField(
        max_length=9,
        choices=Selection,
        default=Selection.RANDOM,
        db_default="random",
        help_text="How it came to be ranked. Only what was drawn at random measures honestly.",
    )
    pool = models.ForeignKey(
        "self",
        models.CASCADE,
        null=True,
        blank=True,
        related_name="pool_members",
        help_text="The first that was drawn of its pool, of which one is ranked; empty where it was drawn by itself.",
    )
    reason = models.CharField(max_length=200, blank=True, help_text="Why it failed or was passed over.")
    created_at = models.DateTimeField(auto_now_add=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["iteration", "message"], name="comparison_message_once_an_iteration"),
            models.CheckConstraint(
                condition=models.Q(draw_index__lt=models.F("draw_size")), name="comparison_drawn_from_set"
            ),
            models.CheckConstraint(
                condition=models.Q(k__gte=2) & (models.Q(k__lte=9) | models.Q(imported_in__isnull=False)),
                name="comparison_k_2_to_9",
            ),
            models.CheckConstraint(
                condition=models.Q(imported_in__isnull=True, iteration__isnull=False)
                | models.Q(imported_in__isnull=False, iteration__isnull=True, state="closed"),
                name="comparison_imported_has_no_round",
            ),
            models.UniqueConstraint(
                fields=["project", "source_id"],
                condition=models.Q(imported_in__isnull=False),
                name="comparison_imported_once",
            ),
            models.CheckConstraint(condition=models.Q(overlap__gte=1), name="comparison_overlap_from_1"),
            models.CheckConstraint(
                condition=models.Q(state__in=["sampling", "failed", "passed_over"], opened_at__isnull=True)
                | models.Q(state__in=["open", "closed"], opened_at__isnull=False),
                name="comparison_opened_has_time",
            ),
            models.CheckConstraint(
                condition=models.Q(state="closed", closed_at__isnull=False)
                | (~models.Q(state="closed") & models.Q(closed_at__isnull=True)),
                name="comparison_closed_has_time",
            ),
            models.CheckConstraint(
                condition=~models.Q(state="passed_over") | models.Q(pool__isnull=False),
                name="comparison_passed_over_of_pool",
            ),
            models.CheckConstraint(
                condition=~models.Q(selection="uncertain") | models.Q(pool__isnull=False, state__in=["open", "closed"]),
                name="comparison_uncertain_of_pool",
            ),
            models.UniqueConstraint(
                fields=["pool"], condition=models.Q(state__in=["open", "closed"]), name="comparison_one_of_a_pool"
            ),
        ]
        indexes = [
            models.Index(fields=["project", "state", "id"], name="comparison_listing"),
            models.Index(
                fields=["pool", "id"],
                condition=models.Q(state="sampling", pool__isnull=False),
                name="comparison_pools_waiting",
            ),
        ]

    def __str__(self) -> str:
        return f"Comparison {self.pk}"


class Candidate(models.Model):
    """One completion in a comparison. Frozen when the comparison opens."""

    comparison = models.ForeignKey(Comparison, models.CASCADE, related_name="candidates")
    completion = models.ForeignKey("annotate.Completion", models.PROTECT, related_name="candidates")
    original = models.BooleanField(default=False, help_text="Whether it is the selected message itself.")

    class Meta:
        ordering = ["comparison", "id"]
        constraints = [
            models.UniqueConstraint(fields=["comparison", "completion"], name="candidate_once"),
            models.UniqueConstraint(
                fields=["comparison"], condition=models.Q(original=True), name="candidate_one_original"
            ),
        ]

    def __str__(self) -> str:
        return f"Candidate {self.pk} of comparison {self.comparison_id}"
