"""Comparisons: pairs as TRL, LlamaFactory, OpenAI and others take them, and whole orders."""

from annotate.datasets.incoming import chat, fields, hh, instructions, pairs, transcripts
from annotate.datasets.incoming.items import Answer, Bad, Item, Judged, Turn
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.incoming.options import Options
from annotate.datasets.incoming.orders import distinct, model
from annotate.datasets.incoming.turns import mended

SIDES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
"""Where the better and the worse side stand."""

TAKEN = {
    *(key for keys in SIDES for key in keys),
    *("prompt", "messages", "rejected_response", "context", "completions", "answers"),
    *instructions.TAKEN,
}


def read(value, options: Options) -> Item:
    """The comparison of one row, of two answers or of more in an order."""
    row = fields.an_object(value)
    mends = Mending(options)
    if row.get("completions") is not None:
        return _ordered(row, _context(row, mends), _completions(row, mends), mends)
    if row.get("answers") is not None:
        return _ordered(row, _context(row, mends), _answers(row, mends), mends)
    if row.get("rejected_response") is not None:
        whole = chat.with_system(row, chat.turns(row.get("messages"), "messages", mends), mends)
        last = Turn("assistant", fields.text(row, "rejected_response", mends))
        return pairs.compared(row, whole, [*whole[:-1], last], mends, TAKEN)
    keys = next((keys for keys in SIDES if fields.first_key(row, keys)), SIDES[0])
    chosen, rejected = (_side(row, key, mends) for key in keys)
    return pairs.compared(row, chosen, rejected, mends, TAKEN)


def _side(row: dict, key: str, mends: Mending) -> list[Turn]:
    """One side as a whole dialogue, whether the prompt is repeated in it or stands beside it."""
    value, prompt = row.get(key), row.get("prompt")
    if isinstance(value, str):
        if isinstance(prompt, str) and transcripts.is_transcript(prompt) and not transcripts.is_transcript(value):
            turns = transcripts.turns(prompt, mends, is_open=True)
            return [*turns, *transcripts.turns(f"\n\nAssistant:{value}", mends)]
        context = _context(row, mends)
        if not context or transcripts.is_transcript(value):
            return hh.side(row, key, mends)
        return [*context, Turn("assistant", fields.clean(value, mends))]
    turns, context = chat.turns(value, key, mends), _context(row, mends)
    if not turns or turns[0].role == "assistant":
        return [*context, *turns]
    # The side repeats the prompt, as UltraFeedback's do beside a prompt; the system message may stand there only.
    return [*context[:1], *turns] if context and context[0].role == "system" != turns[0].role else turns


def _context(row: dict, mends: Mending) -> list[Turn]:
    """The turns before the answers; none where the sides hold them."""
    given = row.get("input")
    if isinstance(given, dict):
        turns = chat.turns(given.get("messages"), "input.messages", mends)
    elif row.get("instruction") is not None:
        turns = [Turn("user", instructions.question(row, row, mends))]
        return [*instructions.beginning(row, mends), *turns]
    elif isinstance(prompt := row.get("prompt"), str):
        if not transcripts.is_transcript(prompt):
            return [*instructions.beginning(row, mends), Turn("user", fields.clean(prompt, mends))]
        turns = transcripts.turns(prompt, mends, is_open=True)
    else:
        # Of these the prompt tells most: whole messages may repeat the chosen side.
        key = fields.first_key(row, ("prompt", "context", "messages"))
        turns = chat.turns(row[key], key, mends) if key else []
    return chat.with_system(row, turns, mends)


def _completions(row: dict, mends: Mending) -> list[Answer]:
    """The answers of NeMo RL's rank format, and so of our own `ranked`: 0 is best."""
    answers = []
    for one in _objects(row, "completions"):
        said = one.get("completion")
        turns = [Turn("assistant", fields.clean(said, mends))] if isinstance(said, str) else None
        turns = mended([Turn("user", "-"), *(turns or chat.turns(said, "completion", mends))], mends)[1:]
        if len(turns) > 1:
            mends.note("cut_to_first_answer")
        text = turns[0].text if turns else ""
        answers.append(Answer(text, fields.rank(one.get("rank")), model=model(one.get("policy"))))
    return answers


def _answers(row: dict, mends: Mending) -> list[Answer]:
    """The answers of Nectar: 1 is best."""
    return [
        Answer(fields.text(one, "answer", mends), fields.rank(one.get("rank")), model=model(one.get("model")))
        for one in _objects(row, "answers")
    ]


def _objects(row: dict, key: str) -> list[dict]:
    found = row[key]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Bad(f"{key} is not a list of objects")
    return found


def _ordered(row: dict, context: list[Turn], answers: list[Answer], mends: Mending) -> Item:
    before = mended(context, mends)
    if not before or before[-1].role != "user":
        raise Bad("what stands before its answers does not end with a turn of the user")
    given = [answer for answer in answers if answer.text]
    if len(given) < len(answers):
        mends.note("dropped_unanswered")
    ranked = distinct(given, mends)
    if not ranked:
        raise Bad("it has fewer than two different answers")
    best = next(answer for answer in ranked if answer.rank == 0)
    talk = fields.talk(row, [*before, Turn("assistant", best.text)], TAKEN, ids=("ranking_id", "id"))
    judged = Judged(
        0,
        len(before),
        ranked,
        source_id=fields.name(row.get("ranking_id")),
        all_bad=row.get("all_bad") is True,
        uncertain=fields.uncertain(row),
    )
    return Item(line=0, talks=[talk], judged=[judged], mended=mends.names)
