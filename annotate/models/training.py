"""Training: what is trained from exports, what was measured meanwhile, and the passage from one round to the next."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from annotate.models.jobs import Job


class TrainingRun(Job):
    """One training: exports and a policy go in; metrics and a policy or a reward model come out.

    Once it is done it never changes. Its files lie in the folder of models; those of its checkpoints beside them until
    it is done.
    """

    class Kind(models.TextChoices):
        SFT = "sft", "SFT: supervised fine-tuning on demonstrations"
        REWARD = "reward", "Reward: a reward model from comparisons"
        DPO = "dpo", "DPO: direct preference optimisation on comparisons"
        PPO = "ppo", "PPO: reinforcement learning against a reward model"

    project = models.ForeignKey("annotate.Project", models.PROTECT, related_name="training_runs")
    kind = models.CharField(max_length=6, choices=Kind)
    exports = models.ManyToManyField("annotate.Export", related_name="training_runs", help_text="What it learns from.")
    base = models.ForeignKey(
        "annotate.Policy", models.PROTECT, related_name="training_runs", help_text="The policy that it begins with."
    )
    reward = models.ForeignKey(
        "self",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="rewarded",
        help_text="Of PPO: the run whose reward model it optimises.",
    )
    options = models.JSONField(default=dict, help_text="How it trains, with the seed: all that is not a default.")
    versions = models.JSONField(default=dict, db_default={}, help_text="Of our code and the libraries, as it ran.")
    metrics = models.JSONField(default=dict, db_default={}, help_text="What came of it; empty until it is done.")
    location = models.CharField(
        max_length=300, blank=True, db_default="", help_text="Its folder in that of models; empty until it is done."
    )
    digest = models.CharField(
        max_length=64, blank=True, db_default="", help_text="SHA-256 over the digests of its files."
    )

    class Meta(Job.Meta):
        constraints = [
            *Job.Meta.constraints,
            models.CheckConstraint(
                condition=models.Q(state="done") & ~models.Q(location="") & ~models.Q(digest="")
                | ~models.Q(state="done") & models.Q(location="", digest=""),
                name="training_done_has_files",
            ),
            models.CheckConstraint(
                condition=models.Q(kind="ppo", reward__isnull=False) | ~models.Q(kind="ppo") & models.Q(reward=None),
                name="training_ppo_has_reward",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} run {self.pk}"


class TrainingPoint(models.Model):
    """What was measured at one step of a run. A run that goes on from a checkpoint writes the same step anew."""

    run = models.ForeignKey(TrainingRun, models.CASCADE, related_name="points")
    step = models.PositiveIntegerField()
    values = models.JSONField(help_text="Numbers by name, such as loss, reward, kl.")
    created_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["run", "step"]
        constraints = [models.UniqueConstraint(fields=["run", "step"], name="training_point_once")]

    def __str__(self) -> str:
        return f"Step {self.step} of {self.run}"


class Passage(Job):
    """The way of a project from one round to the next: close, export, train, register, open.

    Each step is kept when it is begun, with what it made, so that after a crash it goes on where it was.
    """

    project = models.ForeignKey("annotate.Project", models.PROTECT, related_name="passages")
    iteration = models.OneToOneField(
        "annotate.Iteration", models.PROTECT, related_name="passage", help_text="The round that it ends."
    )
    opens = models.OneToOneField(
        "annotate.Iteration",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="opened_by",
        help_text="The round that it opened; empty until then.",
    )
    recipe = models.JSONField(help_text="The project's recipe, as it was when this began.")
    asks = models.BooleanField(default=False, help_text="Whether it waits before every step for a person's yes.")
    agreed_to = models.CharField(
        max_length=20, blank=True, db_default="", help_text="The step to which a person has said yes last."
    )
    steps = models.JSONField(
        default=dict, db_default={}, help_text="By step what it made, such as the numbers of exports and runs."
    )

    class Meta(Job.Meta):
        constraints = [
            *Job.Meta.constraints,
            models.UniqueConstraint(
                fields=["project"],
                condition=models.Q(state__in=["waiting", "running"]),
                name="passage_one_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"Passage from {self.iteration}"


class Score(models.Model):
    """What a reward model gives one completion: nothing where it cannot read that, which is not tried again."""

    run = models.ForeignKey(TrainingRun, models.CASCADE, related_name="scores")
    candidate = models.ForeignKey("annotate.Candidate", models.CASCADE, related_name="scores")
    reward = models.FloatField(
        null=True,
        help_text="The mean of the heads; demonstrations have 0 on average. Empty where the text is longer than "
        "the model reads, or its chat template refuses it.",
    )
    spread = models.FloatField(
        null=True, help_text="The standard deviation over the heads: how little they agree. Empty as the reward is."
    )
    by_head = ArrayField(
        models.FloatField(),
        null=True,
        help_text="What each head gives. Empty as the reward is, and where only mean and deviation were kept.",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "candidate"], name="score_once"),
            models.CheckConstraint(
                condition=models.Q(reward__isnull=False, spread__isnull=False)
                | models.Q(reward__isnull=True, spread__isnull=True),
                name="score_whole_or_none",
            ),
        ]

    def __str__(self) -> str:
        told = "Too long" if self.reward is None else f"{self.reward:.2f}"
        return f"{told} for candidate {self.candidate_id}"
