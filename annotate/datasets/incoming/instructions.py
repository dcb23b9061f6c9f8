"""Instructions with answers, as dialogue: what Alpaca, Self-Instruct, Dolly and InstructGPT give away."""

from annotate.datasets.incoming import few_shot, fields
from annotate.datasets.incoming.items import Bad, Item, Turn
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.incoming.options import Options
from annotate.datasets.incoming.turns import answered

ASKS = ("instruction", "prompt")
INPUTS = ("input", "context")
NO_INPUT = ("<noinput>", "<no input>")
"""What models write for an input that is not there, as Self-Instruct's prompt asked them to."""
OUTPUTS = ("output", "response", "completion")
SYSTEMS = ("system", "system_prompt")
TAKEN = {*ASKS, *INPUTS, *OUTPUTS, *SYSTEMS, "instances", "history"}


def read(value, options: Options) -> Item:
    """One conversation for each answer of the row. Raises Bad where it has none."""
    row = fields.an_object(value)
    fields.wanted(row)
    mends = Mending(options)
    pairs = [
        (asked, answer)
        for holder in _holders(row)
        for asked in [question(row, holder, mends)]
        for answer in _answers(holder, mends)
    ]
    complete = [(asked, answer) for asked, answer in pairs if answer]
    if not complete:
        raise Bad("it has no answer")
    if len(complete) < len(pairs):
        mends.note("dropped_unanswered")
    once = list(dict.fromkeys(complete))
    if len(once) < len(complete):
        mends.note("dropped_duplicate_answer")
    before = beginning(row, mends)
    talks = [
        fields.talk(
            row,
            answered(
                [*before, *asking(asked, options, mends, alone=not row.get("history")), Turn("assistant", answer)],
                mends,
            ),
            TAKEN,
            suffix=f"#{number}" if len(once) > 1 else "",
        )
        for number, (asked, answer) in enumerate(once)
    ]
    return Item(line=0, talks=talks, mended=mends.names)


def question(row: dict, holder: dict, mends: Mending) -> str:
    """What the user says: the instruction and, after a blank line, as a person would type it, the input."""
    asked = fields.first_text(row, ASKS, mends)
    if not asked:
        key = fields.first_key(row, ASKS)
        raise Bad(f"{key} is empty" if key else f"it has none of the fields {', '.join(ASKS)}")
    given = fields.first_text(holder, INPUTS, mends)
    if given.lower() in NO_INPUT:
        given = ""
    return f"{asked}\n\n{given}" if given else asked


def beginning(row: dict, mends: Mending) -> list[Turn]:
    """The row's own system message and the turns that came before, in `history`."""
    system = fields.first_text(row, SYSTEMS, mends)
    turns = [Turn("system", system)] if system else []
    history = row.get("history")
    if history is None:
        return turns
    if not isinstance(history, list):
        raise Bad("history is not a list")
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
            raise Bad("history is not a list of pairs, what the user said and the answer")
        turns += [Turn("user", fields.clean(pair[0], mends)), Turn("assistant", fields.clean(pair[1], mends))]
    return turns


def asking(asked: str, options: Options, mends: Mending, *, alone: bool) -> list[Turn]:
    """The user's words as turns: several where they hold examples with answers of their own and are the first."""
    if not few_shot.found(asked):
        return [Turn("user", asked)]
    parted = few_shot.apart(asked) if alone and options.few_shot == "apart" else None
    if parted is None:
        mends.note("few_shot_whole")
        return [Turn("user", asked)]
    mends.note("few_shot_apart")
    return [Turn(role, text) for role, text in parted]


def _holders(row: dict) -> list[dict]:
    """What holds input and output: the row, or in Self-Instruct's shape each of its instances."""
    holders = row.get("instances")
    if holders is None:
        return [row]
    if not isinstance(holders, list) or not holders or not all(isinstance(one, dict) for one in holders):
        raise Bad("instances is not a list of objects")
    return holders


def _answers(holder: dict, mends: Mending) -> list[str]:
    key = fields.first_key(holder, OUTPUTS)
    if key is None:
        return [""]
    if not isinstance(holder[key], list):
        return [fields.text(holder, key, mends)]
    if not all(isinstance(one, str | None) for one in holder[key]):
        raise Bad(f"{key} is not a text or a list of texts")
    return [fields.clean(one or "", mends) for one in holder[key]]
