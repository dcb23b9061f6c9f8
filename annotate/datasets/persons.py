"""Whose work is in an export: people by their pseudonyms, and what is theirs."""

from array import array
from collections.abc import Iterable

from django.db import connection

from annotate import derive
from annotate.datasets.reading import as_array
from annotate.errors import Invalid
from annotate.models import Assignment, Conversation, Project, Ranking, Review

AT_ONCE = 50_000


def named(*, project: Project, pseudonyms: Iterable[str]) -> list[int]:
    """The ids of the people who have these pseudonyms in the project. Raises Invalid where nobody has one."""
    wanted = set(pseudonyms)
    worked = (
        Conversation.objects.filter(project=project),
        Ranking.objects.filter(comparison__project=project),
        Assignment.objects.filter(project=project),
    )
    people = set(project.memberships.values_list("user_id", flat=True))
    for rows in worked:
        people |= set(rows.order_by().values_list("trainer_id", flat=True).distinct())
    reviews = Review.objects.filter(conversation__project=project)
    people |= set(reviews.order_by().values_list("reviewer_id", flat=True).distinct())
    found = {derive.pseudonym(project.secret, user_id): user_id for user_id in people - {None}}
    if unknown := sorted(wanted - found.keys()):
        raise Invalid(f"Nobody in project {project.slug} has the pseudonym {unknown[0]}.")
    return sorted(found[one] for one in wanted)


def among(statement: str, keys: array, user_id: int, **given) -> set[int]:
    """The ids that a statement finds for `user` among `keys`, some keys at a time."""
    found: set[int] = set()
    with connection.cursor() as cursor:
        for begin in range(0, len(keys), AT_ONCE):
            cursor.execute(statement, given | {"keys": as_array(keys[begin : begin + AT_ONCE]), "user": user_id})
            found.update(pk for (pk,) in cursor.fetchall())
    return found
