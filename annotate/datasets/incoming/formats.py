"""The formats that conversations come in: their names, how they are recognised, and who reads each."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from annotate.datasets.incoming import instructions, oasst
from annotate.datasets.incoming.items import Bad, Item
from annotate.datasets.incoming.mends import MENDS
from annotate.datasets.incoming.options import Options
from annotate.errors import Invalid

__all__ = ["FORMATS", "MENDS", "Format", "Options", "read", "recognise"]


@dataclass(frozen=True)
class Format:
    """One format."""

    name: str
    about: str
    """What a line of it is."""
    read: Callable[[object, Options], Item]
    """One decoded value to what came of it; raises Bad."""


FORMATS = {
    one.name: one
    for one in (
        Format("oasst", "OpenAssistant's message trees, with ranked replies", oasst.read),
        Format("instructions", "instruction, input and output, or prompt and completion", instructions.read),
    )
}
"""All that one row can be read as. Openings without an answer, `prompts`, are read elsewhere."""


def recognise(first_values: list, name: str) -> str:
    """The format of a file, from its first good values."""
    found = Counter(filter(None, map(_format, first_values)))
    if not found:
        raise Invalid(f"{name}: its format is not recognised.")
    return found.most_common(1)[0][0]


def _format(value) -> str | None:
    if not isinstance(value, dict):
        return None
    return "oasst" if isinstance(value.get("prompt"), dict) else "instructions"


def read(rows: Iterable[tuple[int, object]], *, format: str, options: Options) -> Iterator[tuple[int, Item | Bad]]:
    """What came of each value of a file, or why nothing did, with the number of its line."""
    reader = FORMATS[format].read
    for line, value in rows:
        if isinstance(value, Bad):
            yield line, value
            continue
        try:
            item = reader(value, options)
        except Bad as bad:
            yield line, bad
        except RecursionError:
            yield line, Bad("it is nested too deep")
        else:
            item.line = line
            yield line, item
