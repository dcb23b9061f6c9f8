"""The chat page: talk to the policy, stop a reply, have it written again, finish."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from annotate import access, conversations, generation, openings, policies
from annotate.errors import NotFound
from annotate.models import GenerationRequest
from trainers_ui.views.page import page
from trainers_ui.views.sent import gone
from trainers_ui.views.task import around


def show(request: HttpRequest, assignment) -> HttpResponse:
    """The page of a chat; what was said, where it has ended."""
    going_on = assignment.state in ("held", "expired") and assignment.conversation.state == "open"
    context = around(request, assignment, ended=not going_on) | _said(assignment)
    if not going_on:
        return render(request, "trainers_ui/chatted.html", context | {"what": "Chat"})
    prompt = assignment.conversation.prompt
    opening = prompt.text if prompt is not None and not context["messages"] else ""
    context |= _stand(assignment, context["messages"]) | {
        "what": "Chat with the model",
        "opening": opening,
        "box": opening if context["typed"] is None else context["typed"],
        "longest": settings.MESSAGE_CHARACTERS,
    }
    return render(request, "trainers_ui/chat.html", context)


def _said(assignment) -> dict:
    messages = list(assignment.conversation.messages.select_related("completion"))
    system = next((message for message in messages if message.role == "system"), None)
    # A draft comes from outside: what is no text is left out.
    typed = assignment.draft.get("text")
    return {
        "system": system,
        "messages": [message for message in messages if message is not system],
        "typed": typed if isinstance(typed, str) else None,
    }


def _stand(assignment, messages: list) -> dict:
    """What can be done now: is a reply pending, did one fail, are replies to be had."""
    pending = generation.pending_reply(assignment.conversation)
    unanswered = bool(messages) and messages[-1].role == "user"
    failure = None if pending else generation.last_failure(assignment.conversation)
    return {
        "pending": pending,
        "failure": failure,
        "why": failure and generation.told_reason(failure),
        "unanswered": unanswered,
        "asks_again": bool(messages) and not pending,
        "blocked": pending is not None or unanswered,
        "finishes": pending is None and any(message.role == "assistant" for message in messages),
        "away": None if pending and pending.state == "claimed" else away(assignment, pending),
    }


def away(assignment, asked: GenerationRequest | None) -> tuple[str, str] | None:
    """Why nothing comes of the policy now, for what is asked of it or was not yet: its state and half a sentence."""
    state, _ = policies.state(assignment.iteration.reply_policy)
    # A model that rests comes when it is asked; one that has its last turn finishes what it has begun.
    comes = state == "asleep" if asked is None else asked.state == "claimed" and state in ("waiting", "off")
    return None if state == "ready" or comes else (state, AWAY[state])


AWAY = {
    "off": "the model is switched off.",
    "waiting": "another model is being served first; this one comes next.",
    "asleep": "the model rested while others were used, and is being brought in.",
    "loading": "the model is being loaded.",
    "failed": "the model could not be loaded, or its server does not answer.",
    "absent": "no worker is running for this model.",
}


def _chat(request: HttpRequest, pk: int):
    """The person's own task, where it is a chat. Raises NotFound."""
    assignment = access.assignment_for(request.user, pk)
    if assignment.kind != "chat":
        raise NotFound("This task is not a chat.")
    return assignment


@page("GET")
def conversation(request: HttpRequest, pk: int) -> HttpResponse:
    """The conversation as it stands, for the page to put in the place of what it shows."""
    assignment = _chat(request, pk)
    return _part(request, assignment) if request.htmx else redirect("work", pk=pk)


def _part(request: HttpRequest, assignment) -> HttpResponse:
    context = {"assignment": assignment} | _said(assignment)
    context |= _stand(assignment, context["messages"])
    return render(request, "trainers_ui/parts/conversation.html", context)


def _answer(request: HttpRequest, assignment) -> HttpResponse:
    """After a step: the conversation in place, or the page anew for browsers without scripts."""
    if not request.htmx:
        return redirect("work", pk=assignment.pk)
    assignment.refresh_from_db(fields=["draft", "draft_version", "state"])
    return _part(request, assignment)


@page("POST")
def say(request: HttpRequest, pk: int) -> HttpResponse:
    """The trainer's next message."""
    assignment = _chat(request, pk)
    conversations.say(assignment=assignment, user=request.user, text=request.POST.get("text", ""))
    return _answer(request, assignment)


@page("POST")
def again(request: HttpRequest, pk: int) -> HttpResponse:
    """Have the last reply written again."""
    assignment = _chat(request, pk)
    conversations.ask_again(assignment=assignment, user=request.user)
    return _answer(request, assignment)


@page("POST")
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop the reply that is being written."""
    assignment = _chat(request, pk)
    conversations.stop(assignment=assignment, user=request.user)
    return _answer(request, assignment)


@page("POST")
def blank(request: HttpRequest, pk: int) -> HttpResponse:
    """Put the opening aside."""
    assignment = _chat(request, pk)
    openings.start_blank(assignment=assignment, user=request.user)
    return _answer(request, assignment)


@page("GET", "POST")
def finish(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what finishing means, then finish."""
    assignment = _chat(request, pk)
    if request.method != "POST":
        context = {"assignment": assignment, "title": "Finish", "form": "trainers_ui/parts/finish.html"}
        return render(request, "trainers_ui/ask.html", context)
    conversations.finish(assignment=assignment, user=request.user)
    return gone(request, assignment)
