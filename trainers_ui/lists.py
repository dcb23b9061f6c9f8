"""Rows of the lists: a person's own work, and the finished work of a project that they read.

Every list reads one page by its key, so that the last page costs what the first one does.
"""

from django.db.models import Count, Exists, F, FilteredRelation, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce, Left
from django.utils import timezone

from annotate import access, assignments, demonstrations, queue
from annotate.errors import Invalid
from annotate.models import Assignment, Conversation, Message, Review, User
from annotate.quality import disagreement

PAGE = 30
RECENT = 20
WINDOW = 1000
"""So many comparisons are put in the order of what the reward model and people differ on; the next ones come after."""
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
        .select_related("project", "subject", "conversation")
        .order_by("held_at")
    )


def offers(user: User, project) -> list[dict]:
    """What there is for a person to do in a project, in its order, reviews last; each kind counted up to `MOST`."""
    kinds = [*project.kinds] if access.has_role(user, "trainer") else []
    if access.has_role(user, "reviewer"):
        kinds.append("review")
    return [
        {"kind": kind, "free": queue.free_up_to(user=user, project=project, kind=kind, most=MOST)} for kind in kinds
    ]


def waiting(user: User) -> list[Assignment]:
    """Free slots that wait for this person only, at most `RECENT` + 1, each with its `opening` and, where it came
    back from a review, the `said` of its reviewer with `comments`.
    """
    rows = Assignment.objects.filter(
        reserved_for=user,
        state="free",
        kind="write",
        project__in=access.projects_of(user).filter(kinds__contains=["write"]),
    ).select_related("project", "subject")
    verdicts = Review.objects.filter(current=True, verdict="returned").annotate(comment_count=Count("comments"))
    rows = rows.prefetch_related(Prefetch("subject__reviews", verdicts, to_attr="returns"))
    rows = rows.annotate(before=_first("subject__messages")).defer("draft")
    rows = rows.annotate(opening=Left(Coalesce("before__text", KT("draft__turns__0__text")), 400))
    found = list(rows.order_by("project__name", "priority", "id")[: RECENT + 1])
    for row in found:
        row.said = row.subject.returns[0] if row.subject is not None and row.subject.returns else None
    return found


def run_out(user: User) -> list[Assignment]:
    """Chats and pieces of this person whose time ran out before their end, at most `RECENT` + 1, the latest first.

    Each has its `opening`, and `still_counts`: whether it would count if it were finished now.
    """
    rows = user.assignments.filter(
        state="expired",
        kind__in=("write", "chat"),
        conversation__state="open",
        project__in=access.projects_of(user),
    ).select_related("project")
    rows = rows.annotate(said=_first("conversation__messages")).defer("draft")
    rows = rows.annotate(
        opening=Left(
            Coalesce("said__text", KT("draft__turns__0__text"), KT("draft__text"), "conversation__prompt__text"), 400
        )
    )
    found = list(rows.order_by("-ended_at", "-id")[: RECENT + 1])
    counting = assignments.still_count(found)
    for row in found:
        row.still_counts = row.pk in counting
    return found


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
    """Ended tasks of a person, the newest first, up to one more than `most`, each with its `opening`.

    Pieces of writing have `revised` and `edited`: whether a newer version, or a reviewer's edit, stands in their place.
    """
    rows = user.assignments.filter(ended_at__isnull=False, state__in=ENDED, project__in=access.projects_of(user))
    if before is not None:
        last = access.assignment_for(user, before)
        if last.ended_at is None:
            raise Invalid("The address of this page is broken.")
        rows = rows.filter(Q(ended_at__lt=last.ended_at) | Q(ended_at=last.ended_at, id__lt=last.pk))
    rows = rows.order_by("-ended_at", "-id").select_related("conversation").defer("draft")
    rows = rows.prefetch_related(Prefetch("review", Review.objects.annotate(comment_count=Count("comments"))))
    rows = rows.annotate(
        said=_first("conversation__messages"),
        ranked=_first("comparison__message__conversation__messages"),
        reviewed=_first("subject__messages"),
        edited=Exists(Review.objects.filter(conversation=OuterRef("conversation"), current=True, edit__isnull=False)),
    )
    typed = (KT("draft__turns__0__text"), KT("draft__text"))
    opening = Coalesce("said__text", "ranked__text", *typed, "reviewed__text")
    found = list(rows.annotate(opening=Left(opening, 400))[: most + 1])
    newer = _superseded(found)
    for row in found:
        row.revised = row.conversation_id in newer and not row.edited
    return found


