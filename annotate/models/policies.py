"""Policies: served model versions."""

from django.db import models
from django.db.models import Q

KEY_VARIABLE = r"^[A-Z][A-Z0-9_]*_API_KEY$"
"""Names of variables that may hold a server's key. Else whoever adds a policy could have any secret of the worker's
environment sent to a server of theirs, and a key itself could be pasted here."""


class Policy(models.Model):
    """A served model version. After it is made only `active` changes."""

    class Engine(models.TextChoices):
        TRANSFORMERS = "transformers", "transformers: a Hugging Face model that the worker loads itself"
        OPENAI_COMPATIBLE = "openai_compatible", "openai_compatible: a server that speaks /v1/chat/completions"

    class Quantisation(models.TextChoices):
        NONE = "", "None: as the model was stored"
        INT8 = "int8", "8 bits a weight"
        INT4 = "int4", "4 bits a weight"

    class Thinking(models.TextChoices):
        TEMPLATE = "", "As the chat template has it"
        ON = "on", "It thinks before it answers"
        OFF = "off", "It answers at once"

    name = models.CharField(max_length=120, unique=True)
    engine = models.CharField(max_length=32, choices=Engine, default=Engine.TRANSFORMERS)
    location = models.CharField(
        max_length=500,
        help_text="A folder or a hub id; a relative name is first looked for in the folder of models. "
        "Of a server its base URL, such as http://localhost:8001/v1.",
    )
    revision = models.CharField(
        max_length=120, blank=True, help_text="Of the hub id; empty for a folder and for a server."
    )
    quantisation = models.CharField(
        max_length=4,
        choices=Quantisation,
        blank=True,
        default="",
        db_default="",
        help_text="How the worker stores the weights of a model that it loads itself. Part of the policy, as it "
        "changes what the policy says.",
    )
    thinking = models.CharField(
        max_length=3,
        choices=Thinking,
        blank=True,
        default="",
        db_default="",
        help_text="Of models that think before they answer, where their chat template lets one choose.",
    )
    served_as = models.CharField(
        "served as", max_length=200, blank=True, db_default="", help_text="The model's name at the server."
    )
    key_variable = models.CharField(
        max_length=120,
        blank=True,
        db_default="",
        help_text="The environment variable of the workers that holds the server's key, such as VLLM_API_KEY; its "
        "name ends in _API_KEY. Never the key itself. Empty where the server wants none.",
    )
    concurrency = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Texts that each worker asks the server for at once; empty means 32."
    )
    context_tokens = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The longest prompt and text together. vLLM and SGLang tell it themselves; needed for other servers.",
    )
    honours_seed = models.BooleanField(
        "honours seeds",
        default=False,
        db_default=False,
        help_text="The server gives the same text for the same seed: each text gets one, which is kept with it.",
    )
    parent = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, help_text="The policy that this one was trained from."
    )
    run = models.OneToOneField(
        "annotate.TrainingRun",
        models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="policy",
        help_text="The training that made it.",
    )
    active = models.BooleanField(
        default=True,
        help_text="Workers serve active policies. What waits for one that is switched off fails, with that reason; it "
        "can be tried again once the policy is switched on.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "policies"
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    engine="openai_compatible",
                    revision="",
                    quantisation="",
                    concurrency__isnull=False,
                    concurrency__gte=1,
                )
                & Q(location__regex="^https?://")
                & ~Q(served_as="")
                | ~Q(engine="openai_compatible")
                & Q(
                    served_as="",
                    key_variable="",
                    concurrency__isnull=True,
                    context_tokens__isnull=True,
                    honours_seed=False,
                ),
                name="policy_fields_of_its_engine",
            ),
            models.CheckConstraint(
                condition=Q(key_variable="") | Q(key_variable__regex=KEY_VARIABLE), name="policy_key_by_name_only"
            ),
            models.CheckConstraint(
                condition=Q(context_tokens__isnull=True) | Q(context_tokens__gte=1), name="policy_context_from_1"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def off(self) -> str:
        """Why requests of it fail, in a sentence; empty while it is active."""
        return "" if self.active else f"The policy {self.name} is switched off."
