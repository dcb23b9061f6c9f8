"""Message trees beyond the everyday: deep, wide, ranked in part, and back to the tree that they came from."""

import json

import pytest

from annotate.datasets.incoming import oasst
from annotate.datasets.incoming.formats import Options
from annotate.datasets.incoming.items import Bad, Item
from tests.annotate.incoming.test_examples import order, said
from tests.annotate.incoming.test_mends import node, tree
from tests.annotate.incoming.test_real_files import real


def chain(length: int, *last: dict) -> dict:
    """A tree of one branch, so many messages long, and at its end more."""
    replies = list(last)
    for place in reversed(range(length)):
        role = "prompter" if place % 2 == 0 else "assistant"
        replies = [node(f"m{place}", f"Text {place}.", *replies, role=role)]
    return {"prompt": replies[0]}


def rebuilt(item: Item) -> dict:
    """The tree that the conversations and their facts hold."""
    back = {"user": "prompter", "assistant": "assistant"}
    nodes, root = {}, None
    for talk in item.talks:
        above = None
        for turn in talk.turns:
            if turn.source_id not in nodes:
                made = {"message_id": turn.source_id, "text": turn.text, "role": back[turn.role], **(turn.facts or {})}
                nodes[turn.source_id] = made | {"replies": []}
                if above is None:
                    root = nodes[turn.source_id]
                else:
                    nodes[turn.source_id]["parent_id"] = above
                    nodes[above]["replies"].append(nodes[turn.source_id])
            above = turn.source_id
    return (item.talks[0].facts or {}) | {"prompt": root}


def test_real_trees_come_back_whole():
    for line in real("oasst_trees_en.jsonl").read_text().splitlines():
        given = json.loads(line)
        waiting = [given["prompt"]]
        while waiting:
            one = waiting.pop()
            one["text"] = one["text"].replace("\r\n", "\n").strip()
            waiting += one["replies"]
        assert rebuilt(oasst.read(json.loads(line), Options())) == given


def test_a_deep_tree():
    item = oasst.read(chain(10_000), Options())
    assert [len(talk.turns) for talk in item.talks] == [10_000]
    assert item.talks[0].source_id == "m9999"


def test_a_tree_whose_conversations_are_too_much():
    leaves = [node(f"leaf{place}", f"Leaf {place}.") for place in range(400)]
    with pytest.raises(Bad, match=r"^its conversations have more than 200,000 turns$"):
        oasst.read(chain(1001, *leaves), Options())
    assert len(oasst.read(chain(101, *leaves), Options()).talks) == 400


def test_siblings_without_a_rank_are_no_part_of_the_order():
    item = oasst.read(tree(node("x", "So.", rank=4), node("y", "Hm."), node("z", "No.", rank=9)), Options())
    assert order(item) == {"So.": 0, "No.": 1}
    assert len(item.talks) == 3


@pytest.mark.parametrize(
    "replies",
    [
        [],
        [node("x", "So.", rank=0)],
        [node("x", "So.", rank=0), node("y", "No.")],
        [node("x", "So."), node("y", "No.")],
    ],
)
def test_fewer_than_two_ranks_are_no_order(replies):
    assert oasst.read(tree(*replies), Options()).judged == []


def test_ranks_of_the_prompter_are_no_order():
    questions = [node(name, name, role="prompter", rank=place) for place, name in enumerate("ab")]
    item = oasst.read(tree(node("x", "So.", *questions)), Options())
    assert item.judged == []
    assert said(item) == [["user: Why?", "assistant: So.", "user: a"], ["user: Why?", "assistant: So.", "user: b"]]


def test_tied_siblings():
    item = oasst.read(tree(node("x", "So.", rank=1), node("y", "No.", rank=1), node("z", "Ah.", rank=0)), Options())
    assert order(item) == {"So.": 1, "No.": 1, "Ah.": 0}
    assert (item.judged[0].talk, item.judged[0].position) == (2, 1)


def test_the_best_answer_has_conversations_of_its_own():
    questions = [node(name, name, role="prompter") for name in "ab"]
    item = oasst.read(tree(node("x", "No.", rank=1), node("y", "So.", *questions, rank=0)), Options())
    assert (item.judged[0].talk, item.judged[0].position) == (1, 1)
    assert len(item.talks) == 3


def test_deleted_siblings_are_not_ranked():
    item = oasst.read(
        tree(node("x", "So.", rank=0, deleted=True), node("y", "No.", rank=1), node("z", "Ah.", rank=2)), Options()
    )
    assert order(item) == {"No.": 0, "Ah.": 1}
    assert item.mended == ["dropped_deleted"]


def test_nul_in_what_is_kept_beside_a_message():
    item = oasst.read(tree(node("x", "So.", labels={"a\0": ["\0b", {"c": 1}]}, lang="e\0n")), Options())
    assert item.talks[0].turns[1].facts == {"labels": {"a": ["b", {"c": 1}]}, "lang": "en"}


def test_a_file_of_its_own_split():
    item = oasst.read(tree() | {"split": "val", "origin": {"from": "here"}}, Options())
    assert (item.talks[0].split, item.talks[0].facts) == ("val", {"split": "val", "origin": {"from": "here"}})
