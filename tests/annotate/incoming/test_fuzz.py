"""Whatever a row is: it comes in as dialogue that keeps its rules, or it is a bad line with a reason."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.datasets.incoming import chat, fields, formats, oasst, preference, sharegpt
from annotate.datasets.incoming.formats import FORMATS, Options
from annotate.datasets.incoming.items import Bad, Item
from annotate.errors import Invalid

KEYS = sorted(
    {*preference.TAKEN, *sharegpt.TAKEN, *oasst.NOT_FACTS, *chat.NOT_FACTS, *chat.CALLS, *fields.ID_KEYS}
    | {
        *fields.UNWANTED_KEYS,
        *fields.USE_CASE_KEYS,
        "deleted",
        "labels",
        "rank",
        "ranking_id",
        "split",
        "type",
        "model",
    }
)

SAID = [
    *("user", "assistant", "human", "gpt", "system", "prompter", "tool", "text", "Why?", "So."),
    "\n\nHuman: Why?\n\nAssistant: So.",
    "\n\nHuman: Why?\n\nAssistant:",
    "Q: 1\nA: 2\nQ: 3\nA:",
]

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0, 0.5, 2**62])
    | st.sampled_from(SAID)
    | st.text(max_size=5)
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)


def rarely(usual: st.SearchStrategy, other: st.SearchStrategy) -> st.SearchStrategy:
    """Mostly what is usual, so that enough of what is made comes in."""
    return st.integers(0, 11).flatmap(lambda dice: usual if dice else other)


text = rarely(st.sampled_from(["a", "b", " c ", "d\r\ne", "Q: f\nA:", *SAID[-3:]]), leaves)
nothing = st.just({})
more = rarely(nothing, st.dictionaries(st.sampled_from(KEYS), anything, max_size=2))


def row(extra: st.SearchStrategy = more, **named: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(extra, st.fixed_dictionaries(named)).map(lambda both: both[0] | both[1])


messages = rarely(
    st.lists(row(role=rarely(st.sampled_from(["user", "assistant"]), leaves), content=text), min_size=1, max_size=5),
    anything,
)
turns = rarely(
    st.lists(row(**{"from": rarely(st.sampled_from(["human", "gpt"]), leaves), "value": text}), max_size=5), anything
)
spoken = st.sampled_from(
    ["\n\nHuman: a", "\n\nHuman:", "\n\nAssistant: b", "\n\nAssistant: c", "\nHuman: d", " e", "\n"]
)
transcripts = st.lists(spoken, max_size=4).map(lambda parts: "\n\nHuman: Why?" + "".join(parts))
begun = st.just("\n\nHuman: Why?\n\nAssistant:")
sides = transcripts | rarely(messages, text)
rank = rarely(st.integers(0, 3) | st.sampled_from([1.0, 2.0]), leaves)


def answers(key: str, said: st.SearchStrategy) -> st.SearchStrategy:
    return rarely(st.lists(row(**{"rank": rank, key: said}), min_size=2, max_size=4), anything)


def node(role: str, below: st.SearchStrategy) -> st.SearchStrategy:
    ids = rarely(st.integers(0, 10**9).map(str), st.text("ab", max_size=1))
    return row(
        message_id=ids,
        role=rarely(st.just(role), leaves),
        text=text,
        rank=rank | st.none(),
        replies=rarely(below, anything),
    )


empty: st.SearchStrategy = st.just([])
questions = st.lists(node("prompter", st.lists(node("assistant", empty), max_size=2)), max_size=2)
near = {
    "oasst": row(prompt=node("prompter", st.lists(node("assistant", questions), max_size=4))),
    "hh": row(chosen=rarely(transcripts, sides), rejected=rarely(transcripts, sides)),
    "instructions": row(instruction=text, output=rarely(text | st.lists(text, max_size=3), anything), input=text)
    | row(prompt=text, completion=text)
    | row(instruction=text, instances=st.lists(row(input=text, output=text), max_size=3))
    | row(instruction=text, output=text, history=st.lists(st.lists(text, min_size=2, max_size=2), max_size=2)),
    "sharegpt": row(conversations=turns)
    | row(conversations=turns, chosen=row(**{"from": st.just("gpt"), "value": text}), rejected=anything | turns),
    "messages": row(messages=messages) | row(prompt=messages, completion=messages),
    "preference": row(prompt=text | messages | begun, chosen=text | sides, rejected=text | sides)
    | row(chosen=sides, rejected=sides)
    | row(context=messages, completions=answers("completion", text | messages))
    | row(prompt=text | transcripts, answers=answers("answer", text)),
}


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_row(format, data):
    value = data.draw(near[format] | anything)
    options = Options(few_shot=data.draw(st.sampled_from(["apart", "whole"])))
    ((line, mended),) = formats.read([(3, value)], format=format, options=options)
    ((_, refused),) = formats.read([(3, value)], format=format, options=Options(broken="refuse"))
    assert line == 3
    if isinstance(mended, Bad):
        assert str(mended)
        assert isinstance(refused, Bad)
        return
    keeps_the_rules(mended, ends_with_the_user=format == "oasst")
    # What needs no mending is the same either way; what does is refused.
    assert isinstance(refused, Bad) or set(mended.mended) <= {
        "few_shot_apart",
        "few_shot_whole",
        "dropped_deleted",
        "dropped_nul",
    }


def keeps_the_rules(item: Item, *, ends_with_the_user: bool) -> None:
    assert item.line == 3
    assert item.talks
    for talk in item.talks:
        roles = [turn.role for turn in talk.turns]
        spoken = roles[1:] if roles[0] == "system" else roles
        assert spoken == [("user", "assistant")[place % 2] for place in range(len(spoken))]
        assert spoken
        assert ends_with_the_user or len(spoken) % 2 == 0
        for turn in talk.turns:
            assert turn.text == turn.text.strip() != ""
            kept(turn.text, turn.source_id, turn.facts)
        kept(talk.source_id, talk.facts, talk.split, talk.use_case)
    for judged in item.judged:
        turns = item.talks[judged.talk].turns
        texts = [answer.text for answer in judged.answers]
        assert turns[judged.position].role == "assistant"
        assert turns[judged.position].text in texts
        assert len(set(texts)) == len(texts) >= 2
        assert all(texts)
        ranks = sorted({answer.rank for answer in judged.answers})
        assert ranks == list(range(len(ranks)))
        kept(judged.source_id, *texts, *(answer.model for answer in judged.answers))


def kept(*values) -> None:
    """The database can hold them."""
    written = json.dumps(values, allow_nan=False, ensure_ascii=False)
    written.encode()
    assert "\\u0000" not in written


@given(values=st.lists(anything | near["preference"] | near["messages"], max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_rows_are_recognised_or_refused_in_one_sentence(values):
    said = ""
    try:
        assert formats.recognise(values, "rows.jsonl") in {*FORMATS, "prompts"}
    except Invalid as refusal:
        said = refusal.message
    assert said == "" or (said.startswith("rows.jsonl") and len(said.splitlines()) == 1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("key", ["prompt", "messages", "conversations", "chosen", "instances", "history", "replies"])
def test_depth(format, key):
    value: object = "So."
    for place in range(5000):
        value = [value] if place % 2 else {key: value}
    row = {"prompt": "Why?", "instruction": "Why?", "output": "So.", "chosen": value, "rejected": value} | {key: value}
    ((_, found),) = formats.read([(1, row)], format=format, options=Options())
    assert isinstance(found, Item | Bad)
