"""Prompts that hold examples of their own, as people wrote them for models that only went on with a text."""

import re
from itertools import cycle

LABELS = (
    ("Q", "A"),
    ("Question", "Answer"),
    ("Input", "Output"),
    ("User", "Assistant"),
    ("Human", "AI"),
    ("Human", "Assistant"),
)
"""Who asks and who answers: the words that stand, with a colon, at the beginning of a line."""

_BEGINNINGS = [(asks, answers, re.compile(rf"^[ \t]*({asks}|{answers}):", re.MULTILINE)) for asks, answers in LABELS]


def found(prompt: str) -> bool:
    """Whether both labels of a pair stand in the prompt, each at the beginning of a line."""
    return any({asks, answers} <= set(begins.findall(prompt)) for asks, answers, begins in _BEGINNINGS)


def apart(prompt: str) -> list[tuple[str, str]] | None:
    """The prompt as turns, (role, text), up to the last question; None where it does not part cleanly.

    It parts where questions and answers alternate, none is empty, and the last label is an answer's with nothing
    after it. What stands before the first question goes with it, as an instruction goes with its input.
    """
    for asks, answers, begins in _BEGINNINGS:
        marks = list(begins.finditer(prompt))
        if len(marks) < 2 or len(marks) % 2:
            continue
        ends = [mark.start() for mark in marks[1:]] + [len(prompt)]
        pieces = [prompt[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
        in_turn = all(mark[1] == label for mark, label in zip(marks, cycle((asks, answers)), strict=False))
        if not in_turn or pieces[-1] or not all(pieces[:-1]):
            continue
        before = prompt[: marks[0].start()].strip()
        if before:
            pieces[0] = f"{before}\n\n{pieces[0]}"
        return list(zip(cycle(("user", "assistant")), pieces[:-1], strict=False))
    return None
