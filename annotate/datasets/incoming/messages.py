"""Lists of messages as OpenAI and TRL take them: whole conversations, or a prompt and a completion."""

from annotate.datasets.incoming import chat, fields
from annotate.datasets.incoming.items import Item
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.incoming.options import Options
from annotate.datasets.incoming.turns import answered

PARTS = ("prompt", "completion")
TAKEN = {"messages", *PARTS, *chat.SYSTEMS}


def read(value, options: Options) -> Item:
    """The conversation of one row."""
    row = fields.an_object(value)
    fields.wanted(row)
    mends = Mending(options)
    # A prompt with a completion is one turn of several, and each may name the conversation that it is of.
    keys, ids = (("messages",), fields.ID_KEYS) if row.get("messages") is not None else (PARTS, ("id",))
    turns = [turn for key in keys for turn in chat.turns(row.get(key), key, mends)]
    turns = answered(chat.with_system(row, turns, mends), mends)
    return Item(line=0, talks=[fields.talk(row, turns, TAKEN, ids=ids)], mended=mends.names)
