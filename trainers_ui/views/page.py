"""What every view shares: who may come, by which method, and how a refusal of the record's rules is answered."""

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import add_never_cache_headers, patch_vary_headers

from annotate.errors import BothsidesError, DraftConflict, Unavailable

TITLES = {
    "not_found": "There is nothing here",
    "forbidden": "This is not for you",
    "invalid": "That cannot be taken as it is",
    "conflict": "That is not possible any more",
    "draft_conflict": "There is a newer draft",
    "nothing_left": "Nothing to do here now",
    "unavailable": "Not available now",
}

TYPED = ("text", "order", "note")
"""Fields whose text is shown again when it could not be taken, so that nothing typed is lost."""

TYPED_EACH = ("comment-", "text-")
"""Beginnings of the names of such fields where there is one a turn."""

SIGNED_OUT = "You are signed out. Sign in again in another tab; what you typed is kept here."


def page(*methods: str) -> Callable:
    """Only these methods, only for people who are signed in; a BothsidesError becomes a page, a part or JSON."""
    allowed = [*methods, "HEAD"] if "GET" in methods else list(methods)

    def decorate(view: Callable) -> Callable:
        @wraps(view)
        def answer(request: HttpRequest, *args, **kwargs) -> HttpResponse:
            if request.method not in allowed:
                return HttpResponseNotAllowed(allowed)
            if request.user.is_authenticated:
                try:
                    response = view(request, *args, **kwargs)
                except BothsidesError as error:
                    response = refused(request, error, kwargs)
            else:
                response = signed_out(request, kwargs)
            add_never_cache_headers(response)
            patch_vary_headers(response, ["HX-Request", "Accept"])
            return response

        return answer

    return decorate


def wants_json(request: HttpRequest) -> bool:
    """Whether a script of ours asks."""
    return request.headers.get("Accept", "").startswith("application/json")


def back(kwargs: dict) -> str:
    """The page on which a form stood: that of the task where there is one, else home."""
    return reverse("work", args=[kwargs["pk"]]) if "pk" in kwargs else reverse("home")


def _is_typed(name: str) -> bool:
    return name in TYPED or name.startswith(TYPED_EACH)


def signed_out(request: HttpRequest, kwargs: dict) -> HttpResponse:
    """The sign-in page; scripts get 401 and a sentence, because the page that asks must stay as it is."""
    if wants_json(request):
        return JsonResponse({"error": SIGNED_OUT, "code": "signed_out"}, status=401)
    if request.htmx:
        return render(request, "trainers_ui/parts/notice.html", {"message": SIGNED_OUT}, status=401)
    if "text/event-stream" in request.headers.get("Accept", ""):
        return HttpResponse(status=401)
    return redirect_to_login(request.get_full_path() if request.method == "GET" else back(kwargs))


def refused(request: HttpRequest, error: BothsidesError, kwargs: dict) -> HttpResponse:
    """A domain error in the form in which the request can show it."""
    if wants_json(request):
        said = {"error": error.message, "code": error.code}
        if isinstance(error, DraftConflict):
            said |= {"current": error.current, "version": error.version}
        response = JsonResponse(said, status=error.status)
    elif request.htmx:
        response = render(request, "trainers_ui/parts/notice.html", {"message": error.message}, status=error.status)
    else:
        context = {
            "title": TITLES.get(error.code, "That did not work"),
            "message": error.message,
            "status": error.status,
            "typed": [(name, text) for name, text in request.POST.items() if text and _is_typed(name)],
            "back": back(kwargs) if request.method == "POST" and "pk" in kwargs else "",
        }
        response = render(request, "trainers_ui/refused.html", context, status=error.status)
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = "5"
    return response
