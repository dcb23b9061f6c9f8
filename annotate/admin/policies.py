"""Policies: added here, and switched on and off."""

from django.contrib import admin

from annotate import streams
from annotate.admin.reading import Listed
from annotate.models import Policy


@admin.register(Policy)
class PolicyAdmin(Listed):
    """A policy never changes and is never deleted: what it sampled refers to it."""

    list_display = ("name", "engine", "location", "revision", "parent", "active", "created_at")
    list_filter = ("active", "engine")
    list_select_related = ("parent",)
    search_fields = ("name", "location")
    ordering = ("-id",)
    autocomplete_fields = ("parent",)

    def get_fields(self, request, obj=None):
        fields = ("name", "engine", "location", "revision", "parent", "active")
        return (*fields, "served", "created_at") if obj else fields

    def get_readonly_fields(self, request, obj=None):
        return [field for field in self.get_fields(request, obj) if field != "active"] if obj else []

    def has_delete_permission(self, request, obj=None) -> bool:
        return False

    @admin.display(description="workers say")
    def served(self, policy: Policy) -> str:
        state, reason = streams.policy_state(policy.pk)
        return f"{state}: {reason}" if reason else state
