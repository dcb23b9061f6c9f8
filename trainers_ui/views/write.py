"""The writing desk: both sides of a conversation, with suggestions, up to the last look and its end."""

import json

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string

from annotate import access, assignments, demonstrations, generation, likeness, manuscripts, reviews
from annotate.errors import DraftConflict, Invalid, NotFound
from trainers_ui import rendering
from trainers_ui.views.chat import away
from trainers_ui.views.page import page, wants_json
from trainers_ui.views.sent import gone
from trainers_ui.views.task import around

MODULES = [
    f"trainers_ui/elements/{name}.js"
    for name in (
        "write-task",
        "manuscript",
        "suggestions",
        "offers",
        "reply",
        "shown",
        "draft",
        "active-time",
        "send",
        "under-bar",
    )
]

MOST_TEXTS = 50
"""Texts that one call shows."""


def show(request: HttpRequest, assignment) -> HttpResponse:
    """The desk; the piece as it is kept, where it has ended."""
    conversation = assignment.conversation
    going_on = assignment.state in ("held", "expired") and conversation is not None and conversation.state == "open"
    context = around(request, assignment, ended=not going_on)
    if not going_on:
        return render(request, "trainers_ui/wrote.html", context | _kept(request, assignment))
    return render(request, "trainers_ui/write.html", context | _desk(assignment))


def _desk(assignment) -> dict:
    conversation = assignment.conversation
    manuscript = _manuscript(assignment)
    system = demonstrations.first_system(conversation)
    returned = _returned(assignment)
    return {
        "what": "Write both sides",
        "modules": MODULES,
        "draft": json.dumps(assignment.draft),
        "closed": [turn for index, turn in enumerate(manuscript.turns) if index != manuscript.at and turn.text.strip()],
        "origins": json.dumps({f"{ref[0]}/{ref[1]}": text for ref, text in _origins(conversation, manuscript).items()}),
        "prompt": conversation.prompt.text if conversation.prompt else "",
        "project_system": system,
        "system": system if manuscript.system is None else manuscript.system,
        "returned": returned,
        "comments": json.dumps(returned["comments"] if returned else {}),
        "away": away(assignment, None),
        "longest": settings.MESSAGE_CHARACTERS,
    }


def _manuscript(assignment) -> manuscripts.Manuscript:
    """What is saved. A draft comes from outside: one that cannot be read is an empty page."""
    try:
        return manuscripts.read(assignment.draft)
    except Invalid:
        return manuscripts.read({})


def _origins(conversation, manuscript: manuscripts.Manuscript) -> dict[manuscripts.Reference, str]:
    """The suggestions from which texts of a manuscript came."""
    named = (turn.came_from for turn in manuscript.turns if turn.came_from)
    return {ref: one.text for ref, one in demonstrations.completions_named(conversation, named).items()}


def _returned(assignment) -> dict | None:
    """What a reviewer said of the piece that is mended here, comments by position; the system message has 0."""
    review = reviews.standing(assignment.subject) if assignment.subject else None
    return _said(review) if review is not None and review.verdict == "returned" else None


def _said(review) -> dict:
    comments = {str(comment.position): comment.text for comment in review.comments.all()}
    return {"note": review.note, "comments": comments}


# --- Where a text came from, in words ----------------------------------------------------------------------------


def _words(began: str, distance: float | None) -> str:
    # A changed text is never said to be unchanged.
    return f"{began}, {max(1, round(distance * 100))} % changed" if distance else began


def _words_of_turn(turn: manuscripts.Turn, origins: dict, prompt: str) -> str:
    text = turn.text.strip()
    if turn.came_from in origins:
        return _words("suggestion", likeness.distance(text, origins[turn.came_from].strip()))
    if turn.opening and prompt:
        return _words("opening", likeness.distance(text, prompt.strip()))
    return "your words"


def _words_of_message(message) -> str:
    began = "suggestion" if message.completion_id else "opening"
    return {"written": "your words", "taken": "suggestion", "imported": "opening"}.get(
        message.source, _words(began, message.edit_distance)
    )


# --- What is kept --------------------------------------------------------------------------------------------------


def _kept(request: HttpRequest, assignment) -> dict:
    conversation = assignment.conversation
    review, messages = None, []
    if conversation is not None and conversation.state == "finished":
        review = reviews.standing(conversation)
        messages = list(conversation.messages.select_related("completion"))
        said = _said(review) if review else {"note": "", "comments": {}}
        turns = [
            {
                "role": message.role,
                "text": message.text,
                "words": _words_of_message(message),
                "comment": said["comments"].get(str(message.position), ""),
            }
            for message in messages
            if message.role != "system"
        ]
    else:
        turns = [{"role": turn.role, "text": turn.text, "words": ""} for turn in _manuscript(assignment).kept()]
    finished = bool(messages)
    came_back = review is not None and review.verdict == "returned"
    return {
        "what": "Written",
        "conversation": conversation,
        "system": next((message for message in messages if message.role == "system"), None),
        "turns": turns,
        "review": review,
        "comments_on_system": said["comments"].get("0", "") if finished else "",
        "newer": demonstrations.standing_in(conversation) if finished else None,
        "mending": came_back and conversation.slots.filter(trainer=request.user, state__in=("held", "expired")).first(),
        "waits": came_back and _reserved(assignment, request.user).exists(),
        "can_revise": finished and demonstrations.can_revise(conversation=conversation, user=request.user),
    }


