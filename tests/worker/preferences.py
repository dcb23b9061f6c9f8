"""Comparisons from which a model can learn in a moment what is preferred: the more often an answer says `good`, the
better it is."""

from collections.abc import Iterator

from annotate import derive
from annotate.datasets import filters, snapshots
from annotate.models import Export, Project
from tests import factory

SPLITS = {"train": 12, "validation": 4, "test": 2}


def openings(project: Project, wanted: dict[str, int]) -> Iterator[str]:
    """So many openings of each split, always the same under the same secret."""
    wanted = dict(wanted)
    texts = (f"Question {number}" for number in range(10_000))
    while any(wanted.values()):
        opening = next(texts)
        split = derive.split_of(project.secret, derive.family_of(opening))
        if wanted.get(split):
            wanted[split] -= 1
            yield opening


def compare(project: Project, wanted: dict[str, int] = SPLITS) -> None:
    """Comparisons of every split, each ranked by two trainers: the second has tied what the first ranks last."""
    for opening in openings(project, wanted):
        answers = [f"good good good {opening}", f"good bad {opening}", f"bad {opening}"]
        comparison = factory.comparison_about(project, opening, None, *answers, reply=f"good good {opening}")
        # A is the reply.
        factory.ranking(comparison, "B A C D")
        factory.ranking(comparison, "B A C=D")


def exported(project: Project, format: str = "ranked", **given) -> Export:
    """The comparisons of the project."""
    return snapshots.export("comparisons", project=project, format=format, filters=filters.parse("comparisons", given))


def demonstrations(project: Project, format: str = "messages") -> Export:
    """Three conversations in which a trainer wrote good answers."""
    for opening in openings(project, {"train": 3}):
        turns = [factory.written_turn("user", opening), factory.written_turn("assistant", f"good {opening}")]
        factory.finished_piece(project, None, *turns)
    return snapshots.export(
        "demonstrations", project=project, format=format, filters=filters.parse("demonstrations", {})
    )
