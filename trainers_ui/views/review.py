"""Finished chats, pieces of writing and rankings of a project, for those who read the work of others."""

import itertools
import string
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from annotate import access, comparisons, demonstrations, rankings, scores
from annotate.errors import Invalid, NotFound
from annotate.quality import disagreement
from trainers_ui import lists
from trainers_ui.orders import lettered
from trainers_ui.views import review_task
from trainers_ui.views.page import page

STATES = {
    "closed": "All rankings in",
    "open": "Being ranked",
    "sampling": "Being sampled",
    "failed": "Failed",
    "passed_over": "Passed over",
}
REVIEW_STATES = {
    "": "All",
    "wanted": "To be reviewed",
    "approved": "Approved",
    "returned": "Returned",
    "none": "Not drawn for review",
}


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
def list_imported(request: HttpRequest, slug: str) -> HttpResponse:
    """Conversations that were brought in from files, the newest first."""
    project = access.reviewed_project_for(request.user, slug)
    before = lists.before(request.GET.get("before", ""))
    rows, older = lists.one_page(lists.imported(project, before))
    context = {"project": project, "rows": rows, "older": older, "newest": before is None}
    return render(request, "trainers_ui/review_imported.html", context)


@page("GET")
def list_pieces(request: HttpRequest, slug: str) -> HttpResponse:
    """Finished pieces of writing, the newest first, all or those in one review state."""
    project = access.reviewed_project_for(request.user, slug)
    before = lists.before(request.GET.get("before", ""))
    state = request.GET.get("state", "")
    if state not in REVIEW_STATES:
        raise Invalid("The address of this page is broken.")
    rows, older = lists.one_page(lists.pieces(project, state, before))
    context = {"project": project, "rows": rows, "older": older, "newest": before is None}
    context |= {"state": state, "states": REVIEW_STATES.items()}
    return render(request, "trainers_ui/review_pieces.html", context)


@page("GET")
def list_comparisons(request: HttpRequest, slug: str) -> HttpResponse:
    """Comparisons in one state, the newest first, or those of which the reward model thinks otherwise than people."""
    project = access.reviewed_project_for(request.user, slug)
    before = lists.before(request.GET.get("before", ""))
    state, differing = request.GET.get("state", "closed"), "differing" in request.GET
    if state not in STATES or (differing and (state != "closed" or project.scored_by is None)):
        raise Invalid("The address of this page is broken.")
    context = {"project": project, "newest": before is None, "state": state, "states": STATES.items()}
    if differing:
        rows, older, scored = lists.disagreed(request.user, project, before)
        context |= {"scored": scored, "window": lists.WINDOW, "most": lists.PAGE}
    else:
        rows, older = lists.one_page(lists.comparisons(project, state, before))
    context |= {"rows": rows, "older": older, "differing": differing}
    return render(request, "trainers_ui/review_comparisons.html", context)


@page("GET")
def read_conversation(request: HttpRequest, pk: int) -> HttpResponse:
    """One chat, or what was brought in from a file, with where each message came from."""
    access.require_role(request.user, *access.READS_ALL)
    conversation = access.conversation_for(request.user, pk)
    if conversation.kind == "write":
        return redirect("review_piece", pk=pk)
    messages = conversation.messages.select_related("completion__request__policy").prefetch_related("comparisons")
    context = {"conversation": conversation, "project": conversation.project, "messages": messages}
    return render(request, "trainers_ui/review_conversation.html", context)


@page("GET")
def read_piece(request: HttpRequest, pk: int) -> HttpResponse:
    """One piece of writing with where each turn came from, its reviews and its other versions; its author's too."""
    conversation = access.conversation_for(request.user, pk)
    if conversation.kind != "write" or (
        conversation.state != "finished" and not access.has_role(request.user, *access.READS_ALL)
    ):
        raise NotFound("There is no such piece of writing here.")
    messages = review_task.messages_of(conversation)
    reads = access.has_role(request.user, *access.READS_ALL)
    verdicts = list(conversation.reviews.select_related("reviewer", "edit").prefetch_related("comments"))
    earlier = review_task.before(conversation, messages)
    context = {
        "conversation": conversation,
        "project": conversation.project,
        "reads": reads,
        "made_by": hasattr(conversation, "made_by_review"),
        "reviews": verdicts,
        "before": earlier,
        "relatives": _relatives(conversation, None if reads else request.user),
        "standing": demonstrations.written(conversation.project).filter(pk=pk).first(),
    }
    context |= review_task.turns(messages, conversation, kept=_said(verdicts, reads=reads), before=earlier)
    return render(request, "trainers_ui/review_piece.html", context)


