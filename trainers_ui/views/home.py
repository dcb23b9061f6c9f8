"""What there is to do, and what a person did."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.views.decorators.http import require_safe

from annotate import access, projects
from trainers_ui import lists
from trainers_ui.views.page import page
from trainers_ui.views.sent import sent


@page("GET")
def home(request: HttpRequest) -> HttpResponse:
    """What is held, what came back or ran out, what each project offers, then today and the latest work."""
    user = request.user
    held = list(lists.held(user))
    waiting, run_out = lists.waiting(user), lists.run_out(user)
    recent = lists.own_work(user, most=lists.RECENT)
    for row in waiting:
        row.busy = _busy(held, row.project_id)
    context = {
        "works": access.has_role(user, "trainer", "reviewer"),
        "reads": access.has_role(user, *access.READS_ALL),
        "held": held,
        "waiting": waiting[: lists.RECENT],
        "more_wait": len(waiting) > lists.RECENT,
        "asked": next((row for row in waiting if str(row.pk) == request.GET.get("waits")), None),
        "run_out": run_out[: lists.RECENT],
        "projects": [_entry(user, project, held) for project in access.projects_of(user)],
        "today": lists.done_today(user),
        "recent": recent[: lists.RECENT],
        "more": len(recent) > lists.RECENT,
        "sent": sent(request),
    }
    return render(request, "trainers_ui/home.html", context)


def _entry(user, project, held: list) -> dict:
    return {"project": project, "offers": lists.offers(user, project), "busy": _busy(held, project.pk)}


def _busy(held: list, project_id: int) -> str | None:
    """The kind of what is held in a project: nothing else is handed out there before that is done."""
    return next((assignment.kind for assignment in held if assignment.project_id == project_id), None)


@page("GET")
def history(request: HttpRequest) -> HttpResponse:
    """All that a person did, page by page."""
    before = lists.before(request.GET.get("before", ""))
    rows, older = lists.one_page(lists.own_work(request.user, before))
    return render(request, "trainers_ui/history.html", {"rows": rows, "older": older, "newest": before is None})


@page("GET")
def guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    """The guidelines of a project, for those who work on it."""
    project = access.project_for(request.user, slug)
    context = {"project": project, "guidelines": projects.current_guidelines(project)}
    return render(request, "trainers_ui/guidelines.html", context)


@page("GET")
def keys(request: HttpRequest) -> HttpResponse:
    """The keys, for where the dialog of a task cannot open."""
    return render(request, "trainers_ui/keys.html")


@page("GET")
def account(request: HttpRequest) -> HttpResponse:
    """Who one is here, and the way to a password."""
    context = {"roles": sorted(access.roles_of(request.user)), "projects": access.projects_of(request.user)}
    return render(request, "trainers_ui/account.html", context)


@require_safe
def icon(request: HttpRequest) -> HttpResponse:
    """What a browser asks for beside an answer that names no icon, such as JSON."""
    return redirect(static("trainers_ui/icon.svg"))
