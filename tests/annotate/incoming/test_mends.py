"""What each format mends, under which name, and that the same is a bad line where broken dialogue is refused."""

import pytest

from annotate.datasets.incoming.formats import FORMATS, Options
from annotate.datasets.incoming.items import Bad
from annotate.datasets.incoming.mends import FAULTS, MENDS
from tests.annotate.incoming.test_examples import order, said


def u(text) -> dict:
    return {"role": "user", "content": text}


def a(text) -> dict:
    return {"role": "assistant", "content": text}


def node(id: str, text: str, *replies: dict, role: str = "assistant", **more) -> dict:
    return {"message_id": id, "text": text, "role": role, "replies": list(replies), **more}


def tree(*replies: dict) -> dict:
    return {"prompt": node("root", "Why?", *replies, role="prompter")}


PLAYS = [
    (
        "joined_turns",
        "messages",
        {"messages": [u("One."), u("Two."), a("Yes.")]},
        ["user: One.\n\nTwo.", "assistant: Yes."],
    ),
    (
        "joined_turns",
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Go."}, *[{"from": "gpt", "value": part} for part in "ab"]]},
        ["user: Go.", "assistant: a\n\nb"],
    ),
    (
        "dropped_empty_turn",
        "messages",
        {"messages": [a("  \u200b"), u("One."), a("Yes.")]},
        ["user: One.", "assistant: Yes."],
    ),
    (
        "dropped_empty_turn",
        "messages",
        {"messages": [u("One."), a(None), a("Yes.")]},
        ["user: One.", "assistant: Yes."],
    ),
    (
        "dropped_empty_turn",
        "oasst",
        tree(node("x", " ", node("y", "Lost.", role="prompter")), node("z", "So.")),
        ["user: Why?", "assistant: So."],
    ),
    (
        "dropped_deleted",
        "oasst",
        tree(node("x", "Gone.", node("y", "Gone too.", role="prompter"), deleted=True)),
        ["user: Why?"],
    ),
    (
        "dropped_leading_answer",
        "messages",
        {"messages": [a("Hi!"), u("One."), a("Yes.")]},
        ["user: One.", "assistant: Yes."],
    ),
    (
        "dropped_last_user_turn",
        "messages",
        {"messages": [u("One."), a("Yes."), u("Bye.")]},
        ["user: One.", "assistant: Yes."],
    ),
    (
        "dropped_unanswered",
        "instructions",
        {"instruction": "Go.", "instances": [{"input": "a", "output": ""}, {"input": "b", "output": "B"}]},
        ["user: Go.\n\nb", "assistant: B"],
    ),
    (
        "dropped_duplicate_answer",
        "instructions",
        {"instruction": "Go.", "output": ["Gone.", " Gone. "]},
        ["user: Go.", "assistant: Gone."],
    ),
    ("dropped_nul", "messages", {"messages": [u("O\0ne."), a("Yes.")]}, ["user: One.", "assistant: Yes."]),
    (
        "few_shot_apart",
        "instructions",
        {"prompt": "Add.\n\nQ: 1+1\nA: 2\n\nQ: 2+2\nA:", "completion": " 4"},
        ["user: Add.\n\n1+1", "assistant: 2", "user: 2+2", "assistant: 4"],
    ),
    (
        "few_shot_whole",
        "instructions",
        {"prompt": "Q: 1+1\nA: 2\n\nQ: 2+2", "completion": " 4"},
        ["user: Q: 1+1\nA: 2\n\nQ: 2+2", "assistant: 4"],
    ),
]


@pytest.mark.parametrize(("mend", "format", "value", "play"), PLAYS)
def test_a_mend(mend, format, value, play):
    item = FORMATS[format].read(value, Options())
    assert item.mended == [mend]
    assert said(item) == [play]


@pytest.mark.parametrize(("mend", "format", "value", "play"), PLAYS)
def test_the_same_where_broken_dialogue_is_refused(mend, format, value, play):
    if mend in FAULTS:
        with pytest.raises(Bad, match=f"^{FAULTS[mend]}$"):
            FORMATS[format].read(value, Options(broken="refuse"))
    else:
        assert FORMATS[format].read(value, Options(broken="refuse")).mended == [mend]


BEGUN = "\n\nHuman: Why?\n\nAssistant:"

