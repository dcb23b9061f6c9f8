"""Rows of the lists: a person's own work, and the finished work of a project that they read.

Every list reads one page by its key, so that the last page costs what the first one does.
"""

from django.db.models import Count, F, FilteredRelation, Q, QuerySet
from django.db.models.functions import Coalesce, Left
from django.utils import timezone

from annotate import access, queue
from annotate.errors import Invalid
from annotate.models import User

PAGE = 30
RECENT = 20
MOST = 100
"""Counts of what there is to do go no further."""

ENDED = ("submitted", "surplus", "skipped", "expired")


def before(text: str) -> int | None:
    """The key after which a page begins. Raises Invalid."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid("The address of this page is broken.")
    return int(text)


def held(user: User) -> QuerySet:
    """What a person works on. What was fetched ahead (seat 2) was never looked at and may be given back at any time."""
    return (
        user.assignments.filter(state="held", seat=1, project__in=access.projects_of(user))
        .select_related("project")
        .order_by("held_at")
    )


def offers(user: User, project) -> list[dict]:
    """What there is to do in a project, in its order, each kind counted up to `MOST`."""
    return [
        {"kind": kind, "free": queue.free_up_to(user=user, project=project, kind=kind, most=MOST)}
        for kind in project.kinds
    ]


def done_today(user: User) -> dict[str, int]:
    """How many tasks of each kind a person sent since midnight."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    counted = (
        user.assignments.filter(ended_at__gte=midnight, state__in=("submitted", "surplus"))
        .values_list("kind")
        .annotate(Count("id"))
    )
    return dict(counted)


def own_work(user: User, before: int | None = None, *, most: int = PAGE) -> list:
    """Ended tasks of a person, the newest first, up to one more than `most`, each with its `opening`."""
    rows = user.assignments.filter(ended_at__isnull=False, state__in=ENDED, project__in=access.projects_of(user))
    if before is not None:
        last = access.assignment_for(user, before)
        if last.ended_at is None:
            raise Invalid("The address of this page is broken.")
        rows = rows.filter(Q(ended_at__lt=last.ended_at) | Q(ended_at=last.ended_at, id__lt=last.pk))
    rows = rows.order_by("-ended_at", "-id").annotate(
        said=_first("conversation__messages"), ranked=_first("comparison__message__conversation__messages")
    )
    return list(rows.annotate(opening=Left(Coalesce("said__text", "ranked__text"), 400))[: most + 1])


def _first(messages: str) -> FilteredRelation:
    """The first message of a conversation after the system message."""
    return FilteredRelation(messages, condition=Q(**{f"{messages}__position": 1}))


def conversations(project, before: int | None) -> list:
    """Finished conversations of a project, the newest first, with `opening` and `turns`."""
    keys = _keys(project.conversations.filter(state="finished"), before)
    rows = project.conversations.filter(pk__in=keys).select_related("trainer").order_by("-id")
    # The system message is not counted.
    turns = rows.annotate(turns=Count("messages") - 1, first=_first("messages"))
    return list(turns.annotate(opening=Left("first__text", 400)))


def comparisons(project, state: str, before: int | None) -> list:
    """Comparisons of a project in a state, the newest first, with `asked` (the message answered) and `ranked`."""
    keys = _keys(project.comparisons.filter(state=state), before)
    rows = project.comparisons.filter(pk__in=keys).order_by("-id")
    rows = rows.annotate(
        ranked=Count("rankings", filter=Q(rankings__current=True, rankings__assignment__state="submitted")),
        context=FilteredRelation(
            "message__conversation__messages",
            condition=Q(message__conversation__messages__position=F("message__position") - 1),
        ),
    )
    return list(rows.annotate(asked=Left("context__text", 400)))


def _keys(rows: QuerySet, before: int | None) -> list[int]:
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return list(rows.order_by("-id").values_list("pk", flat=True)[: PAGE + 1])


def one_page(rows: list, most: int = PAGE) -> tuple[list, int | None]:
    """The rows to show, and the key of the next page where there is one."""
    return rows[:most], rows[most - 1].pk if len(rows) > most else None
