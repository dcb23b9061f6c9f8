"""The review page: read what a trainer wrote and how it came about, comment, mend, and give a verdict."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotate import access, reviews
from annotate.errors import Invalid, NotFound
from trainers_ui import changes, provenance
from trainers_ui.views.page import page, wants_json
from trainers_ui.views.sent import gone
from trainers_ui.views.task import around

MODULES = [f"trainers_ui/elements/{name}.js" for name in ("review-task", "draft", "active-time", "send", "under-bar")]


def show(request: HttpRequest, assignment, *, typed: dict | None = None, refused: str = "") -> HttpResponse:
    """The page of a review; what was said, where it was sent. `typed` stands in for the draft after a refusal."""
    going_on = assignment.state in ("held", "expired")
    messages = messages_of(assignment.subject)
    context = around(request, assignment, ended=not going_on) | {
        "conversation": assignment.subject,
        "before": before(assignment.subject, messages),
        "longest": settings.MESSAGE_CHARACTERS,
        "longest_comment": reviews.COMMENT_CHARACTERS,
        "refused": refused,
    }
    if going_on:
        kept = _kept(assignment.draft if typed is None else typed)
        context |= {"what": "Review", "modules": MODULES, "note": kept["note"]}
    else:
        review = getattr(assignment, "review", None)
        kept = said_in(review)
        context |= {"what": "Reviewed", "review": review}
        kept["remarks"] = {position: [{"who": "You", "text": text}] for position, text in kept["comments"].items()}
    context |= turns(messages, assignment.subject, kept=kept, before=context["before"])
    return render(request, "trainers_ui/review_task.html", context, status=422 if refused else 200)


def messages_of(conversation) -> list:
    """The messages with what their provenance needs."""
    return list(conversation.messages.select_related("completion__request__policy").order_by("position"))


def _kept(draft: dict) -> dict:
    """Note, comments and edits by position. A draft comes from outside: what is not as expected is left out."""
    note = draft.get("note")
    return {"note": note if isinstance(note, str) else ""} | {
        name: {
            int(position): text
            for position, text in (draft[name].items() if isinstance(draft.get(name), dict) else ())
            if isinstance(text, str) and position.isascii() and position.isdigit() and len(position) < 6
        }
        for name in ("comments", "edits")
    }


def said_in(review) -> dict:
    """What a stored review says, as `turns` takes it; its edits are the texts of the conversation that it made."""
    if review is None:
        return {"comments": {}, "edits": {}}
    edits = dict(review.edit.messages.values_list("position", "text")) if review.edit else {}
    return {"comments": {comment.position: comment.text for comment in review.comments.all()}, "edits": edits}


def turns(messages: list, conversation, *, kept: dict, before: dict | None) -> dict:
    """`system`, `turns` and seconds `spent` for the templates: each message with its provenance, what is said of it,
    its edit and what came before.
    """
    origins = provenance.of(messages, prompt=conversation.prompt)
    asked = before["turns"] if before else {}
    found = [
        {
            "number": message.position,
            "role": message.role,
            "text": message.text,
            "origin": origins.get(message.position),
            "comment": kept["comments"].get(message.position, ""),
            "comments": kept.get("remarks", {}).get(message.position, []),
            "edit": kept["edits"].get(message.position, message.text),
            "edited": kept["edits"].get(message.position, message.text).strip() != message.text.strip(),
            "before": asked.get(message.position),
        }
        for message in messages
    ]
    for turn in found:
        turn["changes"] = changes.shown(turn["text"], turn["edit"]) if turn["edited"] else None
    return {
        "system": next((turn for turn in found if turn["role"] == "system"), None),
        "turns": [turn for turn in found if turn["role"] != "system"],
        "spent": sum(message.active_seconds for message in messages),
    }


def before(conversation, messages: list) -> dict | None:
    """The version that this one stands in the place of: its review, and turn by turn what was asked and what changed.

    `turns` has `{"asked", "changed", "new"}` by position of the newer version, `gone` the turns that went.
    """
    older = conversation.revises
    if older is None:
        return None
    review = reviews.standing(older)
    # What was said of an approved one asked for nothing.
    comments = said_in(review)["comments"] if review and review.verdict == "returned" else {}
    pairs = changes.aligned(list(older.messages.order_by("position")), messages)
    return {
        "conversation": older,
        "review": review,
        "turns": {
            pair.new.position: {
                "asked": comments.get(pair.old.position, "") if pair.old else "",
                "changed": changes.shown(pair.old.text, pair.new.text) if pair.changed else None,
                "new": pair.old is None,
            }
            for pair in pairs
            if pair.new
        },
        "gone": [
            {"role": pair.old.role, "text": pair.old.text, "asked": comments.get(pair.old.position, "")}
            for pair in pairs
            if pair.new is None
        ],
        "changed": any(pair.changed or pair.old is None or pair.new is None for pair in pairs),
    }


@page("POST")
def verdict(request: HttpRequest, pk: int) -> HttpResponse:
    """Store a verdict: `verdict`, `note`, and `comment-3` and `text-3` of the turn at position 3."""
    assignment = access.assignment_for(request.user, pk)
    if assignment.kind != "review":
        raise NotFound("This task is not a review.")
    posted = request.POST
    typed = {
        "note": posted.get("note", ""),
        "comments": _by_position(posted, "comment-"),
        "edits": _by_position(posted, "text-"),
    }
    try:
        reviews.submit(
            assignment=assignment,
            user=request.user,
            verdict=posted.get("verdict", ""),
            note=typed["note"],
            comments=_numbered(typed["comments"]),
            edits=_numbered(typed["edits"]),
            active_seconds=_seconds(posted.get("active_seconds", "")),
        )
    except Invalid as error:
        if wants_json(request):
            raise
        return show(request, assignment, typed=typed, refused=error.message)
    return gone(request, assignment)


def _by_position(posted, prefix: str) -> dict[str, str]:
    """Texts by what follows in the names of their fields. Browsers send line ends of their own."""
    return {
        name.removeprefix(prefix): text.replace("\r\n", "\n")
        for name, text in posted.items()
        if name.startswith(prefix)
    }


def _numbered(texts: dict[str, str]) -> dict[int, str]:
    """By the number of a turn. Raises Invalid where a name in the form is none."""
    if not all(name.isascii() and name.isdigit() and len(name) < 6 for name in texts):
        raise Invalid("A turn in the form is damaged. Reload the page; what you typed is kept.")
    return {int(name): text for name, text in texts.items()}


def _seconds(text: str) -> int:
    """A time that a broken clock spoilt must not cost anybody their work."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
