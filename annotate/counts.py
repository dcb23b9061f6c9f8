"""Counts of what projects hold: by state, by iteration, by person."""

from collections.abc import Iterable

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from annotate.models import (
    Assignment,
    Comparison,
    Conversation,
    GenerationRequest,
    Iteration,
    Message,
    Project,
    Prompt,
    Ranking,
)

SIDES = ("user", "assistant")


def of_projects(slug: str | None = None) -> list[dict]:
    """What each project holds, or the one that is named, as plain lists and dicts. The queries do not grow with it."""
    projects = Project.objects.order_by("slug")
    if slug is not None:
        projects = projects.filter(slug=slug)
    prompts, imported = _prompts(), _imported()
    people = _people()
    iterations = _iterations()
    return [
        {
            "project": project.slug,
            "prompts": prompts.get(project.pk, {"active": 0, "used": 0}),
            "imported": imported.get(project.pk, {"conversations": 0, "comparisons": 0}),
            "iterations": iterations.get(project.pk, []),
            "people": people.get(project.pk, []),
        }
        for project in projects
    ]


def _prompts() -> dict[int, dict]:
    rows = Prompt.objects.order_by().values("project_id")
    rows = rows.annotate(active=Count("id", Q(active=True)), used=Count("id", Q(uses__gt=0)))
    return {row.pop("project_id"): row for row in rows}


def _imported() -> dict[int, dict]:
    found: dict[int, dict] = {}
    kinds = {
        "conversations": Conversation.objects.filter(kind=Conversation.Kind.IMPORTED),
        "comparisons": Comparison.objects.filter(imported_in__isnull=False),
    }
    for name, rows in kinds.items():
        for pk, count in _counted(rows, "project_id"):
            found.setdefault(pk, dict.fromkeys(kinds, 0))[name] = count
    return found


def _iterations() -> dict[int, list[dict]]:
    found: dict[int, dict] = {}
    for iteration in Iteration.objects.order_by("project_id", "number"):
        found[iteration.pk] = {
            "project_id": iteration.project_id,
            "number": iteration.number,
            "state": iteration.state,
            "conversations": _none_yet(Conversation.State),
            "written": _none_yet(Conversation.ReviewState),
            "messages": {role: _none_yet(Message.Source) for role in SIDES},
            "suggestions": {"asked": 0, "sampled": 0, "taken": 0, "edited": 0},
            "comparisons": _none_yet(Comparison.State),
            "assignments": {kind: _none_yet(Assignment.State) for kind in Assignment.Kind.values},
            "requests": {purpose: _none_yet(GenerationRequest.State) for purpose in GenerationRequest.Purpose.values},
            "rankings": {"submitted": 0, "surplus": 0, "all_bad": 0},
        }
    for pk, state, count in _counted(Conversation.objects.filter(iteration__isnull=False), "iteration_id", "state"):
        found[pk]["conversations"][state] = count
    finished = Conversation.objects.filter(kind=Conversation.Kind.WRITE, state=Conversation.State.FINISHED)
    for pk, state, count in _counted(finished, "iteration_id", "review_state"):
        found[pk]["written"][state] = count
    _count_messages(found)
    for pk, state, count in _counted(Comparison.objects.filter(iteration__isnull=False), "iteration_id", "state"):
        found[pk]["comparisons"][state] = count
    for pk, kind, state, count in _counted(Assignment.objects, "iteration_id", "kind", "state"):
        found[pk]["assignments"][kind][state] = count
    requests = GenerationRequest.objects.annotate(of=Coalesce("conversation__iteration_id", "comparison__iteration_id"))
    for pk, purpose, state, count in _counted(requests, "of", "purpose", "state"):
        found[pk]["requests"][purpose][state] = count
    by_trainers = Ranking.objects.filter(current=True, kind=Ranking.Kind.TRAINER)
    for pk, state, all_bad, count in _counted(by_trainers, "comparison__iteration_id", "assignment__state", "all_bad"):
        found[pk]["rankings"][state] += count
        found[pk]["rankings"]["all_bad"] += count * all_bad
    by_project: dict[int, list[dict]] = {}
    for counts in found.values():
        by_project.setdefault(counts.pop("project_id"), []).append(counts)
    return by_project


def _count_messages(found: dict[int, dict]) -> None:
    """Where the turns of finished written conversations came from, and what became of the suggestions asked for."""
    turns = Message.objects.filter(
        conversation__kind=Conversation.Kind.WRITE, conversation__state=Conversation.State.FINISHED, role__in=SIDES
    ).annotate(suggested=Q(completion__isnull=False))
    for pk, role, source, suggested, count in _counted(
        turns, "conversation__iteration_id", "role", "source", "suggested"
    ):
        found[pk]["messages"][role][source] += count
        if suggested and source in ("taken", "edited"):
            found[pk]["suggestions"][source] += count
    asked = GenerationRequest.objects.filter(purpose=GenerationRequest.Purpose.SUGGESTION)
    rows = asked.order_by().values("conversation__iteration_id")
    rows = rows.annotate(asked=Count("id", distinct=True), sampled=Count("completions"))
    for pk, asked, sampled in rows.values_list("conversation__iteration_id", "asked", "sampled"):
        found[pk]["suggestions"] |= {"asked": asked, "sampled": sampled}


def _none_yet(states) -> dict[str, int]:
    return dict.fromkeys(states.values, 0)


def _counted(rows: QuerySet, *by: str) -> Iterable[tuple]:
    return rows.order_by().values(*by).annotate(count=Count("id")).values_list(*by, "count")


def _people() -> dict[int, list[dict]]:
    """Who did how much, the most first. Those who never held a slot are not named."""
    done = Q(state=Assignment.State.SUBMITTED)
    rows = (
        Assignment.objects.filter(trainer__isnull=False)
        .order_by()
        .values("project_id", "trainer__email")
        .annotate(
            chats=Count("id", done & Q(kind=Assignment.Kind.CHAT)),
            rankings=Count("id", done & Q(kind=Assignment.Kind.RANK)),
            written=Count("id", done & Q(kind=Assignment.Kind.WRITE)),
            reviews=Count("id", done & Q(kind=Assignment.Kind.REVIEW)),
            held=Count("id", Q(state=Assignment.State.HELD)),
            skipped=Count("id", Q(state=Assignment.State.SKIPPED)),
            expired=Count("id", Q(state=Assignment.State.EXPIRED)),
            surplus=Count("id", Q(state=Assignment.State.SURPLUS)),
            seconds=Sum("active_seconds"),
        )
        .order_by("-chats", "-rankings", "-written", "-reviews", "trainer__email")
    )
    by_project: dict[int, list[dict]] = {}
    for row in rows:
        email = row.pop("trainer__email")
        by_project.setdefault(row.pop("project_id"), []).append({"email": email} | row)
    return by_project
