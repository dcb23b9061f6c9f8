"""Rankings as files give them, made one kind: dense ranks, 0 is best, no two answers with one text."""

from annotate.datasets.incoming.items import Answer
from annotate.datasets.incoming.mends import Mending

MODEL_CHARACTERS = 120
"""Where the name of a model is cut."""


def model(value) -> str:
    """The name of the model that wrote an answer; empty where the source says none."""
    return value.replace("\x00", "").strip()[:MODEL_CHARACTERS] if isinstance(value, str) else ""


def distinct(answers: list[Answer], mends: Mending) -> list[Answer]:
    """The answers with dense ranks; of those with one text the best. None at all where fewer than two are left."""
    best: dict[str, Answer] = {}
    for answer in answers:
        there = best.get(answer.text)
        if there is not None:
            mends.note("dropped_duplicate_answer")
        if there is None or answer.rank < there.rank:
            best[answer.text] = answer
    if len(best) < 2:
        return []
    dense = {rank: place for place, rank in enumerate(sorted({answer.rank for answer in best.values()}))}
    for answer in best.values():
        answer.rank = dense[answer.rank]
    return list(best.values())
