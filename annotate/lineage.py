"""Lineage: from a policy, a training run or an export back to what it came of, and on to what came of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection
from django.db.models import Q

from annotate.models import Export, Passage, Policy, TrainingRun

TRAININGS = ("sft", "reward", "policy")
"""The steps of a passage that train."""

EXPORTS = ("demonstrations", "comparisons", "prompts")
"""What a passage exports, by the names that its step has for them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One policy of a line, and the run that made it; None where it was not trained from here."""

    policy: Policy
    run: TrainingRun | None


def of(policy: Policy) -> list[Origin]:
    """The policy, the one that it was trained from, and so on back to the first, in as many queries for any length.

    The runs come with their exports, and those of the reward model that they were trained against with its base.
    """
    return of_each([policy.pk])[policy.pk]


def of_each(policies: Iterable[int]) -> dict[int, list[Origin]]:
    """`of` by policy, in as many queries for any number."""
    with connection.cursor() as cursor:
        cursor.execute(LINES, [list(policies)])
        found = cursor.fetchall()
    rows = Policy.objects.filter(pk__in={pk for _, pk in found}).select_related(
        "run", "run__reward", "run__reward__base"
    )
    rows = rows.defer("run__metrics", "run__reward__metrics").prefetch_related("run__exports", "run__reward__exports")
    known = {one.pk: one for one in rows}
    lines: dict[int, list[Origin]] = {}
    for policy, pk in found:
        lines.setdefault(policy, []).append(Origin(known[pk], known[pk].run))
    return lines


LINES = """
    WITH RECURSIVE line AS (
        SELECT id AS policy, id, parent_id, 0 AS back FROM annotate_policy WHERE id = ANY(%s)
        UNION ALL
        SELECT line.policy, before.id, before.parent_id, line.back + 1
        FROM annotate_policy before JOIN line ON before.id = line.parent_id
    ) CYCLE id SET comes_again USING path
    SELECT policy, id FROM line WHERE NOT comes_again ORDER BY policy, back
"""


def passage_of_run(run: TrainingRun) -> Passage | None:
    """The passage of which it is a step."""
    return _passage(run.project_id, [f"steps__{step}__run" for step in TRAININGS], run.pk)


def passage_of_export(export: Export) -> Passage | None:
    """The passage of which it is a part of a step."""
    return _passage(export.project_id, [f"steps__export__{name}" for name in EXPORTS], export.pk)


def _passage(project_id: int, places: list[str], pk: int) -> Passage | None:
    wanted = Q()
    for place in places:
        wanted |= Q(**{place: pk})
    return Passage.objects.filter(wanted, project=project_id).select_related("iteration__project").first()
