"""One small file of each shape is recognised and comes in whole, and is what it says."""

from pathlib import Path

import pytest

from annotate.datasets.incoming import files, formats
from annotate.datasets.incoming.items import Answer, Bad, Item

EXAMPLES = sorted(path.name for path in Path(__file__).with_name("examples").iterdir())


def read(name: str) -> list[Item]:
    format = name.split(".")[0]
    with files.lines_of(Path(__file__).with_name("examples") / name, name=name) as rows:
        assert formats.recognise(rows.first(), name) == format
        items = [item for _, item in formats.read(rows, format=format, options=formats.Options())]
    assert not [item for item in items if isinstance(item, Bad)]
    return items


def said(item: Item) -> list[list[str]]:
    """The conversations of an item as lines of a play."""
    return [[f"{turn.role}: {turn.text}" for turn in talk.turns] for talk in item.talks]


def order(item: Item) -> dict[str, int]:
    """The one ranking of an item. The selected message is one of the answers, and its context ends with the user."""
    (judged,) = item.judged
    turns = item.talks[judged.talk].turns
    assert turns[judged.position].text in {answer.text for answer in judged.answers}
    assert turns[judged.position].role == "assistant"
    assert turns[judged.position - 1].role == "user"
    return {answer.text: answer.rank for answer in judged.answers}


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not name.startswith("prompts.")])
def test_an_example_comes_in_whole(name):
    items = read(name)
    assert [item.line for item in items] == list(range(1, len(items) + 1))
    for item in items:
        assert item.talks
        assert set(item.mended) <= {"few_shot_apart"}


OURS = Path(__file__).parents[1] / "export_examples"


@pytest.mark.parametrize("name", sorted(path.name for path in OURS.iterdir() if path.name != "prompt_only.jsonl"))
def test_what_we_export_comes_in_again(name):
    with files.lines_of(OURS / name, name=name) as rows:
        format = formats.recognise(rows.first(), name)
        items = [item for _, item in formats.read(rows, format=format, options=formats.Options(broken="refuse"))]
    assert items
    assert not [item for item in items if isinstance(item, Bad)]


@pytest.mark.parametrize(
    "path", [Path(__file__).with_name("examples") / "prompts.openings.jsonl", OURS / "prompt_only.jsonl"]
)
def test_openings_are_recognised(path):
    with files.lines_of(path, name=path.name) as rows:
        assert formats.recognise(rows.first(), path.name) == "prompts"


def test_trees():
    ranked, lone = read("oasst.trees.jsonl")
    assert said(ranked) == [
        ["user: How do I boil an egg?", "assistant: Ten minutes in boiling water."],
        [
            "user: How do I boil an egg?",
            "assistant: Seven minutes for a soft yolk, ten for a hard one.",
            "user: And at high altitude?",
            "assistant: Water boils cooler there: add two minutes.",
        ],
        ["user: How do I boil an egg?", "assistant: Use a pan."],
    ]
    (judged,) = ranked.judged
    assert (judged.talk, judged.position, judged.source_id) == (1, 1, "t1")
    assert judged.answers == [
        Answer("Ten minutes in boiling water.", 1, "t1a"),
        Answer("Seven minutes for a soft yolk, ten for a hard one.", 0, "t1b", "little-3b"),
        Answer("Use a pan.", 2, "t1e"),
    ]
    assert [talk.source_id for talk in ranked.talks] == ["t1a", "t1d", "t1e"]
    assert ranked.talks[0].facts == {"message_tree_id": "t1", "tree_state": "ready_for_export"}
    assert ranked.talks[1].turns[1].facts == {
        "lang": "en",
        "deleted": False,
        "rank": 0,
        "synthetic": True,
        "model_name": "little-3b",
        "labels": {"quality": {"value": 0.75, "count": 2}},
    }
    # A shared beginning is one and the same message in every conversation.
    assert {talk.turns[0].source_id for talk in ranked.talks} == {"t1"}
    assert said(lone) == [["user: Wie heißt der höchste Berg?"]]
    assert lone.judged == []


def test_pairs_of_transcripts():
    one, two = read("hh.pairs.jsonl")
    assert said(one) == [["user: How tall is a giraffe?", "assistant: Up to five and a half metres."]]
    assert order(one) == {"Up to five and a half metres.": 0, "Very tall.": 1}
    assert order(two) == {"A pear.": 0, "No.": 1}
    assert two.judged[0].position == 3


def test_alpaca():
    with_input, without = read("instructions.alpaca.jsonl")
    assert said(with_input) == [["user: Translate into French.\n\nGood morning", "assistant: Bonjour"]]
    assert said(without) == [["user: Name a colour.", "assistant: Blue"]]


def test_alpaca_with_a_history():
    (item,) = read("instructions.alpaca_history.jsonl")
    assert said(item) == [
        [
            "system: Be brief.",
            "user: What is the capital of France?",
            "assistant: Paris.",
            "user: And of Italy?",
            "assistant: Rome.",
        ]
    ]


