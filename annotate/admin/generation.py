"""Sampling jobs: read here, and tried again where they failed."""

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import linebreaks_filter
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from annotate import generation
from annotate.admin.reading import ReadOnly, ReadOnlyInline, spoken, state
from annotate.models import Completion, GenerationRequest

AT_ONCE = 1000
LOOKED_AT = 5 * AT_ONCE
"""Some of these may be such that they cannot be tried again; the others behind them are to have their turn."""


def try_all_again(request: HttpRequest, chosen: QuerySet[GenerationRequest]) -> None:
    """Try the first AT_ONCE that can be tried again; say how many wait, why others could not, and how many are left."""
    before = chosen.count()
    looked_at = chosen.select_related("policy", "conversation")[:LOOKED_AT]
    again, refusals = generation.try_all_again(requests=looked_at, most=AT_ONCE)
    if again:
        messages.success(request, f"{again:,} {'request waits' if again == 1 else 'requests wait'} once more.")
    for refusal in refusals[:10]:
        messages.error(request, refusal)
    if len(refusals) > 10:
        messages.error(request, f"{len(refusals) - 10:,} more could not be tried again either.")
    left = before - again - len(refusals)
    if left > 0:
        messages.warning(request, f"{left:,} more {'is' if left == 1 else 'are'} left: try again once more.")
    if not before:
        messages.warning(request, "Nothing is left of these failures.")


class CompletionsInline(ReadOnlyInline):
    """The texts that came of it."""

    model = Completion
    fields = (
        "index",
        "text",
        "thought",
        "finish_reason",
        "rejected",
        "prompt_tokens",
        "completion_tokens",
        "first_token_ms",
        "total_ms",
    )
    readonly_fields = ("thought",)

    @admin.display(description="thought first")
    def thought(self, completion: Completion) -> str:
        if not completion.reasoning:
            return "–"
        said = linebreaks_filter(completion.reasoning, autoescape=True)
        return format_html("<details><summary>Show</summary>{}</details>", said)


@admin.register(GenerationRequest)
class GenerationRequestAdmin(ReadOnly):
    """What policies were asked for, and how it went."""

    change_form_template = "admin/annotate/generationrequest/change_form.html"
    list_display = ("id", state, "why", "asked_for", "policy", "project", "attempt", "created_at", "ended_at")
    list_filter = ("state", "purpose", "policy", "project")
    list_select_related = ("policy", "project")
    search_fields = ("=id", "=conversation__id", "=comparison__id")
    search_help_text = "Number of the request, of its conversation or of its comparison"
    ordering = ("-id",)
    actions = ("try_again",)
    inlines = (CompletionsInline,)
    fields = (
        "state",
        "reason",
        "purpose",
        "project",
        "policy",
        "conversation",
        "comparison",
        "assignment",
        "context",
        "template_hash",
        "n",
        "sampling",
        "attempt",
        "claimed_by",
        "created_at",
        "claimed_at",
        "lease_until",
        "ended_at",
    )

    @admin.display(description="purpose")
    def asked_for(self, request: GenerationRequest) -> str:
        return request.purpose

    @admin.display(description="reason")
    def why(self, request: GenerationRequest) -> str:
        return Truncator(request.reason).chars(80)

    def context(self, request: GenerationRequest) -> SafeString:
        return spoken(request.messages)

    def has_try_again_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("annotate.change_generationrequest")

    @admin.action(description="Try failed ones again", permissions=["try_again"])
    def try_again(self, request: HttpRequest, chosen) -> None:
        try_all_again(request, chosen.order_by("id"))

    def get_urls(self):
        again = path(
            "<int:request_id>/try-again/",
            self.admin_site.admin_view(self.try_one_again),
            name="annotate_generationrequest_try-again",
        )
        return [again, *super().get_urls()]

    def try_one_again(self, request: HttpRequest, request_id: int) -> HttpResponse:
        """The button on a failed request's page."""
        if request.method != "POST" or not self.has_try_again_permission(request):
            raise PermissionDenied
        self.try_again(request, GenerationRequest.objects.filter(pk=request_id))
        return redirect(reverse("admin:annotate_generationrequest_change", args=[request_id]))
