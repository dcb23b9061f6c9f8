"""Projects, their guidelines, their members and their iterations."""

import secrets

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


class WriteFrom(models.TextChoices):
    """What a piece of writing starts with."""

    PROMPTS = "prompts", "An opening from the prompts, the least used first"
    BLANK = "blank", "A blank page with the topic"


class SplitBy(models.TextChoices):
    """What decides into which split work comes."""

    FAMILY = "family", "The family of its opening"
    AUTHOR = "author", "Who held or wrote the conversation; a family stays with the one who began it"


class TurnShape(models.TextChoices):
    """In which order the turns of a written conversation may follow one another."""

    ALTERNATE = "alternate", "The user begins, then the two sides take turns"
    FREE = "free", "Any: a side may begin, and may have several turns in a row"


def new_secret() -> str:
    """64 hexadecimal digits: the key from which draws, splits and pseudonyms derive."""
    return secrets.token_hex(32)


def default_kinds() -> list[str]:
    """The kinds of work that a new project hands out, in the order in which they are offered."""
    return ["rank", "chat", "write"]


class Project(models.Model):
    """A campaign: what is collected, from whom, and how."""

    slug = models.SlugField(unique=True, help_text="The name in commands and addresses.")
    name = models.CharField(max_length=120)
    kinds = ArrayField(
        models.CharField(max_length=8),
        default=default_kinds,
        help_text="Kinds of work in the order in which they are offered: rank, chat, write. "
        "Reviews are offered to reviewers.",
    )
    system_message = models.TextField(
        default="You are a helpful, honest and harmless assistant.",
        help_text="The first message of every new conversation, as the model sees it. May not be empty: "
        "chat templates add one of their own where none is given.",
    )
    k = models.PositiveSmallIntegerField(
        "K",
        default=4,
        validators=[MinValueValidator(2), MaxValueValidator(9)],
        help_text="Candidates in a comparison, the original included where it is kept.",
    )
    overlap = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="Rankings wanted on one comparison.",
    )
    max_new_tokens = models.PositiveIntegerField(
        default=256, validators=[MinValueValidator(1)], help_text="The longest completion, in tokens."
    )
    temperature = models.FloatField(
        default=0.8, validators=[MinValueValidator(0.0), MaxValueValidator(5.0)], help_text="0 is greedy."
    )
    top_p = models.FloatField(default=0.95, validators=[MinValueValidator(0.01), MaxValueValidator(1.0)])
    top_k = models.PositiveIntegerField(default=0, help_text="0 leaves it out.")
    authors_rank_own = models.BooleanField(
        default=False, help_text="Whether trainers may rank messages of conversations that they held themselves."
    )
    topic = models.TextField(blank=True, help_text="What to write about, shown on a blank page.")
    write_from = models.CharField(
        max_length=8, choices=WriteFrom, default=WriteFrom.PROMPTS, help_text="What a piece of writing starts with."
    )
    turn_shape = models.CharField(
        max_length=9, choices=TurnShape, default=TurnShape.ALTERNATE, help_text="The order of turns in what is written."
    )
    system_editable = models.BooleanField(
        default=False, help_text="Whether trainers may change the system message of what they write."
    )
    suggestions = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(3)],
        help_text="How many suggestions are sampled at once, 1 to 3.",
    )
    suggests_unasked = models.BooleanField(
        default=False, help_text="Whether one suggestion is made ready at every turn without being asked for."
    )
    review_share = models.FloatField(
        default=1.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="The share of written conversations that is reviewed, 0 to 1; drawn by a seed.",
    )
    counts_before_review = models.BooleanField(
        default=False, help_text="Whether what is to be reviewed counts before that. What came back never does."
    )
    return_hours = models.PositiveIntegerField(
        default=72,
        validators=[MaxValueValidator(24 * 365)],
        help_text="How long what came back waits for its own trainer before anyone may take it, in hours.",
    )
    split_by = models.CharField(
        max_length=6,
        choices=SplitBy,
        default=SplitBy.FAMILY,
        db_default="family",
        help_text="What decides the split. Fixed with the first export.",
    )
    keeps_original = models.BooleanField(
        "keeps the original",
        default=True,
        db_default=True,
        help_text="Whether the selected message is itself one of the K candidates; else all K are sampled afresh.",
    )
    policies = models.ManyToManyField(
        "annotate.Policy",
        through="annotate.ProjectPolicy",
        blank=True,
        help_text="What the next iteration samples from.",
    )
    scored_by = models.ForeignKey(
        "annotate.TrainingRun",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="The run whose reward model scores what is ranked here; empty means that nothing is scored.",
    )
    recipe = models.JSONField(
        default=dict, db_default={}, blank=True, help_text="What is trained between two rounds, and how."
    )
    secret = models.CharField(max_length=64, default=new_secret, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(k__gte=2, k__lte=9), name="project_k_2_to_9"),
            models.CheckConstraint(condition=models.Q(overlap__gte=1), name="project_overlap_from_1"),
            models.CheckConstraint(condition=models.Q(temperature__gte=0), name="project_temperature_from_0"),
            models.CheckConstraint(condition=models.Q(top_p__gt=0, top_p__lte=1), name="project_top_p_0_to_1"),
            models.CheckConstraint(condition=models.Q(max_new_tokens__gte=1), name="project_tokens_from_1"),
            models.CheckConstraint(condition=~models.Q(system_message=""), name="project_system_message_there"),
            models.CheckConstraint(
                condition=models.Q(suggestions__gte=1, suggestions__lte=3), name="project_suggestions_1_to_3"
            ),
            models.CheckConstraint(
                condition=models.Q(review_share__gte=0, review_share__lte=1), name="project_review_share_0_to_1"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def sampling(self) -> dict:
        """The project's sampling settings as a request carries them."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
        }


class ProjectPolicy(models.Model):
    """That the next iteration of a project samples from a policy, and how much of each comparison."""

    project = models.ForeignKey(Project, models.CASCADE)
    policy = models.ForeignKey("annotate.Policy", models.CASCADE)
    weight = models.PositiveSmallIntegerField(
        default=1,
        db_default=1,
        validators=[MaxValueValidator(1000)],
        help_text="Its part of the K candidates, in proportion to the weights of the others; 0 is none.",
    )
    replies = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether trainers chat with it, and suggestions come from it. Where none is chosen, the first one "
        "does.",
    )

    class Meta:
        # The name that it had as a table of mere pairs.
        db_table = "annotate_project_policies"
        verbose_name_plural = "policies"
        ordering = ["id"]
        unique_together = [("project", "policy")]
        constraints = [
            models.UniqueConstraint(
                fields=["project"], condition=models.Q(replies=True), name="project_policy_one_replies"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.policy} for {self.project}"


class GuidelineVersion(models.Model):
    """One version of a project's guidelines, in Markdown. A changed text is a new version."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="guideline_versions")
    number = models.PositiveIntegerField()
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["project", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="guideline_version_once"),
        ]

    def __str__(self) -> str:
        return f"{self.project} guidelines {self.number}"