def test_self_instruct():
    (item,) = read("instructions.self_instruct.jsonl")
    assert said(item) == [
        ["user: Give the opposite of the word.\n\nhot", "assistant: cold"],
        ["user: Give the opposite of the word.\n\nup", "assistant: down"],
    ]
    assert [talk.source_id for talk in item.talks] == ["seed_1#0", "seed_1#1"]
    assert item.talks[0].facts == {"name": "antonyms", "is_classification": False}


def test_dolly():
    (item,) = read("instructions.dolly.jsonl")
    text = "The report of 1987 was written by the Brundtland commission."
    assert said(item) == [[f"user: Who wrote the report?\n\n{text}", "assistant: The Brundtland commission."]]
    assert item.talks[0].use_case == "closed_qa"
    assert item.talks[0].facts == {"category": "closed_qa"}


def test_prompt_and_completion():
    plain, few_shot = read("instructions.prompt_completion.jsonl")
    assert said(plain) == [["user: Write a haiku about rain.", "assistant: Rain on the tin roof"]]
    assert plain.mended == []
    assert said(few_shot) == [
        [
            "user: What is two plus two?",
            "assistant: Four.",
            "user: What is three plus three?",
            "assistant: Six.",
        ]
    ]
    assert few_shot.mended == ["few_shot_apart"]


def test_prompt_and_response():
    (item,) = read("instructions.prompt_response.jsonl")
    assert said(item) == [["user: Say hello.", "assistant: Hello!"]]
    assert item.talks[0].facts == {"score": 0.5}


def test_sharegpt():
    one, two = read("sharegpt.conversations.jsonl")
    assert said(one) == [["user: Hi", "assistant: Hello! What can I do?"]]
    assert one.talks[0].source_id == "abc_0"
    assert said(two) == [["system: You are a pirate.", "user: Hi", "assistant: Ahoy!"]]
    (items,) = read("sharegpt.items.jsonl")
    assert said(items) == [["system: Be kind.", "user: I failed.", "assistant: That happens. What was hard?"]]


def test_messages():
    plain, parts = read("messages.openai.jsonl")
    assert said(plain) == [["system: Answer in one word.", "user: Capital of Spain?", "assistant: Madrid"]]
    assert said(parts) == [["system: Be short.", "user: First part.\n\nSecond part.", "assistant: Fine."]]
    assert parts.talks[0].turns[2].facts == {"weight": 0}


def test_lists_as_prompt_and_completion():
    (item,) = read("messages.trl_prompt_completion.jsonl")
    assert said(item) == [["user: What colour is the sky?", "assistant: Blue."]]


@pytest.mark.parametrize(
    ("name", "question", "better", "worse"),
    [
        ("sharegpt.ranking", "What is 7 times 8?", "56", "54"),
        ("preference.trl", "The sky is", "blue.", "green."),
        ("preference.trl_conversational", "What colour is the sky?", "It is blue.", "It is green."),
        ("preference.trl_implicit", "What colour is the sky?", "It is blue.", "It is green."),
        ("preference.repeated_prompt", "What colour is the sky?", "It is blue.", "It is green."),
        ("preference.openai", "Hello, can you tell me how cold it is?", "It is 5 degrees.", "It is not cold."),
        ("preference.llamafactory", "Add the numbers.\n\n2 and 3", "5", "6"),
        ("preference.ms_swift", "Who are you?", "An assistant.", "I do not know."),
        ("preference.axolotl", "Who are you?", "An assistant.", "Nobody."),
    ],
)
def test_pairs(name, question, better, worse):
    (item,) = read(f"{name}.jsonl")
    assert said(item) == [[f"user: {question}", f"assistant: {better}"]]
    assert order(item) == {better: 0, worse: 1}


def test_what_a_pair_says_beside_its_sides():
    (item,) = read("preference.trl.jsonl")
    assert item.talks[0].facts == {"margin": 1.5}
    (item,) = read("preference.trl_conversational.jsonl")
    assert item.talks[0].facts == {"score_chosen": 8.0, "score_rejected": 2.0}


def test_an_order_keeps_its_ties():
    (item,) = read("preference.nemo_rank.jsonl")
    assert said(item) == [["user: Name a planet.", "assistant: Mars."]]
    assert order(item) == {"Pluto.": 1, "Mars.": 0, "The Moon.": 1}


def test_an_order_from_1():
    (item,) = read("preference.nectar.jsonl")
    assert said(item) == [["user: Name a planet.", "assistant: Mars."]]
    assert order(item) == {"Mars.": 0, "Venus?": 1, "Pluto.": 2}
    assert [answer.model for answer in item.judged[0].answers] == ["gpt-4", "tiny", "mid"]
    assert item.talks[0].facts == {"turns": 1, "num_responses": 3, "good_natured": True}
