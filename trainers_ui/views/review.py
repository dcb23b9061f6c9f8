"""Finished chats and rankings of a project, for those who read the work of others."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotate import access, comparisons, rankings
from annotate.errors import Invalid
from trainers_ui import lists
from trainers_ui.orders import lettered
from trainers_ui.views.page import page

STATES = {"closed": "All rankings in", "open": "Being ranked", "sampling": "Being sampled", "failed": "Failed"}


@page("GET")
def review(request: HttpRequest) -> HttpResponse:
    """The projects whose work a person reads."""
    access.require_role(request.user, *access.READS_ALL)
    return render(request, "trainers_ui/review.html", {"projects": access.projects_of(request.user)})


@page("GET")
def list_conversations(request: HttpRequest, slug: str) -> HttpResponse:
    """Finished chats, the newest first."""
    project = access.reviewed_project_for(request.user, slug)
    before = lists.before(request.GET.get("before", ""))
    rows, older = lists.one_page(lists.conversations(project, before))
    context = {"project": project, "rows": rows, "older": older, "newest": before is None}
    return render(request, "trainers_ui/review_conversations.html", context)


@page("GET")
def list_comparisons(request: HttpRequest, slug: str) -> HttpResponse:
    """Comparisons in one state, the newest first."""
    project = access.reviewed_project_for(request.user, slug)
    before = lists.before(request.GET.get("before", ""))
    state = request.GET.get("state", "closed")
    if state not in STATES:
        raise Invalid("The address of this page is broken.")
    rows, older = lists.one_page(lists.comparisons(project, state, before))
    context = {"project": project, "rows": rows, "older": older, "newest": before is None}
    context |= {"state": state, "states": STATES.items()}
    return render(request, "trainers_ui/review_comparisons.html", context)


@page("GET")
def read_conversation(request: HttpRequest, pk: int) -> HttpResponse:
    """One chat with where each reply came from."""
    access.require_role(request.user, *access.READS_ALL)
    conversation = access.conversation_for(request.user, pk)
    messages = conversation.messages.select_related("completion__request__policy").prefetch_related("comparisons")
    context = {"conversation": conversation, "project": conversation.project, "messages": messages}
    return render(request, "trainers_ui/review_conversation.html", context)


@page("GET")
def read_comparison(request: HttpRequest, pk: int) -> HttpResponse:
    """One comparison: its answers, where they came from, and the places that each trainer gave them."""
    comparison = access.comparison_for(request.user, pk)
    candidates = list(comparison.candidates.select_related("completion__request__policy"))
    letters = {one.pk: letter for one, letter in zip(candidates, comparisons.LETTERS, strict=False)}
    ranked = [_ranking(ranking, letters) for ranking in _rankings(comparison)]
    messages = comparisons.context(comparison)
    context = {
        "comparison": comparison,
        "project": comparison.project,
        "rankings": ranked,
        "answers": [_answer(one, letters[one.pk], ranked) for one in candidates],
        "system": next((message for message in messages if message.role == "system"), None),
        "context": [message for message in messages if message.role != "system"],
    }
    return render(request, "trainers_ui/review_comparison.html", context)


def _rankings(comparison):
    current = comparison.rankings.filter(current=True).select_related("trainer", "assignment")
    return current.prefetch_related("places").order_by("id")


def _ranking(ranking, letters: dict[int, str]) -> dict:
    order = lettered(rankings.tiers_of(ranking), letters, all_bad=ranking.all_bad)
    return {
        "trainer": ranking.trainer,
        "created_at": ranking.created_at,
        "active_seconds": ranking.active_seconds,
        "state": ranking.assignment.state,
        "seen": " ".join(letters.get(candidate, "?") for candidate in ranking.assignment.shown_order),
        "order": order,
        "sentence": order.sentence,
        "places": {place.candidate_id: place for place in ranking.places.all()},
    }


def _answer(candidate, letter: str, ranked: list[dict]) -> dict:
    labels = dict(rankings.Flag.choices)
    places = [
        {
            "trainer": one["trainer"],
            "word": one["order"].place(letter).word,
            "rating": one["places"][candidate.pk].rating,
            "flags": [labels[flag] for flag in one["places"][candidate.pk].flags],
        }
        for one in ranked
    ]
    ranks = [one["order"].place(letter).rank for one in ranked if one["state"] == "submitted"]
    return {
        "letter": letter,
        "text": candidate.completion.text,
        "completion": candidate.completion,
        "original": candidate.original,
        "places": places,
        "best": min(ranks, default=None),
    }