PAIRS = [
    ("joined_turns", "hh", {"chosen": f"{BEGUN} So.\n\nAssistant: Yes.", "rejected": f"{BEGUN} No."}, "So.\n\nYes."),
    ("joined_turns", "hh", {"chosen": f"\n\nHuman: Well{BEGUN} So.", "rejected": f"\n\nHuman: Well{BEGUN} No."}, "So."),
    (
        "dropped_empty_turn",
        "hh",
        {"chosen": f"\n\nHuman:{BEGUN}\n\nAssistant: So.", "rejected": f"\n\nHuman: {BEGUN} No."},
        "So.",
    ),
    (
        "parted_turn",
        "hh",
        {
            "chosen": f"{BEGUN} Hm\nHuman: What?\n\nAssistant: So.",
            "rejected": f"{BEGUN} Hm\nHuman: What?\n\nAssistant: No.",
        },
        "So.",
    ),
    ("cut_to_first_answer", "hh", {"chosen": f"{BEGUN} So.\n\nHuman: Ah.", "rejected": f"{BEGUN} No."}, "So."),
    (
        "cut_to_first_answer",
        "hh",
        {"chosen": f"{BEGUN} So.{BEGUN} So!", "rejected": f"{BEGUN} No.{BEGUN} Hm."},
        "So.",
    ),
    (
        "cut_to_first_answer",
        "preference",
        {"prompt": [u("Why?")], "chosen": [a("So."), u("Ah."), a("Yes.")], "rejected": [a("No.")]},
        "So.",
    ),
    ("dropped_leading_answer", "hh", {"chosen": f"\n\nAssistant: Hi.{BEGUN} So.", "rejected": f"{BEGUN} No."}, "So."),
]


@pytest.mark.parametrize(("mend", "format", "value", "better"), PAIRS)
def test_a_mended_pair(mend, format, value, better):
    item = FORMATS[format].read(value, Options())
    assert item.mended == [mend]
    assert order(item) == {better: 0, "No.": 1}
    assert item.judged[0].position == len(item.talks[0].turns) - 1
    with pytest.raises(Bad, match=f"^{FAULTS[mend]}$"):
        FORMATS[format].read(value, Options(broken="refuse"))


RANKED = [
    (
        "dropped_duplicate_answer",
        "oasst",
        tree(node("x", "So.", rank=2), node("y", "No.", rank=1), node("z", "So.", rank=0), node("v", "Hm.", rank=7)),
        {"So.": 0, "No.": 1, "Hm.": 2},
    ),
    (
        "dropped_unanswered",
        "preference",
        {
            "prompt": "Why?",
            "answers": [{"answer": text, "rank": rank} for text, rank in (("", 1), ("No.", 3), ("So.", 2))],
        },
        {"No.": 1, "So.": 0},
    ),
    (
        "cut_to_first_answer",
        "preference",
        {
            "context": [u("Why?")],
            "completions": [
                {"rank": 0, "completion": [a("So."), u("Ah.")]},
                {"rank": 1, "completion": "No."},
            ],
        },
        {"So.": 0, "No.": 1},
    ),
]


@pytest.mark.parametrize(("mend", "format", "value", "ranks"), RANKED)
def test_a_mended_order(mend, format, value, ranks):
    item = FORMATS[format].read(value, Options())
    assert item.mended == [mend]
    assert order(item) == ranks
    with pytest.raises(Bad, match=f"^{FAULTS[mend]}$"):
        FORMATS[format].read(value, Options(broken="refuse"))


def test_every_mend_is_shown_here():
    assert {case[0] for case in [*PLAYS, *PAIRS, *RANKED]} == set(MENDS)
    assert set(FAULTS) <= set(MENDS)


def test_a_mend_that_is_made_twice_is_named_once():
    item = FORMATS["messages"].read({"messages": [u("1"), u("2"), a("3"), a("4"), u("5")]}, Options())
    assert item.mended == ["joined_turns", "dropped_last_user_turn"]


def test_an_empty_system_message_is_no_fault():
    value = {"messages": [{"role": "system", "content": ""}, u("Why?"), a("So.")]}
    item = FORMATS["messages"].read(value, Options(broken="refuse"))
    assert said(item) == [["user: Why?", "assistant: So."]]
    assert item.mended == []


def test_a_system_message_stands_before_a_transcript():
    sides = {"chosen": f"Be brief.{BEGUN} So.", "rejected": f"Be brief.{BEGUN} No."}
    assert said(FORMATS["hh"].read(sides, Options())) == [["system: Be brief.", "user: Why?", "assistant: So."]]
