"""The one door: fetch a thing together with the permission to see it.

Strangers get NotFound, so that they cannot tell what exists. Nothing reaches a page or the API but through here.
"""

from collections.abc import Iterable

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.crypto import constant_time_compare

from annotate.errors import Forbidden, NotFound
from annotate.models import (
    Assignment,
    Comparison,
    Conversation,
    Export,
    Import,
    Membership,
    Project,
    Ranking,
    Role,
    User,
)

READS_ALL = (Role.REVIEWER, Role.ADMIN, Role.ENGINEER)
"""Roles that read the work of others in their projects."""

HANDLES_DATASETS = (Role.ENGINEER, Role.ADMIN)
"""Roles that bring datasets into their projects and take them out."""

AT_WORK = (Assignment.State.HELD, Assignment.State.EXPIRED)
"""States in which a trainer's own answer may still come in."""


def roles_of(user: User) -> set[str]:
    """The names of the roles that a person has. Asked of the database once a request."""
    if not hasattr(user, "_roles"):
        user._roles = set(user.groups.values_list("name", flat=True))
        if user.is_superuser:
            user._roles.add(Role.ADMIN.value)
    return user._roles


def has_role(user: User, *roles: str) -> bool:
    """Whether a person has one of these roles."""
    return bool(roles_of(user) & {str(role) for role in roles})


def require_role(user: User, *roles: str) -> None:
    """Raises Forbidden unless the person has one of these roles."""
    if not has_role(user, *roles):
        names = " or ".join(Role(role).label.lower() for role in roles)
        raise Forbidden(f"This is for the role {names}. Ask an admin if you need it.")


def require_role_for(user: User, kind: str) -> None:
    """Raises Forbidden unless the person takes this kind of work: reviewers review, trainers do all else."""
    require_role(user, Role.REVIEWER if kind == Assignment.Kind.REVIEW else Role.TRAINER)


def require_watcher(user: User, token: str) -> None:
    """Raises NotFound unless this is METRICS_TOKEN or, where no token is given, the person is an admin."""
    if token:
        may = bool(settings.METRICS_TOKEN) and constant_time_compare(token, settings.METRICS_TOKEN)
    else:
        may = user.is_authenticated and has_role(user, Role.ADMIN)
    if not may:
        raise NotFound("There is no such page here.")


def projects_of(user: User) -> QuerySet[Project]:
    """The projects that a person works on, by name."""
    return Project.objects.filter(memberships__user=user).order_by("name", "id")


def project_for(user: User, slug: str) -> Project:
    """A project that the person works on. Raises NotFound."""
    project = projects_of(user).filter(slug=slug).first()
    if project is None:
        raise NotFound("There is no such project here.")
    return project


def reviewed_project_for(user: User, slug: str) -> Project:
    """A project whose work of others the person may read. Raises NotFound or Forbidden."""
    project = project_for(user, slug)
    require_role(user, *READS_ALL)
    return project


def dataset_project_for(user: User, slug: str) -> Project:
    """A project whose datasets the person may bring in and take out. Raises NotFound or Forbidden."""
    project = project_for(user, slug)
    require_role(user, *HANDLES_DATASETS)
    return project


def export_for(user: User, export_id: int) -> Export:
    """An export of a project whose datasets the person handles, with its project. Raises NotFound or Forbidden."""
    return _of_datasets(user, Export.objects.select_related("project", "iteration"), export_id, "export")


def import_for(user: User, import_id: int) -> Import:
    """An import of a project whose datasets the person handles, with its project. Raises NotFound or Forbidden."""
    return _of_datasets(user, Import.objects.select_related("project"), import_id, "import")


def _of_datasets(user: User, rows: QuerySet, pk: int, what: str):
    found = rows.filter(pk=pk, project__in=Membership.objects.filter(user=user).values("project")).first()
    if found is None:
        raise NotFound(f"There is no such {what} here.")
    require_role(user, *HANDLES_DATASETS)
    return found


def assignment_for(user: User, assignment_id: int) -> Assignment:
    """The person's own assignment, with its project, comparison, conversation and subject. Raises NotFound."""
    assignment = (
        Assignment.objects.filter(
            pk=assignment_id, trainer=user, project__in=Membership.objects.filter(user=user).values("project")
        )
        .select_related(
            "project",
            "iteration__reply_policy",
            "comparison",
            "conversation__prompt",
            "subject__trainer",
            "replacement",
        )
        .first()
    )
    if assignment is None:
        raise NotFound("There is no such task here. It may belong to somebody else.")
    return assignment


