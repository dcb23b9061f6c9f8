"""Openings, for what samples answers to them: they are in the split of all that was made from them."""

from array import array
from collections.abc import Callable, Iterator

from django.db import connection

from annotate.datasets.filters import Prompts as Filters
from annotate.datasets.reading import read, streamed
from annotate.datasets.splits import Splitter
from annotate.datasets.tallies import PromptTally
from annotate.datasets.what import What
from annotate.models import Project, Prompt


def keys(project: Project, filters: Filters) -> Iterator[tuple[int, int]]:
    """The openings by id, each a group of its own."""
    found = Prompt.objects.filter(project=project)
    if "inactive" not in filters.include:
        found = found.filter(active=True)
    if filters.use_case is not None:
        found = found.filter(use_case=filters.use_case)
    if filters.since is not None:
        found = found.filter(created_at__gte=filters.since)
    return streamed(found.order_by("id").values_list("id", "id"))


PROMPTS_OF = """
SELECT prompt.id, prompt.text, prompt.family, prompt.use_case, prompt.source,
    CASE WHEN project.split_by = 'author' THEN (
        SELECT member.author_id FROM annotate_familymember member
        WHERE member.project_id = project.id AND member.member = prompt.family) END AS family_author_id
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY wanted(id, number)
JOIN annotate_prompt prompt ON prompt.id = wanted.id
JOIN annotate_project project ON project.id = prompt.project_id
ORDER BY wanted.number
"""


def rows(keys: list[int]) -> Iterator[dict]:
    """The rows of these openings, in their order."""
    with connection.cursor() as cursor:
        found = read(cursor, PROMPTS_OF, keys)
    yield from found


def renderer(project: Project, filters: Filters) -> Callable[[dict], dict]:
    """What makes the line of a row: the project's system message and the opening."""
    split_of, system = Splitter(project).of, {"role": "system", "content": project.system_message}

    def line(row: dict) -> dict:
        return {
            "prompt": [system, {"role": "user", "content": row["text"]}],
            "source": row["source"],
            "use_case": row["use_case"],
            "group_id": None,
            "conversation_id": None,
            "prompt_id": row["id"],
            "iteration": None,
            "split": split_of(row["family"], None, row["family_author_id"]),
            "family": row["family"],
        }

    return line


def prompt_only(lines: list[dict], filters: Filters) -> Iterator[dict]:
    """The whole lines."""
    yield from lines


def _made_by(project: Project, keys: array, user_id: int) -> set[int]:
    """None: an opening is no trainer's work."""
    return set()


def _nothing(project: Project, filters: Filters) -> str:
    if filters.use_case is not None:
        known = Prompt.objects.filter(project=project).order_by("use_case").values_list("use_case", flat=True)
        told = ", ".join(name or "(none)" for name in known.distinct()[:20]) or "none yet"
        return f"There is nothing to export: no opening matches. Use cases: {told}."
    return "There is nothing to export: no opening matches. `manage.py import_prompts` brings some."


def _no_lines(format: str, filters: Filters, tally: PromptTally) -> str:
    return f"There is nothing to export: no opening belongs to the split {filters.split}."


PROMPTS = What(
    name="prompts",
    title="Prompts",
    about="Openings after the project's system message, for what samples answers to them.",
    keys=keys,
    rows=rows,
    renderer=renderer,
    formats={"prompt_only": prompt_only},
    tally=lambda project, format, filters: PromptTally(format=format),
    nothing=_nothing,
    no_lines=_no_lines,
    made_by=_made_by,
)
