"""Signing in by a link: opening it changes nothing, its button does."""

from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import add_never_cache_headers
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods
from sesame.utils import get_user


@sensitive_variables()
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_link(request: HttpRequest) -> HttpResponse:
    """Who the link is for, and a button; pressed, it signs them in.

    Mail programs and messengers open links to look at them, which must neither sign anybody in nor use a link up.
    """
    found = get_user(request, update_last_login=False)
    if found is not None and request.method == "POST":
        # With the time of the last sign-in a link that works once is used up.
        login(request, found, backend="sesame.backends.ModelBackend")
        return redirect("home")
    response = render(request, "trainers_ui/sign_in_link.html", {"found": found}, status=200 if found else 410)
    add_never_cache_headers(response)
    return response
