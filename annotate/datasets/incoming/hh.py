"""Pairs of transcripts, as in Anthropic's HH-RLHF."""

from annotate.datasets.incoming import fields, pairs, transcripts
from annotate.datasets.incoming.items import Bad, Item, Turn
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.incoming.options import Options

SIDES = ("chosen", "rejected")


def read(value, options: Options) -> Item:
    """A comparison of two. Raises Bad where a side is no transcript."""
    row = fields.an_object(value)
    mends = Mending(options)
    chosen, rejected = (side(row, key, mends) for key in SIDES)
    return pairs.compared(row, chosen, rejected, mends, set(SIDES))


def side(row: dict, key: str, mends: Mending) -> list[Turn]:
    """One of the two transcripts, whole."""
    value = row.get(key)
    if not isinstance(value, str):
        raise Bad(f"{key} is missing" if value is None else f"{key} is not a text")
    if not transcripts.is_transcript(value):
        raise Bad(f"{key} is no transcript: it has no labels Human: and Assistant: after blank lines")
    return transcripts.turns(value, mends)
