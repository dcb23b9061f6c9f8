"""Policies: served model versions."""

from django.db import models


class Policy(models.Model):
    """A served model version. After it is made only `active` changes."""

    class Engine(models.TextChoices):
        TRANSFORMERS = "transformers", "transformers: a Hugging Face model that the worker loads itself"

    name = models.CharField(max_length=120, unique=True)
    engine = models.CharField(max_length=32, choices=Engine, default=Engine.TRANSFORMERS)
    location = models.CharField(
        max_length=500,
        help_text="A folder or a hub id. A relative name is first looked for in the folder of models.",
    )
    revision = models.CharField(max_length=120, blank=True, help_text="Of the hub id; empty for a folder.")
    parent = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, help_text="The policy that this one was trained from."
    )
    active = models.BooleanField(
        default=True, help_text="Workers load and serve active policies; requests of others wait."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "policies"
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name
