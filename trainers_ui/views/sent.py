"""What was sent last, shown back on the page that comes next."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import reverse

from annotate import access, comparisons, rankings
from annotate.errors import NotFound
from trainers_ui.orders import Order, lettered
from trainers_ui.views.page import wants_json


def sent(request: HttpRequest) -> dict | None:
    """The task that `?after=` names as one sentence and a link; None where it names none of this person's."""
    after = request.GET.get("after", "")
    if not after.isascii() or not after.isdigit() or len(after) > 18:
        return None
    try:
        return word_of(access.assignment_for(request.user, int(after)))
    except NotFound:
        return None


def gone(request: HttpRequest, assignment) -> HttpResponse:
    """After a task was sent or skipped: home, with a word of it; for scripts that word, to show on the next task."""
    if not wants_json(request):
        return redirect(f"{reverse('home')}?after={assignment.pk}")
    assignment.refresh_from_db(fields=["state"])
    notice = render_to_string("trainers_ui/parts/sent.html", {"sent": word_of(assignment)})
    return JsonResponse({"after": assignment.pk, "notice": notice})


def word_of(assignment) -> dict | None:
    """`{"sentence", "url"}` of a task that was sent or skipped."""
    url = reverse("work", args=[assignment.pk])
    if assignment.state == "skipped":
        return {"sentence": "Skipped. It does not come back to you.", "url": url}
    if assignment.state not in ("submitted", "surplus"):
        return None
    late = assignment.state == "surplus"
    if assignment.kind == "rank":
        not_counted = " It came in late and does not count." if late else ""
        return {"sentence": f"Submitted: {order_of(assignment).sentence}{not_counted}", "url": url}
    if assignment.kind == "review":
        return {"sentence": _verdict(assignment, late), "url": url}
    if assignment.kind == "write":
        return {"sentence": f"Finished. {_kept(assignment, late)}", "url": url}
    # None is drawn of what came late, of replies that were all stopped, and where the round is no longer open.
    if assignment.conversation.messages.filter(comparisons__isnull=False).exists():
        return {"sentence": "Finished. One of the replies is drawn for ranking.", "url": url}
    reason = ", as it came in late" if late else ""
    return {"sentence": f"Finished. It is kept; no reply of it is ranked{reason}.", "url": url}


def _verdict(assignment, late: bool) -> str:
    """What a verdict did."""
    if late:
        return "Sent, but another verdict was in before. Yours is kept and changes nothing."
    if assignment.review.verdict == "returned":
        return "Returned to its trainer."
    return "Approved with your edits." if assignment.review.edit_id else "Approved."


def _kept(assignment, late: bool) -> str:
    """What becomes of a piece of writing."""
    if late:
        return "It came in late: it is kept and does not count."
    return "A reviewer reads it next." if assignment.conversation.review_state == "wanted" else "It is kept."


def order_of(assignment) -> Order:
    """The order that was stored, in the letters that its trainer saw; empty where none was."""
    ranking = assignment.rankings.filter(current=True).prefetch_related("places").first()
    if ranking is None:
        return Order([])
    letters = dict(zip(assignment.shown_order, comparisons.LETTERS, strict=False))
    return lettered(rankings.tiers_of(ranking), letters, all_bad=ranking.all_bad)