def _said(verdicts: list, *, reads: bool) -> dict:
    """The comments of all reviews by position, with who made them where the person reads the work of others."""
    remarks: dict[int, list[dict]] = {}
    for verdict in reversed(verdicts):
        for comment in verdict.comments.all():
            who = str(verdict.reviewer) if reads else "Reviewer"
            remarks.setdefault(comment.position, []).append({"who": who, "text": comment.text})
    current = next((verdict for verdict in verdicts if verdict.edit_id), None)
    return review_task.said_in(current) | {"remarks": remarks}


def _relatives(conversation, author) -> list[dict]:
    """Finished versions and branches, with a word for what they are; with an `author` only what they may read."""
    related = [("Stands in the place of", conversation.revises), ("Branched from", conversation.forked_from)]
    versions = conversation.revisions.select_related("made_by_review", "revises").order_by("pk")
    related += [
        ("A reviewer's edit" if hasattr(version, "made_by_review") else "Newer version", version)
        for version in versions
    ]
    related += [("Branch", branch) for branch in conversation.branches.order_by("pk")]
    return [
        {"word": word, "pk": one.pk}
        for word, one in related
        if one is not None and one.state == "finished" and (author is None or access.is_author(author, one))
    ]


@page("GET")
def read_comparison(request: HttpRequest, pk: int) -> HttpResponse:
    """One comparison: its answers, where they came from, and the places that each trainer gave them."""
    comparison = access.comparison_for(request.user, pk)
    candidates = list(comparison.candidates.select_related("completion__request__policy"))
    letters = {one.pk: letter for one, letter in zip(candidates, _letters(), strict=False)}
    ranked = [_ranking(ranking, letters) for ranking in _rankings(comparison)]
    scored = _scored(request.user, comparison, letters, ranked)
    messages = comparisons.context(comparison)
    context = {
        "comparison": comparison,
        "project": comparison.project,
        "rankings": ranked,
        "scored": scored,
        "answers": [_answer(one, letters[one.pk], ranked, scored) for one in candidates],
        "system": next((message for message in messages if message.role == "system"), None),
        "context": [message for message in messages if message.role != "system"],
    }
    return render(request, "trainers_ui/review_comparison.html", context)


def _letters() -> Iterator[str]:
    """A, B, C … and then numbers: a comparison that was brought in may have any number of answers."""
    yield from string.ascii_uppercase
    yield from map(str, itertools.count(len(string.ascii_uppercase) + 1))


def _rankings(comparison):
    current = comparison.rankings.filter(current=True).select_related("trainer", "assignment")
    return current.prefetch_related("places").order_by("id")


def _ranking(ranking, letters: dict[int, str]) -> dict:
    slot = ranking.assignment
    order = lettered(rankings.tiers_of(ranking), letters, all_bad=ranking.all_bad)
    return {
        "trainer": ranking.trainer or "Imported",
        "created_at": ranking.created_at,
        "active_seconds": ranking.active_seconds,
        "counts": slot is None or slot.state == "submitted",
        "seen": " ".join(letters.get(candidate, "?") for candidate in slot.shown_order) if slot else "",
        "order": order,
        "sentence": order.sentence,
        "places": {place.candidate_id: place for place in ranking.places.all()},
    }


def _scored(user, comparison, letters: dict[int, str], ranked: list[dict]) -> dict | None:
    """What the project's reward model makes of a comparison, and how far that differs from each ranking; None where
    there is none or the person is not to see it yet."""
    run = comparison.project.scored_by
    if run is None or not access.scored_for(user, comparison.project).filter(pk=comparison.pk).exists():
        return None
    given = scores.of_comparison(comparison=comparison, run=run)
    if not given:
        return None
    rewards = {candidate: reward[0] for candidate, reward in given.items() if reward is not None}
    for one in ranked:
        ranks = {candidate: place.rank for candidate, place in one["places"].items()}
        one["difference"] = disagreement.of_ranks(ranks, rewards)
    counting = [one["difference"] for one in ranked if one["counts"]]
    best_first = sorted(set(rewards.values()), reverse=True)
    tiers = [[candidate for candidate, reward in rewards.items() if reward == one] for one in best_first]
    order = lettered(tiers, letters)
    return {
        "run": run,
        "order": order,
        "given": given,
        "difference": sum(counting, disagreement.Difference()),
    }


def _answer(candidate, letter: str, ranked: list[dict], scored: dict | None) -> dict:
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
    ranks = [one["order"].place(letter).rank for one in ranked if one["counts"]]
    return {
        "letter": letter,
        "text": candidate.completion.text,
        "completion": candidate.completion,
        "original": candidate.original,
        "places": places,
        "scored": scored and {"place": scored["order"].place(letter), "reward": scored["given"].get(candidate.pk)},
        "best": min(ranks, default=None),
    }
