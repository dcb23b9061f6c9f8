"""Conversations as ShareGPT's are given away, and LlamaFactory's rankings in the same shape."""

from annotate.datasets.incoming import chat, fields, pairs
from annotate.datasets.incoming.items import Item
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.incoming.options import Options
from annotate.datasets.incoming.turns import answered

LISTS = ("conversations", "conversation", "items")
TAKEN = {*LISTS, *chat.SYSTEMS, "chosen", "rejected"}


def read(value, options: Options) -> Item:
    """The conversation of one row, or the comparison where it has a chosen and a rejected answer."""
    row = fields.an_object(value)
    fields.wanted(row)
    mends = Mending(options)
    key = fields.first_key(row, LISTS) or LISTS[0]
    turns = chat.with_system(row, chat.turns(row.get(key), key, mends), mends)
    if fields.first_key(row, ("chosen", "rejected")):
        chosen, rejected = ([*turns, *chat.turns(row.get(one), one, mends)] for one in ("chosen", "rejected"))
        return pairs.compared(row, chosen, rejected, mends, TAKEN)
    return Item(line=0, talks=[fields.talk(row, answered(turns, mends), TAKEN)], mended=mends.names)