def _reserved(assignment, user):
    """The slot in which a piece is to be mended, while it waits for this person."""
    return assignments.reserved_for(user=user, project=assignment.project).filter(subject=assignment.conversation)


# --- Steps ---------------------------------------------------------------------------------------------------------


def _piece(request: HttpRequest, pk: int):
    """The person's own task, where it is one of writing. Raises NotFound."""
    assignment = access.assignment_for(request.user, pk)
    if assignment.kind != "write" or assignment.conversation is None:
        raise NotFound("This task is not a piece of writing.")
    return assignment


def _list(text: str, what: str) -> list:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise Invalid(f"{what} are damaged. Reload the page; what you wrote is kept.")
    return found


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid(f"{what} is a whole number from 0 on.")
    return int(text)


@page("POST")
def suggest(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for suggestions: `role`, `before` (JSON list of role and content), and `system`, `hint`, `n` at will."""
    posted = request.POST
    asked = demonstrations.suggest(
        assignment=_piece(request, pk),
        user=request.user,
        role=posted.get("role", ""),
        before=_list(posted.get("before", ""), "The turns before"),
        system=posted.get("system"),
        hint=posted.get("hint", ""),
        n=_number(posted["n"], "The number of suggestions") if posted.get("n") else None,
    )
    return JsonResponse({"request": asked.pk, "n": asked.n})


@page("POST")
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop the suggestions that are being written."""
    demonstrations.stop(assignment=_piece(request, pk), user=request.user)
    return HttpResponse(status=204)


@page("GET")
def suggestions(request: HttpRequest, pk: int) -> HttpResponse:
    """What was asked last, as far as it is stored."""
    assignment = _piece(request, pk)
    newest = demonstrations.newest_suggestions(assignment)
    pending = newest if newest and newest.state in ("waiting", "claimed") else None
    answer = {"request": None, "texts": [], "away": away(assignment, pending)}
    if newest is not None:
        answer |= {
            "request": newest.pk,
            "n": newest.n,
            "state": newest.state,
            "role": newest.role,
            "position": newest.position,
            "hint": newest.hint,
            "reason": generation.told_reason(newest),
            "texts": [
                {"index": one.index, "text": one.text, "finish": one.finish_reason} for one in newest.completions.all()
            ],
        }
    return JsonResponse(answer)


@page("POST")
def shown(request: HttpRequest, pk: int) -> HttpResponse:
    """HTML of `texts` (JSON list of strings) as they are shown everywhere."""
    _piece(request, pk)
    texts = _list(request.POST.get("texts", ""), "The texts")
    if len(texts) > MOST_TEXTS:
        raise Invalid(f"At most {MOST_TEXTS} texts are shown at once; these are {len(texts)}.")
    if not all(isinstance(text, str) for text in texts):
        raise Invalid("The texts are damaged. Reload the page; what you wrote is kept.")
    longest = max(map(len, texts), default=0)
    if longest > settings.MESSAGE_CHARACTERS:
        raise Invalid(f"A text may have {settings.MESSAGE_CHARACTERS:,} characters; one has {longest:,}.")
    return JsonResponse({"html": [rendering.render(manuscripts.clean(text)) for text in texts]})


@page("POST")
def branch(request: HttpRequest, pk: int) -> HttpResponse:
    """Copy the piece, as it is saved, up to the turn with the index `upto`."""
    assignment = _piece(request, pk)
    upto = _number(request.POST.get("upto", ""), "The turn to branch from")
    demonstrations.branch(assignment=assignment, user=request.user, upto=upto)
    notice = render_to_string("trainers_ui/parts/branched.html", {"number": upto + 1})
    return JsonResponse({"notice": notice})


@page("GET", "POST")
def finish(request: HttpRequest, pk: int) -> HttpResponse:
    """The last look at the piece as it is saved; with the `version` that was looked at, its end."""
    assignment = _piece(request, pk)
    if request.method != "POST":
        # Back from what followed its end.
        ended = assignment.conversation.state != "open"
        return redirect("work", pk=pk) if ended else _last_look(request, assignment)
    version = _number(request.POST.get("version", ""), "The version of the draft")
    try:
        demonstrations.finish(assignment=assignment, user=request.user, version=version)
    except DraftConflict:
        if wants_json(request):
            raise
        assignment.refresh_from_db(fields=["draft", "draft_version"])
        return _last_look(request, assignment, moved=True)
    return gone(request, assignment)


def _last_look(request: HttpRequest, assignment, *, moved: bool = False) -> HttpResponse:
    looked = demonstrations.look(assignment=assignment, user=request.user)
    conversation, manuscript = assignment.conversation, looked.manuscript
    origins = _origins(conversation, manuscript)
    prompt = conversation.prompt.text if conversation.prompt else ""
    context = around(request, assignment, ended=False) | {
        "what": "Last look",
        "moved": moved,
        "problems": looked.problems,
        "warnings": looked.warnings,
        "system": demonstrations.first_system(conversation) if manuscript.system is None else manuscript.system,
        "turns": [
            {"role": turn.role, "text": turn.text, "words": _words_of_turn(turn, origins, prompt)}
            for turn in manuscript.kept()
        ],
    }
    return render(request, "trainers_ui/last_look.html", context, status=409 if moved else 200)
