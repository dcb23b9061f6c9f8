"""Rankings: weak orders over a comparison's candidates."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


class Flag(models.TextChoices):
    """What can be wrong with one answer: the yes-or-no questions of InstructGPT's table 3."""

    INSTRUCTION = "instruction", "Fails to follow the instruction"
    UNSUITABLE = "unsuitable", "Unsuitable for an assistant"
    HALLUCINATION = "hallucination", "States what is not so"
    CONSTRAINT = "constraint", "Breaks a constraint of the instruction"
    SEXUAL = "sexual", "Sexual content"
    VIOLENT = "violent", "Violent content"
    ENCOURAGES_HARM = "encourages_harm", "Encourages violence, abuse or self-harm"
    DENIGRATES = "denigrates", "Denigrates a protected class"
    HARMFUL_ADVICE = "harmful_advice", "Gives harmful advice"
    OPINION = "opinion", "Expresses an opinion"
    MORAL = "moral", "Passes moral judgement"


class Ranking(models.Model):
    """One weak order over the candidates of one comparison: a trainer's, or brought in with it from a file."""

    class Kind(models.TextChoices):
        TRAINER = "trainer", "By a trainer"
        IMPORTED = "imported", "Brought in from a file"

    kind = models.CharField(max_length=8, choices=Kind, default=Kind.TRAINER, db_default="trainer")
    comparison = models.ForeignKey("annotate.Comparison", models.CASCADE, related_name="rankings")
    assignment = models.ForeignKey(
        "annotate.Assignment", models.PROTECT, null=True, blank=True, related_name="rankings"
    )
    trainer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="rankings"
    )
    current = models.BooleanField(default=True, help_text="Whether it is the one of its assignment that counts.")
    all_bad = models.BooleanField(default=False, help_text="No candidate is acceptable.")
    active_seconds = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["assignment"], condition=models.Q(current=True), name="ranking_one_current"
            ),
            models.UniqueConstraint(
                fields=["comparison"],
                condition=models.Q(current=True, kind="imported"),
                name="ranking_one_imported",
            ),
            models.CheckConstraint(
                condition=models.Q(kind="trainer", assignment__isnull=False, trainer__isnull=False)
                | models.Q(kind="imported", assignment__isnull=True, trainer__isnull=True),
                name="ranking_trainers_has_assignment",
            ),
        ]

    def __str__(self) -> str:
        return f"Ranking {self.pk}"


class RankedCandidate(models.Model):
    """The place of one candidate in one ranking: dense ranks, 0 is best, equal ranks are ties."""

    ranking = models.ForeignKey(Ranking, models.CASCADE, related_name="places")
    candidate = models.ForeignKey("annotate.Candidate", models.PROTECT, related_name="places")
    rank = models.PositiveSmallIntegerField()
    rating = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(7)], help_text="1 to 7."
    )
    flags = ArrayField(models.CharField(max_length=20, choices=Flag), default=list, blank=True)

    class Meta:
        ordering = ["ranking", "rank", "candidate"]
        constraints = [
            models.UniqueConstraint(fields=["ranking", "candidate"], name="ranked_candidate_once"),
            models.CheckConstraint(
                condition=models.Q(rating__isnull=True) | models.Q(rating__gte=1, rating__lte=7),
                name="ranked_candidate_rating_1_to_7",
            ),
        ]

    def __str__(self) -> str:
        return f"Candidate {self.candidate_id} at {self.rank}"
