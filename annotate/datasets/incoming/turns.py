"""Turns in a row, put right: what holds of a dialogue in every format."""

from annotate.datasets.incoming.items import Bad, Turn
from annotate.datasets.incoming.mends import Mending


def mended(turns: list[Turn], mends: Mending) -> list[Turn]:
    """The turns without empty ones, neighbours of one speaker joined, beginning with the user.

    An empty system message is none; a system message between turns is refused, because no conversation holds one.
    """
    kept: list[Turn] = []
    for turn in turns:
        if not turn.text:
            if turn.role != "system":
                mends.note("dropped_empty_turn")
        elif kept and kept[-1].role == turn.role:
            mends.note("joined_turns")
            kept[-1] = Turn(turn.role, f"{kept[-1].text}\n\n{turn.text}", kept[-1].source_id, kept[-1].facts)
        elif turn.role == "system" and kept:
            raise Bad("a system message stands between its turns")
        else:
            kept.append(turn)
    first = 1 if kept and kept[0].role == "system" else 0
    if len(kept) > first and kept[first].role == "assistant":
        mends.note("dropped_leading_answer")
        del kept[first]
    return kept


def answered(turns: list[Turn], mends: Mending) -> list[Turn]:
    """Mended turns up to the last answer. Raises Bad where there is no answer."""
    kept = mended(turns, mends)
    if not any(turn.role == "assistant" for turn in kept):
        raise Bad("it has no answer")
    if kept[-1].role == "user":
        mends.note("dropped_last_user_turn")
        kept.pop()
    return kept
