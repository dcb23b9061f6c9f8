"""Families of openings. One decides the split of all that was made from it, for ever."""

from annotate import derive
from annotate.models import FamilyMember, Project


def join(*, project: Project, texts: list[str], nearest: str = "") -> list[str]:
    """The families of openings, in their order. One that is new joins `nearest`, or begins a family of its own.

    An opening, taken without case, space and punctuation, is decided at first sight and never again, so that the
    same words cannot come into two splits. Of two that come at once the constraint lets one decide.
    """
    members = [derive.family_of(text) for text in texts]
    known = _known(project, members)
    new = {member: nearest or member for member in members if member not in known}
    FamilyMember.objects.bulk_create(
        (FamilyMember(project=project, member=member, family=family) for member, family in new.items()),
        ignore_conflicts=True,
    )
    if new:
        known |= _known(project, list(new))
    return [known[member] for member in members]


def _known(project: Project, members: list[str]) -> dict[str, str]:
    rows = FamilyMember.objects.filter(project=project, member__in=members)
    return dict(rows.values_list("member", "family"))