def _superseded(rows: list[Assignment]) -> set[int]:
    """Which of the pieces that were written in these slots have a newer version in their place."""
    by_project: dict = {}
    for row in rows:
        if row.kind == "write" and row.conversation_id is not None:
            by_project.setdefault(row.project_id, []).append(row.conversation_id)
    return {
        pk
        for project, pieces in by_project.items()
        for pk in demonstrations.written(project).filter(pk__in=pieces, superseded=True).values_list("pk", flat=True)
    }


def _first(messages: str) -> FilteredRelation:
    """The first message of a conversation after the system message."""
    return FilteredRelation(messages, condition=Q(**{f"{messages}__position": 1}))


def conversations(project, before: int | None) -> list:
    """Finished chats of a project, the newest first, with `opening` and `turns`."""
    keys = _keys(project.conversations.filter(state="finished", kind="chat"), before)
    rows = project.conversations.filter(pk__in=keys).select_related("trainer").order_by("-id")
    # The system message is not counted.
    turns = rows.annotate(turns=Count("messages") - 1, first=_first("messages"))
    return list(turns.annotate(opening=Left("first__text", 400)))


def imported(project, before: int | None) -> list:
    """Conversations that were brought in from files, the newest first, with `opening` and `turns`."""
    keys = _keys(project.conversations.filter(state="finished", kind="imported"), before)
    rows = project.conversations.filter(pk__in=keys).select_related("imported_in").order_by("-id")
    opening = Message.objects.filter(conversation=OuterRef("pk")).exclude(role="system").order_by("position")
    turns = rows.annotate(turns=Count("messages", filter=~Q(messages__role="system")))
    return list(turns.annotate(opening=Left(Subquery(opening.values("text")[:1]), 400)))


def pieces(project, review_state: str, before: int | None) -> list:
    """Finished pieces of writing in a review state (any where it is empty), the newest first, with `opening`, `turns`,
    `superseded` and `late`.
    """
    found = Conversation.objects.filter(project=project, kind="write", state="finished")
    if review_state:
        found = found.filter(review_state=review_state)
    keys = _keys(found, before)
    rows = demonstrations.written(project).filter(pk__in=keys).select_related("trainer", "made_by_review")
    turns = rows.order_by("-id").annotate(turns=Count("messages") - 1, first=_first("messages"))
    return list(turns.annotate(opening=Left("first__text", 400)))


def comparisons(project, state: str, before: int | None) -> list:
    """Comparisons of a project in a state, the newest first, with `asked` (the message answered) and `ranked`."""
    keys = _keys(project.comparisons.filter(state=state), before)
    return list(_compared(project, keys).order_by("-id"))


def disagreed(user: User, project, before: int | None) -> tuple[list, int | None, bool]:
    """Of WINDOW comparisons of a project, the newest first, those on which the reward model differs most from the
    people who ranked them, as in `comparisons`, each with its `difference`; the key of the next page; and whether any
    of them is scored."""
    # Imported ones are never scored, and may be any number.
    scored = access.scored_for(user, project).filter(imported_in=None)
    if before is not None:
        scored = scored.filter(pk__lt=before)
    keys = list(scored.order_by("-id").values_list("pk", flat=True)[: WINDOW + 1])
    found = disagreement.of_comparisons(keys[:WINDOW], project.scored_by)
    differing = [pk for pk, difference in found.items() if difference.reversed]
    differing.sort(key=lambda pk: (-found[pk].share, -found[pk].pairs, -pk))
    rows = _compared(project, differing[:PAGE]).in_bulk()
    for pk, row in rows.items():
        row.difference = found[pk]
    older = keys[WINDOW - 1] if len(keys) > WINDOW else None
    return [rows[pk] for pk in differing[:PAGE]], older, bool(found)


def _compared(project, keys: list[int]) -> QuerySet:
    """These comparisons with `asked` and `ranked`."""
    rows = project.comparisons.filter(pk__in=keys).annotate(
        ranked=Count(
            "rankings",
            filter=Q(rankings__current=True)
            & (Q(rankings__assignment__state="submitted") | Q(rankings__kind="imported")),
        ),
        context=FilteredRelation(
            "message__conversation__messages",
            condition=Q(message__conversation__messages__position=F("message__position") - 1),
        ),
    )
    return rows.annotate(asked=Left("context__text", 400))


def _keys(rows: QuerySet, before: int | None) -> list[int]:
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return list(rows.order_by("-id").values_list("pk", flat=True)[: PAGE + 1])


def one_page(rows: list, most: int = PAGE) -> tuple[list, int | None]:
    """The rows to show, and the key of the next page where there is one."""
    return rows[:most], rows[most - 1].pk if len(rows) > most else None
