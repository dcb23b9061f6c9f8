"""Iterations: read here, opened and closed on their project's page."""

from django.contrib import admin
from django.utils.safestring import SafeString

from annotate.admin.jobs import as_lines
from annotate.admin.reading import ReadOnly, ReadOnlyInline, linked, state
from annotate.models import Iteration, IterationPolicy


class PoliciesInline(ReadOnlyInline):
    """What its candidates are sampled from, with the weights that it began with."""

    model = IterationPolicy
    fields = ("policy", "weight")
    verbose_name = "policy"
    verbose_name_plural = "policies"

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("policy", "iteration__project").order_by("id")


@admin.register(Iteration)
class IterationAdmin(ReadOnly):
    """Each round with the settings that it was held under."""

    list_display = ("project", "number", state, "k", "overlap", "reply_policy", "opened_at", "closed_at")
    list_filter = ("state", "project")
    list_select_related = ("project", "reply_policy")
    ordering = ("-id",)
    fields = (
        "project",
        "number",
        "state",
        "k",
        "keeps_original",
        "overlap",
        "sampling_values",
        "reply_policy",
        "guidelines",
        "form_version",
        "opened_at",
        "closed_at",
        "begun_by",
        "ended_by",
    )
    readonly_fields = ("sampling_values", "begun_by", "ended_by")
    inlines = (PoliciesInline,)

    @admin.display(description="sampling")
    def sampling_values(self, iteration: Iteration) -> SafeString:
        return as_lines(iteration.sampling)

    # `opened_by` is the name of the relation, of which Django would show the text alone.
    @admin.display(description="opened by")
    def begun_by(self, iteration: Iteration) -> SafeString:
        return linked(getattr(iteration, "opened_by", None))

    @admin.display(description="on to the next by")
    def ended_by(self, iteration: Iteration) -> SafeString:
        return linked(getattr(iteration, "passage", None))
