"""OpenAssistant's message trees: one conversation a leaf, one ranking for each set of ranked siblings."""

from dataclasses import dataclass

from annotate.datasets.incoming import fields
from annotate.datasets.incoming.items import Answer, Bad, Item, Judged, Talk, Turn
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.incoming.options import Options
from annotate.datasets.incoming.orders import distinct, model

ROLES = {"prompter": "user", "assistant": "assistant"}

TURNS = 200_000
"""The turns that the conversations of one tree may have together: a long stem with many leaves grows by its square."""

FLAT = (
    "it is one message of a flat file, and a message cannot be joined with those that it answers while the file is "
    "read; bring in the file of trees (its name has `trees` in it)"
)
"""What is said of the other form in which OpenAssistant's messages are given away."""

NOT_FACTS = frozenset({"message_id", "parent_id", "text", "role", "replies"})


@dataclass(slots=True)
class _Ranked:
    """Ranked siblings, whose conversation is not known before the tree is walked."""

    parent: str
    position: int
    answers: list[Answer]


def read(value, options: Options) -> Item:
    """The conversations and rankings of one tree. Raises Bad where it is none."""
    row = fields.an_object(value)
    if is_flat(row):
        raise Bad(FLAT)
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise Bad("prompt is not an object: it is no message tree")
    mends = Mending(options)
    talks, ranked, entered = _walked(root, mends)
    facts = fields.whole(row, frozenset({"prompt"})) or None
    split = row.get("split")
    for talk in talks:
        talk.facts = facts
        talk.split = fields.short(split) if isinstance(split, str) else ""
    judged = [
        Judged(
            talk=entered[min(one.answers, key=lambda answer: answer.rank).source_id],
            position=one.position,
            answers=one.answers,
            source_id=one.parent,
        )
        for one in ranked
    ]
    return Item(line=0, talks=talks, judged=judged, mended=mends.names)


def is_flat(row: dict) -> bool:
    """Whether the row is a single message."""
    return row.keys() >= {"message_id", "text", "role"} and not isinstance(row.get("prompt"), dict)


def _walked(root: dict, mends: Mending) -> tuple[list[Talk], list[_Ranked], dict[str, int]]:
    """The conversations, the rankings, and the first conversation of every message. Trees are too deep to recurse."""
    first = _turn(root, "prompter", mends)
    if first is None:
        raise Bad("its prompt is deleted or has no text")
    talks: list[Talk] = []
    ranked: list[_Ranked] = []
    entered: dict[str, int] = {}
    path: list[Turn] = []
    total = 0
    waiting = [(root, first, 0)]
    while waiting:
        node, turn, depth = waiting.pop()
        if turn.source_id in entered:
            raise Bad(f"message_id {turn.source_id} is there twice")
        entered[turn.source_id] = len(talks)
        del path[depth:]
        path.append(turn)
        replies = _replies(node, turn, mends)
        if answers := _answers(replies, mends):
            ranked.append(_Ranked(turn.source_id, depth + 1, answers))
        waiting.extend((reply, answer, depth + 1) for reply, answer in reversed(replies))
        if not replies:
            total += len(path)
            if total > TURNS:
                raise Bad(f"its conversations have more than {TURNS:,} turns")
            talks.append(Talk(turns=path.copy(), source_id=turn.source_id))
    return talks, ranked, entered


def _replies(node: dict, turn: Turn, mends: Mending) -> list[tuple[dict, Turn]]:
    replies = node.get("replies")
    if replies is None:
        return []
    if not isinstance(replies, list):
        raise Bad("replies is not a list")
    role = "assistant" if turn.role == "user" else "prompter"
    found = []
    for reply in replies:
        if not isinstance(reply, dict):
            raise Bad("a reply is not an object")
        if reply.get("parent_id", turn.source_id) not in (turn.source_id, None):
            raise Bad("parent_id of a reply is not the id of the message that it answers")
        if (answer := _turn(reply, role, mends)) is not None:
            found.append((reply, answer))
    return found


def _turn(node: dict, role: str, mends: Mending) -> Turn | None:
    """The message of a node; None where it is left out."""
    if node.get("deleted") is True:
        mends.note("dropped_deleted")
        return None
    source_id = node.get("message_id")
    if not isinstance(source_id, str) or not fields.name(source_id):
        raise Bad("a message has no message_id")
    if node.get("role") != role:
        raise Bad(f"a message that should be the {role}'s is not: prompter and assistant take turns in a tree")
    text = fields.text(node, "text", mends)
    if not text:
        mends.note("dropped_empty_turn")
        return None
    return Turn(ROLES[role], text, fields.name(source_id), fields.whole(node, NOT_FACTS) or None)


def _answers(replies: list[tuple[dict, Turn]], mends: Mending) -> list[Answer]:
    """The ranked answers among the replies; none where fewer than two are ranked."""
    ranked = [
        (fields.rank(node["rank"]), turn, node)
        for node, turn in replies
        if turn.role == "assistant" and node.get("rank") is not None
    ]
    if len(ranked) < 2:
        return []
    answers = [Answer(turn.text, rank, turn.source_id, model(node.get("model_name"))) for rank, turn, node in ranked]
    return distinct(answers, mends)
