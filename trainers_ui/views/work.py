"""One task: its page, and what can be done with a task of any kind."""

import json

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from annotate import access, assignments, demonstrations
from annotate.errors import Invalid, NotFound, NothingLeft
from trainers_ui import streaming
from trainers_ui.views import chat, rank, review_task, write
from trainers_ui.views.page import page, wants_json
from trainers_ui.views.sent import gone


@page("GET")
def work(request: HttpRequest, pk: int) -> HttpResponse:
    """The page of one's own task: to work on while it can still be sent, else to look at."""
    assignment = access.assignment_for(request.user, pk)
    return SHOWS[assignment.kind](request, assignment)


SHOWS = {"rank": rank.show, "chat": chat.show, "write": write.show, "review": review_task.show}


@page("POST")
def claim(request: HttpRequest, slug: str) -> HttpResponse:
    """The next task of a project, `kind` or whichever comes first, or the one that is `reserved`; its page."""
    kind, reserved = request.POST.get("kind", ""), request.POST.get("reserved", "")
    access.require_role_for(request.user, kind)
    project = access.project_for(request.user, slug)
    if kind and kind not in (*project.kinds, "review"):
        raise Invalid("This project has no work of that kind.")
    try:
        assignment = assignments.claim(
            user=request.user,
            project=project,
            kinds=[kind] if kind else None,
            reserved=whole(reserved) if reserved else None,
        )
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
def revise(request: HttpRequest, pk: int) -> HttpResponse:
    """A new version of one's own finished piece: its page, or home where something else is held first."""
    access.require_role(request.user, "trainer")
    conversation = access.conversation_for(request.user, pk)
    slot = demonstrations.revise(conversation=conversation, user=request.user)
    try:
        held = assignments.claim(user=request.user, project=conversation.project, kinds=["write"], reserved=slot.pk)
    except NothingLeft:
        held = None
    if held != slot:
        return redirect(f"{reverse('home')}?waits={slot.pk}")
    return redirect("work", pk=slot.pk)


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


@page("GET", "POST")
def finish(request: HttpRequest, pk: int) -> HttpResponse:
    """The last look at a conversation, then its end."""
    writes = access.assignment_for(request.user, pk).kind == "write"
    return (write.finish if writes else chat.finish)(request, pk)


@page("POST")
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop what is being written for a conversation."""
    writes = access.assignment_for(request.user, pk).kind == "write"
    return (write.stop if writes else chat.stop)(request, pk)


@page("GET")
def stream(request: HttpRequest, pk: int) -> HttpResponse:
    """Texts as they are being written; 204 where none is.

    `?after=` or `Last-Event-ID` is the last event that the page has seen.
    """
    assignment = access.assignment_for(request.user, pk)
    if assignment.conversation is None:
        raise NotFound("Nothing is written for this task.")
    if not streaming.pending(assignment.conversation):
        # Tells the browser not to come back by itself.
        return HttpResponse(status=204)
    after = request.headers.get("Last-Event-ID", "") or request.GET.get("after", "")
    return streaming.response(assignment=assignment, after=after)
