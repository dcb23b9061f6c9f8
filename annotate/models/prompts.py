"""Prompts: optional openings of conversations, and the families that openings belong to."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models


class Prompt(models.Model):
    """An opening that a trainer may start from, once a project (by its text's digest)."""

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="prompts")
    text = models.TextField()
    digest = models.CharField(max_length=64, editable=False, help_text="SHA-256 of the text.")
    family = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="Decides the split of what is made from it; empty until an import has found it.",
    )
    use_case = models.CharField(max_length=40, blank=True, help_text="For example: brainstorming, open QA.")
    source = models.CharField(max_length=200, blank=True, help_text="The file or set that it came from.")
    source_id = models.CharField(max_length=200, blank=True, help_text="Its name in the source.")
    near = ArrayField(
        models.BigIntegerField(),
        default=list,
        db_default=[],
        blank=True,
        editable=False,
        help_text="Keys that near-duplicates share.",
    )
    uses = models.PositiveIntegerField(default=0, help_text="Conversations that were opened with it.")
    active = models.BooleanField(default=True, help_text="Whether new conversations may open with it.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "digest"], name="prompt_once_a_project"),
            models.CheckConstraint(condition=~models.Q(text=""), name="prompt_not_empty"),
        ]
        indexes = [
            models.Index(fields=["project", "uses", "id"], condition=models.Q(active=True), name="prompt_next_to_use"),
            models.Index(fields=["project", "id"], condition=models.Q(family=""), name="prompt_without_family"),
            # Without a list of pending entries: after a large import a look through it would take a second.
            GinIndex(fields=["near"], fastupdate=False, name="prompt_near"),
        ]

    def __str__(self) -> str:
        return self.text if len(self.text) <= 80 else f"{self.text[:79]}…"


class FamilyMember(models.Model):
    """Which family an opening belongs to. Decided when it is first seen, and never changed."""

    project = models.ForeignKey("annotate.Project", models.CASCADE, related_name="family_members")
    member = models.CharField(max_length=64, help_text="Digest of the opening without case, space and punctuation.")
    family = models.CharField(
        max_length=64, help_text="The member that began the family; a name of its own where it is held out."
    )
    text = models.TextField(
        blank=True, db_default="", help_text="The opening as it was first seen, by which near ones are told."
    )
    near = ArrayField(
        models.BigIntegerField(),
        default=list,
        db_default=[],
        blank=True,
        editable=False,
        help_text="Keys that near-duplicates share.",
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Who brought the opening first, where somebody did; decides splits by author.",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "member"], name="family_member_once_a_project"),
        ]
        indexes = [
            # Without a list of pending entries: after a large import a look through it would take a second.
            GinIndex(fields=["near"], fastupdate=False, name="family_member_near"),
        ]

    def __str__(self) -> str:
        return f"{self.member[:12]} of {self.family[:12]}"
