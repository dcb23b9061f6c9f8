"""The form of a project's page: what can be set, in which order, and what is refused."""

import json

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import ValidationError

from annotate import passages, projects
from annotate.admin import project_scores
from annotate.errors import BothsidesError
from annotate.models import Assignment, Project, WriteFrom

KINDS = (Assignment.Kind.RANK, Assignment.Kind.CHAT, Assignment.Kind.WRITE)
"""Kinds of work that a project hands out. Reviews come of what was written, and go to reviewers."""


class Indented(json.JSONEncoder):
    """JSON as people read it."""

    def __init__(self, **how):
        super().__init__(**how | {"indent": 2})


class Keepable(json.JSONDecoder):
    """JSON that the record can keep: no NUL, no half of a character, nothing too deep or with too many digits."""

    def decode(self, text, *how):
        try:
            found = super().decode(text, *how)
            told = json.dumps(found, ensure_ascii=False)
            told.encode()
        except (ValueError, RecursionError) as error:
            raise json.JSONDecodeError(str(error), text, 0) from error
        if "\\u0000" in told:
            raise json.JSONDecodeError("NUL", text, 0)
        return found


class ProjectForm(forms.ModelForm):
    """A project and the newest text of its guidelines."""

    guidelines = forms.CharField(
        required=False,
        widget=AdminTextareaWidget(attrs={"rows": 30}),
        help_text="Markdown. A changed text becomes a new version; earlier ones are kept.",
    )
    recipe = forms.JSONField(
        required=False,
        encoder=Indented,
        decoder=Keepable,
        widget=AdminTextareaWidget(attrs={"rows": 10, "class": "vLargeTextField", "spellcheck": "false"}),
        help_text="JSON. {} is the default: a reward model of all comparisons, and PPO against it. Another: "
        '{"sft": {"epochs": 3}, "reward": {"heads": 2}, "policy": "dpo", "dpo": {"beta": 0.2}, '
        '"weights": {"new": 2, "last": 1}, "replies": "last"}. docs/training.md has every field.',
    )
    scored_by = project_scores.RunField()

    class Meta:
        model = Project
        fields = (
            "name",
            "slug",
            "guidelines",
            "kinds",
            "system_message",
            "authors_rank_own",
            "k",
            "keeps_original",
            "overlap",
            "write_from",
            "topic",
            "turn_shape",
            "system_editable",
            "suggestions",
            "suggests_unasked",
            "review_share",
            "counts_before_review",
            "return_hours",
            "max_new_tokens",
            "temperature",
            "top_p",
            "top_k",
            "split_by",
            "recipe",
            "scored_by",
        )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.instance.pk and (newest := projects.current_guidelines(self.instance)):
            self.initial["guidelines"] = newest.text.strip()
        if self.instance.pk and "scored_by" in self.fields:
            self.fields["scored_by"].offer(self.instance)

    def clean_guidelines(self) -> str:
        return projects.tidied(self.cleaned_data["guidelines"])

    def clean_system_message(self) -> str:
        return projects.tidied(self.cleaned_data["system_message"])

    def clean_kinds(self) -> list[str]:
        """Each kind of work that trainers do once. Raises ValidationError for anything else."""
        kinds = self.cleaned_data["kinds"]
        if not kinds or len(kinds) != len(set(kinds)) or set(kinds) - set(KINDS):
            raise ValidationError(f"Name each kind of work at most once, and at least one: {', '.join(KINDS)}.")
        return kinds

    def clean_split_by(self) -> str:
        """Raises ValidationError where an export has been asked for meanwhile, which has fixed it."""
        split_by = self.cleaned_data["split_by"]
        if self.instance.pk:
            try:
                projects.check_split_by(project=self.instance, split_by=split_by)
            except BothsidesError as error:
                raise ValidationError(error.message) from error
        return split_by

    def clean_recipe(self) -> dict:
        """Raises ValidationError with what is wrong in it."""
        given = self.cleaned_data["recipe"]
        given = {} if given is None else given
        try:
            passages.recipe_of(given)
        except BothsidesError as error:
            raise ValidationError(error.message) from error
        return given

    def clean_topic(self) -> str:
        return projects.tidied(self.cleaned_data["topic"])

    def clean(self) -> dict:
        """Raises ValidationError where a blank page would say nothing of what to write."""
        cleaned = super().clean()
        writes = "write" in cleaned.get("kinds", [])
        if writes and cleaned.get("write_from") == WriteFrom.BLANK and not cleaned.get("topic"):
            self.add_error("topic", "A blank page needs a topic: say what to write about.")
        return cleaned


FIELDSETS = (
    (None, {"fields": ("name", "slug", "guidelines")}),
    ("Work", {"fields": ("kinds", "system_message")}),
    (
        "Ranking",
        {
            "fields": ("authors_rank_own", "k", "keeps_original", "overlap"),
            "description": "K, the original and the overlap count from the next iteration on. The policies at the end "
            "of the page share the K places in proportion to their weights; a policy of weight 0 gets none, and may "
            "still be the one that trainers chat with.",
        },
    ),
    (
        "Writing",
        {
            "fields": ("write_from", "topic", "turn_shape", "system_editable", "suggestions", "suggests_unasked"),
            "description": "These count at once, for pieces that are being written too.",
        },
    ),
    (
        "Review of writing",
        {
            "fields": ("review_share", "counts_before_review", "return_hours"),
            "description": "Whether a piece is reviewed is decided when it is finished. Reviewers need the role "
            "reviewer and to be members; nobody reviews what they wrote.",
        },
    ),
    (
        "Sampling",
        {
            "fields": ("max_new_tokens", "temperature", "top_p", "top_k"),
            "description": "Policies and sampling settings count from the next iteration on, guidelines too.",
        },
    ),
    (
        "Splits",
        {
            "fields": ("split_by",),
            "description": "Into train, validation and test. By author, what was brought in and prompts go by their "
            "family, and what an author made in a family of another split is held out of all three.",
        },
    ),
    (
        "From one iteration to the next",
        {
            "fields": ("recipe",),
            "description": "What manage.py iterate exports and trains when it ends the open iteration, and what the "
            "next one samples from. One that is under way keeps the recipe that it began with.",
        },
    ),
)


SCORES = ("Scores", {"fields": ("scored_by", "scored")})
"""Of a project that is there: a new one has no reward model."""