class Membership(models.Model):
    """That a person works on a project. Without one they see nothing of it."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}"


class Iteration(models.Model):
    """One numbered round of a project against fixed policies and settings."""

    class State(models.TextChoices):
        OPEN = "open", "Open: work is handed out"
        CLOSING = "closing", "Closing: held work may still come in, nothing new is handed out"
        CLOSED = "closed", "Closed: never changes again"

    project = models.ForeignKey(Project, models.CASCADE, related_name="iterations")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    k = models.PositiveSmallIntegerField("K")
    overlap = models.PositiveSmallIntegerField()
    sampling = models.JSONField()
    keeps_original = models.BooleanField(default=True, db_default=True)
    policies = models.ManyToManyField("annotate.Policy", through="annotate.IterationPolicy", related_name="iterations")
    reply_policy = models.ForeignKey("annotate.Policy", models.PROTECT, related_name="+")
    guidelines = models.ForeignKey(GuidelineVersion, models.PROTECT, null=True, related_name="+")
    form_version = models.PositiveSmallIntegerField(default=1)
    opened_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["project", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="iteration_number_once"),
            models.UniqueConstraint(
                fields=["project"], condition=models.Q(state="open"), name="iteration_one_open_a_project"
            ),
            models.CheckConstraint(
                condition=models.Q(state="closed", closed_at__isnull=False)
                | (~models.Q(state="closed") & models.Q(closed_at__isnull=True)),
                name="iteration_closed_has_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project} iteration {self.number}"


class IterationPolicy(models.Model):
    """That an iteration samples from a policy, and with what weight, as its project had it when it opened."""

    iteration = models.ForeignKey(Iteration, models.CASCADE)
    policy = models.ForeignKey("annotate.Policy", models.CASCADE)
    weight = models.PositiveSmallIntegerField(default=1, db_default=1)

    class Meta:
        # The name that it had as a table of mere pairs.
        db_table = "annotate_iteration_policies"
        ordering = ["id"]
        unique_together = [("iteration", "policy")]

    def __str__(self) -> str:
        return f"{self.policy} in {self.iteration}"
