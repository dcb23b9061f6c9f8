"""The ranking page: order the answers from best to worst."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotate import access, comparisons, rankings
from annotate.errors import Invalid
from trainers_ui.views.page import page
from trainers_ui.views.sent import gone, order_of
from trainers_ui.views.task import around

RATINGS = range(1, 8)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MODULES = [
    f"trainers_ui/elements/{name}.js" for name in ("rank-task", "order", "order-bar", "draft", "active-time", "send")
]


def show(request: HttpRequest, assignment) -> HttpResponse:
    """The page of a ranking; the stored order, where it was sent. It says nothing of where an answer came from."""
    going_on = assignment.state in ("held", "expired")
    shown = comparisons.shown(assignment)
    context = around(request, assignment, ended=not going_on) | _context(assignment)
    if going_on:
        context |= _form(assignment, shown)
        template = "trainers_ui/rank.html"
    else:
        context |= _result(assignment, shown)
        template = "trainers_ui/ranked.html"
    return render(request, template, context | {"what": f"Rank {NUMBERS[len(shown)]} answers"})


def _context(assignment) -> dict:
    messages = comparisons.context(assignment.comparison)
    return {
        "system": next((message for message in messages if message.role == "system"), None),
        "context": [message for message in messages if message.role != "system"],
    }


def _form(assignment, shown: list) -> dict:
    """The fields as the draft left them. A draft comes from outside: what is not as expected is left out."""
    draft = assignment.draft
    marks, flags = (draft.get(name) if isinstance(draft.get(name), dict) else {} for name in ("ratings", "flags"))
    answers = []
    for one in shown:
        rating, flagged = marks.get(one.letter), flags.get(one.letter)
        answers.append(
            {
                "letter": one.letter,
                "text": one.text,
                # Not what only equals a number: true is 1.
                "rating": rating if type(rating) is int else None,
                "flags": [flag for flag in flagged if isinstance(flag, str)] if isinstance(flagged, list) else [],
            }
        )
    return {
        "answers": answers,
        "order": draft["order"] if isinstance(draft.get("order"), str) else "",
        "all_bad": draft.get("all_bad") is True,
        "ratings": RATINGS,
        "flags": rankings.Flag.choices,
        "modules": MODULES,
    }


def _result(assignment, shown: list) -> dict:
    order = order_of(assignment)
    ranking = assignment.rankings.filter(current=True).first()
    places = {place.candidate_id: place for place in ranking.places.all()} if ranking else {}
    # A thought may betray where an answer is from: it is shown to those who have ranked it.
    thoughts = comparisons.thoughts(assignment.comparison) if ranking else {}
    labels = dict(rankings.Flag.choices)
    answers = []
    for one in shown:
        place = places.get(one.candidate_id)
        answers.append(
            {
                "letter": one.letter,
                "text": one.text,
                "thought": thoughts.get(one.candidate_id, ""),
                "place": order.place(one.letter),
                "rating": place.rating if place else None,
                "flags": [labels[flag] for flag in place.flags] if place else [],
            }
        )
    return {"answers": answers, "order": order if ranking else None}


@page("POST")
def submit(request: HttpRequest, pk: int) -> HttpResponse:
    """Store the order `B A = D C` of the answers as they were lettered, with ratings and flags."""
    assignment = access.assignment_for(request.user, pk)
    letters = dict(zip(comparisons.LETTERS, assignment.shown_order, strict=False))
    posted = request.POST
    rankings.submit(
        assignment=assignment,
        user=request.user,
        tiers=rankings.parse_order(posted.get("order", ""), letters),
        ratings={
            candidate: _rating(posted[f"rating-{letter}"])
            for letter, candidate in letters.items()
            if posted.get(f"rating-{letter}")
        },
        flags={
            candidate: posted.getlist(f"flag-{letter}")
            for letter, candidate in letters.items()
            if posted.getlist(f"flag-{letter}")
        },
        all_bad=posted.get("all_bad") == "yes",
        active_seconds=_seconds(posted.get("active_seconds", "")),
    )
    return gone(request, assignment)


def _rating(text: str) -> int:
    if text not in map(str, RATINGS):
        raise Invalid("A rating is a whole number from 1 to 7.")
    return int(text)


def _seconds(text: str) -> int:
    """A time that a broken clock spoilt must not cost anybody their work."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
