"""Policies: added here, and switched on and off."""

import re
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin, messages
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from annotate import lineage, policies
from annotate.admin.reading import Listed, linked
from annotate.models import Policy, TrainingRun
from annotate.models.policies import KEY_VARIABLE

OF_A_SERVER = ("served_as", "key_variable", "concurrency", "context_tokens", "honours_seed")
CONCURRENCY = 32
SHOWN = 100
"""Policies and runs that came of one, as far as its page lists them."""


class PolicyForm(forms.ModelForm):
    """A new policy, whose fields have to fit its engine."""

    def clean(self) -> dict:
        """What the constraints of the table say, in words and at the field that is wrong."""
        data = super().clean()
        if data.get("engine") == Policy.Engine.OPENAI_COMPATIBLE:
            self._clean_server(data)
            if data.get("quantisation"):
                self.add_error("quantisation", "A server stores its weights as it was told there: leave it empty.")
        elif data.get("engine"):
            for name in OF_A_SERVER:
                if data.get(name):
                    self.add_error(name, "Only a policy of a server has this: leave it empty.")
        return data

    def _clean_server(self, data: dict) -> None:
        if data.get("location"):
            wrong = _wrong_with(data["location"])
            if wrong:
                self.add_error("location", wrong)
            else:
                data["location"] = data["location"].rstrip("/")
        if not data.get("served_as"):
            self.add_error("served_as", "Say what the server calls the model.")
        if data.get("revision"):
            self.add_error("revision", "A server has no revision: leave it empty.")
        variable = data.get("key_variable")
        if variable and not re.search(KEY_VARIABLE, variable):
            # What was typed may be a key: it is not said back.
            self.add_error(
                "key_variable",
                "This is the name of an environment variable, in capitals and ending in _API_KEY; the key itself "
                "belongs into that variable.",
            )
            self.data = self.data.copy()
            self.data[self.add_prefix("key_variable")] = ""
        for name in ("concurrency", "context_tokens"):
            if data.get(name) == 0:
                self.add_error(name, "At least 1.")
        if data.get("concurrency") is None:
            data["concurrency"] = CONCURRENCY


def _wrong_with(url: str) -> str:
    """What is wrong with a base URL, in a sentence; empty where it can be asked."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named or parts.scheme not in ("http", "https") or re.search(r"\s", url):
        return "The base URL of a server starts with http:// or https:// and names a host."
    if parts.username or parts.password or parts.query or parts.fragment:
        return "A base URL has no user, password or ?…: a key belongs into an environment variable."
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return "This is the base URL, without /chat/completions."
    return ""


@admin.register(Policy)
class PolicyAdmin(Listed):
    """A policy never changes and is never deleted: what it sampled refers to it."""

    form = PolicyForm
    list_display = ("name", "engine_in_short", "location", "served_as", "parent", "active", "created_at")
    list_filter = ("active", "engine")
    list_select_related = ("parent",)
    search_fields = ("name", "location", "served_as")
    ordering = ("-id",)
    autocomplete_fields = ("parent",)

    def get_fieldsets(self, request, obj=None):
        last = ("served", "projects", "created_at") if obj else ()
        return [
            (
                None,
                {
                    "fields": (
                        "name",
                        "engine",
                        "location",
                        "revision",
                        "quantisation",
                        "thinking",
                        "parent",
                        "active",
                        *last,
                    )
                },
            ),
            *([("Lineage", {"fields": ("line", "children", "runs")})] if obj else []),
            ("Of a server that speaks /v1/chat/completions", {"fields": OF_A_SERVER}),
        ]

    def get_readonly_fields(self, request, obj=None):
        if not obj:
            return []
        shown = ("name", "engine", "location", "revision", "quantisation", "thinking", "parent", "served", "created_at")
        return [*shown, "projects", "line", "children", "runs", *OF_A_SERVER]

    def has_delete_permission(self, request, obj=None) -> bool:
        return False

    def save_model(self, request, obj, form, change) -> None:
        if not change or "active" not in form.changed_data or obj.active:
            super().save_model(request, obj, form, change)
            return
        failed = policies.switch_off(policy=obj)
        what = "Nothing waited for it."
        if failed:
            waited = "request that waited for it has" if failed == 1 else "requests that waited for it have"
            again = "try them again among the generation requests once it is switched on."
            what = f"{failed:,} {waited} failed; {again}"
        messages.warning(request, f"{obj.off} {what} Workers finish what they have begun.")

    @admin.display(description="engine")
    def engine_in_short(self, policy: Policy) -> str:
        """Its name; the sentence that explains it would fill a column."""
        return policy.engine

    @admin.display(description="projects that have it")
    def projects(self, policy: Policy) -> SafeString:
        return linked(*policy.project_set.order_by("name", "id")[:SHOWN])

    @admin.display(description="workers say")
    def served(self, policy: Policy) -> str:
        state, reason = policies.state(policy)
        return f"{state}: {reason}" if reason else state

    @admin.display(description="back to the first")
    def line(self, policy: Policy) -> SafeString:
        """The policy, what it came of, and so on, each with the run that made it and what that learnt from."""
        items = ((linked(one.policy), _came_of(one.run)) for one in lineage.of(policy))
        return format_html('<ol class="line">{}</ol>', format_html_join("", "<li>{}{}</li>", items))

    @admin.display(description="trained from it")
    def children(self, policy: Policy) -> SafeString:
        return linked(*policy.policy_set.order_by("id")[:SHOWN])

    @admin.display(description="runs that began with it")
    def runs(self, policy: Policy) -> SafeString:
        runs = policy.training_runs.defer("metrics").order_by("id")
        return linked(*runs[:SHOWN])


def _came_of(run: TrainingRun | None) -> SafeString:
    """The run that made a policy, the exports that it learnt from, and the same of its reward model."""
    if run is None:
        return format_html(" {}", "was not trained here")
    told = format_html(" by {} from {}", linked(run), linked(*run.exports.all()))
    if run.reward is None:
        return told
    reward = run.reward
    return format_html(
        "{}, against the reward model of {} from {}, which began with {}",
        told,
        linked(reward),
        linked(*reward.exports.all()),
        linked(reward.base),
    )