def conversation_for(user: User, conversation_id: int) -> Conversation:
    """A conversation that the person held, or that a reviewer, admin or engineer of its project reads.

    Authors also read what a reviewer made of their piece. Raises NotFound, and Forbidden to those who read the work of
    others while they are ranking a reply of it themselves: it would tell them which answer is the original.
    """
    conversation = (
        Conversation.objects.filter(
            pk=conversation_id, project__in=Membership.objects.filter(user=user).values("project")
        )
        .select_related("project", "iteration", "imported_in", "trainer", "prompt", "revises", "made_by_review")
        .first()
    )
    if conversation is None or not (is_author(user, conversation) or has_role(user, *READS_ALL)):
        raise NotFound("There is no such conversation here.")
    # An author alone is told of no policy.
    if has_role(user, *READS_ALL):
        _not_while_ranking(user, Comparison.objects.filter(message__conversation=conversation))
    return conversation


def conversations_read_by(user: User, project: Project) -> QuerySet[Conversation]:
    """The conversations of a project that the person may read, and those that `conversation_for` keeps back for now:
    what lists show of one tells nothing of its replies."""
    found = Conversation.objects.filter(project=project)
    if has_role(user, *READS_ALL):
        return found
    return found.filter(Q(trainer=user) | Q(made_by_review__isnull=False, revises__trainer=user))


def is_author(user: User, conversation: Conversation) -> bool:
    """Whether the person held it, or a reviewer made it of what they held."""
    if conversation.trainer_id == user.pk:
        return True
    edited = hasattr(conversation, "made_by_review")
    return edited and conversation.revises is not None and conversation.revises.trainer_id == user.pk


def comparison_for(user: User, comparison_id: int) -> Comparison:
    """A comparison of a project whose work of others the person reads.

    Raises NotFound, and Forbidden while they are ranking it themselves.
    """
    comparison = (
        Comparison.objects.filter(pk=comparison_id, project__in=Membership.objects.filter(user=user).values("project"))
        .select_related("project", "iteration", "imported_in", "message__conversation")
        .first()
    )
    if comparison is None or not has_role(user, *READS_ALL):
        raise NotFound("There is no such comparison here.")
    _not_while_ranking(user, [comparison])
    return comparison


def comparisons_read_by(user: User, project: Project) -> QuerySet[Comparison]:
    """The comparisons of a project whose work of others the person reads, without those that they are ranking."""
    at_work = Assignment.objects.filter(trainer=user, project=project, state__in=AT_WORK, comparison=OuterRef("pk"))
    return project.comparisons.filter(~Exists(at_work))


def scored_for(user: User, project: Project) -> QuerySet[Comparison]:
    """The comparisons of which a person may see what a reward model makes of them, among those that they read.

    Only when all rankings are in: whoever could still rank one would be led by it, or could lead others.
    """
    if not has_role(user, *READS_ALL):
        return Comparison.objects.none()
    return comparisons_read_by(user, project).filter(state=Comparison.State.CLOSED)


def _not_while_ranking(user: User, compared: Iterable[Comparison]) -> None:
    """Nobody sees another's answer, or where the candidates are from, before their own is in."""
    if Assignment.objects.filter(comparison__in=compared, trainer=user, state__in=AT_WORK).exists():
        raise Forbidden("You hold a ranking of this comparison. Submit or skip it first.")


def ranking_for(user: User, ranking_id: int) -> Ranking:
    """The person's own ranking, or one that a reviewer, admin or engineer of its project reads."""
    ranking = (
        Ranking.objects.filter(
            pk=ranking_id, comparison__project__in=Membership.objects.filter(user=user).values("project")
        )
        .select_related("comparison__project", "comparison__message", "assignment", "trainer")
        .first()
    )
    if ranking is None or (ranking.trainer_id != user.pk and not has_role(user, *READS_ALL)):
        raise NotFound("There is no such ranking here.")
    if ranking.trainer_id != user.pk:
        _not_while_ranking(user, [ranking.comparison])
    return ranking
