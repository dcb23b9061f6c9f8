"""The policies of a project: added, weighed and chosen on its page, with what the next iteration makes of them."""

import math
from fractions import Fraction

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.forms.models import BaseInlineFormSet

from annotate import iterations, places
from annotate.errors import Invalid
from annotate.models import Project, ProjectPolicy


class PolicyForm(forms.ModelForm):
    """One policy of a project. In place of a saved one another is added, so that no two rows have to change places."""

    class Meta:
        labels = {"replies": "trainers chat with it"}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            policy = self.fields["policy"]
            policy.disabled, policy.widget.can_add_related, policy.widget.can_change_related = True, False, False

    def validate_unique(self) -> None:
        """Of all rows together, as their formset sees them: one may come in the place of one that goes."""


class PoliciesFormSet(BaseInlineFormSet):
    """All policies of a project together."""

    def add_fields(self, form, index) -> None:
        """What each is, for those who do not see the head of its column."""
        super().add_fields(form, index)
        for field in form.fields.values():
            if field.label:
                field.widget.attrs["aria-label"] = field.label

    def validate_unique(self) -> None:
        """Done by `clean`, in words."""

    def clean(self) -> None:
        """Raises ValidationError where a policy is there twice, two are chosen for chats, or none has a weight.

        A policy that somebody else has added since the page was loaded is told too.
        """
        super().clean()
        rows = [
            form.cleaned_data
            for form in self.forms
            if form.is_valid() and form.cleaned_data.get("policy") and not form.cleaned_data.get("DELETE")
        ]
        policies = [row["policy"] for row in rows]
        wrong = [f"{policy} is there twice: give it one weight." for policy in _twice(policies)]
        shown = [form.instance.pk for form in self.initial_forms]
        unseen = ProjectPolicy.objects.filter(project=self.instance.pk, policy__in=policies).exclude(pk__in=shown)
        wrong += [f"Somebody has added {row.policy} meanwhile. Load the page anew." for row in unseen]
        chosen = [str(row["policy"]) for row in rows if row["replies"]]
        if len(chosen) > 1:
            wrong.append(f"Trainers chat with one policy: choose one of {', '.join(chosen)}.")
        if rows and not any(row["weight"] for row in rows):
            wrong.append("All weights are 0, so that there is nothing to sample from: give one policy more.")
        if wrong:
            raise ValidationError(wrong)

    def save(self, commit=True):
        """What is no longer chosen for chats goes first, as no two may be chosen at any moment."""
        chosen = [
            form.instance.pk for form in self.initial_forms if form.instance.replies and form not in self.deleted_forms
        ]
        if commit and self.instance.pk:
            ProjectPolicy.objects.filter(project=self.instance, replies=True).exclude(pk__in=chosen).update(
                replies=False
            )
        return super().save(commit)


def _twice(policies: list) -> list:
    return [policy for number, policy in enumerate(policies) if policy in policies[:number] and policy is not None]


class PoliciesInline(admin.TabularInline):
    """What the next iteration samples from, and how much."""

    model = ProjectPolicy
    form = PolicyForm
    formset = PoliciesFormSet
    extra = 0
    autocomplete_fields = ("policy",)
    fields = ("policy", "weight", "replies")
    verbose_name = "policy"
    verbose_name_plural = "policies"

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("policy", "project")


def what_comes(project: Project) -> str:
    """What each comparison of the next iteration would be made of, in a sentence; or why it cannot be opened."""
    try:
        plan = iterations.plan(project=project)
    except Invalid as refusal:
        return f"The next iteration cannot be opened yet. {refusal.message}"
    weights = {policy.pk: weight for policy, weight in plan.weights.items()}
    original = plan.reply_policy.pk if project.keeps_original else None
    exact = places.shares(k=project.k, weights=weights, original=original)
    parts = [
        _part(exact[policy.pk], str(policy), original=policy.pk == original)
        for policy in plan.weights
        if policy.pk in exact
    ]
    return f"Of {project.k} candidates {', '.join(parts)}; trainers chat with {plan.reply_policy}."


def _part(share: Fraction, name: str, *, original: bool) -> str:
    if share == 1 and original:
        return f"the original from {name}"
    whole = share.denominator == 1
    number = f"{share}" if whole else f"{math.floor(share)} or {math.ceil(share)}"
    more = [] if whole else [f"{round(float(share), 2)} on average"]
    more += ["one is the original"] if original else []
    return f"{number} from {name}" + (f" ({', '.join(more)})" if more else "")


def warnings(project: Project) -> list[str]:
    """Sentences about policies that the next iteration leaves out, or that cannot be in every comparison."""
    rows = list(ProjectPolicy.objects.filter(project=project).select_related("policy").order_by("id"))
    if not rows:
        return ["The project has no policy: add one, so that an iteration can be opened."]
    said = [f"The policy {row.policy} is inactive: the next iteration is without it." for row in rows if row.policy.off]
    sampled = [row for row in rows if row.weight and row.policy.active]
    if len(sampled) > project.k:
        said.append(
            f"{len(sampled)} policies share {project.k} places: no comparison has a text of each. "
            "A larger K would, or fewer policies."
        )
    return said
