"""Two sides of a comparison, each a whole dialogue, to the context that they share and its two answers."""

from annotate.datasets.incoming import fields
from annotate.datasets.incoming.items import Answer, Bad, Item, Judged, Turn
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.incoming.orders import model
from annotate.datasets.incoming.turns import mended

IDS = ("id",)
"""Where a row's own id stands; the ids of prompts and conversations come back in every pair of the same one."""


def compared(row: dict, chosen: list[Turn], rejected: list[Turn], mends: Mending, taken: set[str]) -> Item:
    """A comparison of two: the chosen answer is better, and the conversation ends with it."""
    better, worse = mended(chosen, mends), mended(rejected, mends)
    context = _shared(better, worse)
    answers = [
        Answer(_answer(side, context, word, mends), rank, model=model(row.get(f"{word}_model")))
        for rank, (side, word) in enumerate(((better, "chosen"), (worse, "rejected")))
    ]
    if answers[0].text == answers[1].text:
        raise Bad("both sides are the same")
    talk = fields.talk(row, better[: context + 1], taken, ids=IDS)
    judged = Judged(0, context, answers, uncertain=fields.uncertain(row))
    return Item(line=0, talks=[talk], judged=[judged], mended=mends.names)


def _shared(better: list[Turn], worse: list[Turn]) -> int:
    """How many turns both begin with, the last of them the user's."""
    shared = 0
    for one, other in zip(better, worse, strict=False):
        if (one.role, one.text) != (other.role, other.text):
            break
        shared += 1
    while shared and better[shared - 1].role != "user":
        shared -= 1
    if not shared:
        raise Bad("its two sides do not begin with the same turn of the user")
    return shared


def _answer(side: list[Turn], context: int, word: str, mends: Mending) -> str:
    if len(side) == context:
        raise Bad(f"its {word} side has no answer")
    if len(side) > context + 1:
        mends.note("cut_to_first_answer")
    return side[context].text
