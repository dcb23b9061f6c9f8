"""Iterations: read here, opened and closed on their project's page."""

from django.contrib import admin

from annotate.admin.reading import ReadOnly, state
from annotate.models import Iteration


@admin.register(Iteration)
class IterationAdmin(ReadOnly):
    """Each round with the settings that it was held under."""

    list_display = ("project", "number", state, "k", "overlap", "reply_policy", "opened_at", "closed_at")
    list_filter = ("state", "project")
    list_select_related = ("project", "reply_policy")
    ordering = ("-id",)
