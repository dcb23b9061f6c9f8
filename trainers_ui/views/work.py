"""One task: its page, and what can be done with a task of any kind."""

import json

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from annotate import access, assignments
from annotate.errors import Invalid, NothingLeft
from trainers_ui.views import chat, rank
from trainers_ui.views.page import page, wants_json
from trainers_ui.views.sent import gone


@page("GET")
def work(request: HttpRequest, pk: int) -> HttpResponse:
    """The page of one's own task: to work on while it can still be sent, else to look at."""
    assignment = access.assignment_for(request.user, pk)
    show = rank.show if assignment.kind == "rank" else chat.show
    return show(request, assignment)


@page("POST")
def claim(request: HttpRequest, slug: str) -> HttpResponse:
    """The next task of a project, `kind` or whichever comes first; its page."""
    access.require_role(request.user, "trainer")
    project = access.project_for(request.user, slug)
    kind = request.POST.get("kind", "")
    if kind and kind not in project.kinds:
        raise Invalid("This project has no work of that kind.")
    try:
        assignment = assignments.claim(user=request.user, project=project, kinds=[kind] if kind else None)
        where = reverse("work", args=[assignment.pk])
    except NothingLeft:
        if not wants_json(request):
            raise
        # The script goes on with what comes next, and that is then the page that says so.
        where = reverse("home")
    return JsonResponse({"location": where}) if wants_json(request) else redirect(where)


@page("POST")
def ahead(request: HttpRequest, slug: str) -> HttpResponse:
    """Fetch the task after this one; 204 where there is none."""
    access.require_role(request.user, "trainer")
    project = access.project_for(request.user, slug)
    try:
        assignment = assignments.claim(user=request.user, project=project, ahead=True)
    except NothingLeft:
        return HttpResponse(status=204)
    return JsonResponse({"location": reverse("work", args=[assignment.pk])})


@page("POST")
def leave(request: HttpRequest, slug: str) -> HttpResponse:
    """Give back what was fetched ahead, as the page says when it is left."""
    assignments.release_ahead(user=request.user, project=access.project_for(request.user, slug))
    return HttpResponse(status=204)


@page("POST")
def keep(request: HttpRequest, pk: int) -> HttpResponse:
    """The task is looked at: its lease begins anew."""
    assignment = access.assignment_for(request.user, pk)
    assignments.take_seat(assignment=assignment, user=request.user)
    return HttpResponse(status=204)


@page("POST")
def draft(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep what was typed: `draft` (JSON), the `version` it was made from, `active_seconds`; the new version."""
    assignment = access.assignment_for(request.user, pk)
    version = assignments.save_draft(
        assignment=assignment,
        user=request.user,
        draft=_draft(request.POST.get("draft", "")),
        version=whole(request.POST.get("version", "")),
        active_seconds=whole(request.POST.get("active_seconds", "0")),
    )
    return JsonResponse({"version": version})


def _draft(text: str) -> dict:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid("The draft is damaged and was not kept.")
    return found


def whole(text: str) -> int:
    """A whole number from 0 on. Raises Invalid."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid("A number in the form is damaged. Reload the page; what you typed is kept.")
    return int(text)


@page("GET", "POST")
def skip(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask why, then pass the task on."""
    assignment = access.assignment_for(request.user, pk)
    if request.method != "POST":
        context = {
            "assignment": assignment,
            "title": "Skip",
            "form": "trainers_ui/parts/skip.html",
            "skip_reasons": assignments.SkipReason.choices,
        }
        return render(request, "trainers_ui/ask.html", context)
    assignments.skip(
        assignment=assignment,
        user=request.user,
        reason=request.POST.get("reason", ""),
        note=request.POST.get("note", "").replace("\x00", ""),
    )
    return gone(request, assignment)
