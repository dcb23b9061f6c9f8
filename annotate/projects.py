"""Projects: their guidelines and their prompts."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Max

from annotate import derive, families
from annotate.errors import Conflict, Invalid
from annotate.models import Export, GuidelineVersion, Project, Prompt


@dataclass(frozen=True, slots=True)
class Opening:
    """A prompt as it is brought in: its text and where it came from."""

    text: str
    use_case: str = ""
    source: str = ""
    source_id: str = ""


@transaction.atomic
def set_guidelines(*, project: Project, text: str) -> GuidelineVersion:
    """A new version of the guidelines, in Markdown; the newest one where the text is the same."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    newest = current_guidelines(project)
    if newest is not None and newest.text == text:
        return newest
    last = project.guideline_versions.aggregate(last=Max("number"))["last"] or 0
    return GuidelineVersion.objects.create(project=project, number=last + 1, text=text)


def current_guidelines(project: Project) -> GuidelineVersion | None:
    """The newest version of a project's guidelines, if it has any."""
    return project.guideline_versions.order_by("-number").first()


def check_split_by(*, project: Project, split_by: str) -> None:
    """See that the project's splits may go by this from now on. Call it in the transaction that changes the project.

    Where it is a change, until that ends nobody can ask for an export: its reference to the project wants a lock, at
    its commit, that this one excludes. So it waits for imports that run.
    Raises Conflict where an export has fixed what splits go by.
    """
    # This one lets imports and exports refer to the project, but keeps another change of it out.
    locked = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    if locked.split_by == split_by:
        return
    if split_is_fixed(Project.objects.select_for_update().get(pk=project.pk)):
        raise Conflict("The first export has fixed what splits go by; else one would test with what was trained on.")


def split_is_fixed(project: Project) -> bool:
    """Whether an export is done or under way, so that splits must stay what they are."""
    ended_badly = [Export.State.FAILED, Export.State.STOPPED]
    return Export.objects.filter(project=project).exclude(state__in=ended_badly).exists()


def add_prompts(*, project: Project, openings: Iterable[Opening]) -> tuple[int, int]:
    """Add prompts that the project does not have yet. How many came in, and how many it had (or came twice)."""
    found = insert_prompts(project=project, openings=openings)
    families.join_pending(project=project)
    return found


@transaction.atomic
def insert_prompts(*, project: Project, openings: Iterable[Opening]) -> tuple[int, int]:
    """As `add_prompts`, but all or none, and without their families, which `families.join_pending` finds afterwards.

    That takes time and a lock under which others wait, so that it is not part of this transaction.
    """
    before = project.prompts.count()
    seen, rest = 0, iter(openings)
    while batch := list(itertools.islice(rest, 1000)):
        seen += len(batch)
        Prompt.objects.bulk_create(make_prompts(project=project, openings=batch), ignore_conflicts=True)
    added = project.prompts.count() - before
    return added, seen - added


def tidied(text: str) -> str:
    """The text as a prompt is stored: line ends of one kind, nothing that PostgreSQL's text has not, no rim."""
    return text.replace("\r\n", "\n").replace("\x00", "").strip()


def make_prompts(*, project: Project, openings: list[Opening]) -> list[Prompt]:
    """Prompts of these openings, not yet stored and without a family. Raises Invalid where a text is empty."""
    texts = [tidied(opening.text) for opening in openings]
    if not all(texts):
        raise Invalid("A prompt needs a text.")
    return [
        Prompt(
            project=project,
            text=text,
            digest=derive.digest_of(text),
            use_case=opening.use_case,
            source=opening.source,
            source_id=opening.source_id,
        )
        for opening, text in zip(openings, texts, strict=True)
    ]


def project_named(slug: str) -> Project:
    """A project by its slug, for commands. Raises Invalid with the names that there are."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        names = ", ".join(Project.objects.order_by("slug").values_list("slug", flat=True)[:20])
        raise Invalid(f"There is no project {slug}. Projects: {names or 'none yet; make one in the admin site'}.")
    return project
