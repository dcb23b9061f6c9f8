"""Tokens for the REST API: whoever holds one acts as its person."""

from django.contrib import admin, messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from rest_framework.authtoken.admin import TokenAdmin
from rest_framework.authtoken.models import TokenProxy

from annotate.admin.reading import CappedPaginator

admin.site.unregister(TokenProxy)


@admin.register(TokenProxy)
class PersonTokenAdmin(TokenAdmin):
    """One a person. The key is shown on its own page only, and neither in messages nor in the history."""

    list_display = ("user", "created")
    list_filter = ()
    list_select_related = ("user",)
    search_help_text = "E-mail address"
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    autocomplete_fields = ("user",)

    def get_queryset(self, request):
        tokens = super().get_queryset(request)
        return tokens if request.user.is_superuser else tokens.filter(user__is_superuser=False)

    def get_fields(self, request, obj=None):
        return ("user", "key", "created") if obj else ("user",)

    def has_change_permission(self, request, obj=None) -> bool:
        return False

    def response_add(self, request, obj, post_url_continue=None) -> HttpResponse:
        messages.success(request, f"{obj.user} has a token now.")
        return redirect(reverse("admin:authtoken_tokenproxy_change", args=[obj.user_id]))

    def log_addition(self, request, obj, message):
        return super().log_change(request, obj.user, "Made an API token.")

    def log_deletions(self, request, queryset):
        return [
            super(PersonTokenAdmin, self).log_change(request, one.user, "Deleted the API token.") for one in queryset
        ]
