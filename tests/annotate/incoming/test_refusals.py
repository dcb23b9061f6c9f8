"""What is a bad line in each format, with the reason."""

import re

import pytest

from annotate.datasets.incoming import formats
from annotate.datasets.incoming.formats import FORMATS, Options
from annotate.datasets.incoming.items import Bad
from annotate.errors import Invalid
from tests.annotate.incoming.test_mends import BEGUN, a, node, tree, u

CHAT = [u("Why?"), a("So.")]


def speaks(*names: str) -> list[dict]:
    return [{"from": name, "value": f"{name}."} for name in names]


def nested(depth: int) -> list:
    found = []
    for _ in range(depth - 1):
        found = [found]
    return found


def judged(*answers) -> dict:
    return {"prompt": "Why?", "answers": [{"answer": text, "rank": rank} for text, rank in answers]}


REFUSALS = [
    # Trees.
    ("oasst", {"prompt": "Why?"}, "prompt is not an object: it is no message tree"),
    (
        "oasst",
        {"message_id": "x", "role": "prompter", "text": "Why?", "parent_id": None},
        "it is one message of a flat file",
    ),
    ("oasst", {"prompt": node("", "Why?", role="prompter")}, "a message has no message_id"),
    ("oasst", {"prompt": node(7, "Why?", role="prompter")}, "a message has no message_id"),
    ("oasst", {"prompt": node("x" * 201, "Why?", role="prompter")}, "an id has more than 200 characters"),
    ("oasst", tree(node("root", "So.")), "message_id root is there twice"),
    (
        "oasst",
        tree(node("x", "So.", parent_id="other")),
        "parent_id of a reply is not the id of the message that it answers",
    ),
    ("oasst", tree(node("x", "Why not?", role="prompter")), "a message that should be the assistant's is not"),
    ("oasst", {"prompt": node("x", "So.")}, "a message that should be the prompter's is not"),
    ("oasst", {"prompt": node("x", "Why?", role="prompter", deleted=True)}, "its prompt is deleted or has no text"),
    ("oasst", {"prompt": node("x", " ", role="prompter")}, "its prompt is deleted or has no text"),
    ("oasst", {"prompt": node("x", None, role="prompter")}, "its prompt is deleted or has no text"),
    ("oasst", {"prompt": node("x", ["Why?"], role="prompter")}, "text is not a text"),
    ("oasst", {"prompt": {**node("x", "Why?", role="prompter"), "replies": {}}}, "replies is not a list"),
    ("oasst", tree("So."), "a reply is not an object"),
    ("oasst", tree(node("x", "So.", rank="0"), node("y", "No.", rank=1)), "a rank is not a whole number"),
    ("oasst", tree(node("x", "So.", rank=True), node("y", "No.", rank=1)), "a rank is not a whole number"),
    ("oasst", tree(node("x", "So.", labels=nested(60))), "labels is nested more than 50 deep"),
    # Transcripts.
    ("hh", {"chosen": f"{BEGUN} So."}, "rejected is missing"),
    ("hh", {"chosen": f"{BEGUN} So.", "rejected": 7}, "rejected is not a text"),
    ("hh", {"chosen": f"{BEGUN} So.", "rejected": "No."}, "rejected is no transcript"),
    ("hh", {"chosen": f"{BEGUN} So.", "rejected": f"{BEGUN}  So."}, "both sides are the same"),
    ("hh", {"chosen": f"{BEGUN} So.", "rejected": f"{BEGUN} So.{BEGUN} No."}, "both sides are the same"),
    (
        "hh",
        {"chosen": f"{BEGUN} So.", "rejected": "\n\nHuman: How?\n\nAssistant: So."},
        "its two sides do not begin with",
    ),
    ("hh", {"chosen": f"{BEGUN} So.\n\nHuman: Ah.", "rejected": f"{BEGUN} So.{BEGUN} No."}, "both sides are the same"),
    ("hh", {"chosen": f"{BEGUN} So.", "rejected": BEGUN}, "its rejected side has no answer"),
    ("hh", {"chosen": "\n\nHuman: Why?", "rejected": f"{BEGUN} No."}, "its chosen side has no answer"),
    # Instructions.
    ("instructions", {"output": "So."}, "it has none of the fields instruction, prompt"),
    ("instructions", {"instruction": "", "output": "So."}, "instruction is empty"),
    ("instructions", {"instruction": ["Why?"], "output": "So."}, "instruction is not a text"),
    ("instructions", {"instruction": "Why?"}, "it has no answer"),
    ("instructions", {"instruction": "Why?", "output": None}, "it has no answer"),
    ("instructions", {"instruction": "Why?", "output": " \u200b"}, "it has no answer"),
    ("instructions", {"instruction": "Why?", "output": []}, "it has no answer"),
    ("instructions", {"instruction": "Why?", "output": 42}, "output is not a text"),
    ("instructions", {"instruction": "Why?", "output": [42]}, "output is not a text or a list of texts"),
    ("instructions", {"instruction": "Why?", "input": {}, "output": "So."}, "input is not a text"),
    ("instructions", {"instruction": "Why?", "instances": []}, "instances is not a list of objects"),
    ("instructions", {"instruction": "Why?", "instances": ["So."]}, "instances is not a list of objects"),
    ("instructions", {"instruction": "Why?", "output": "So.", "history": "Hi"}, "history is not a list"),
    ("instructions", {"instruction": "Why?", "output": "So.", "history": [["Hi"]]}, "history is not a list of pairs"),
    (
        "instructions",
        {"prompt": "Why?", "completion": "No.", "label": False},
        "label says that its answer is a bad one",
    ),
    # Conversations.
    ("sharegpt", {"conversations": None}, "conversations is missing"),
    ("sharegpt", {"conversations": "Hi"}, "conversations is not a list of messages"),
    ("sharegpt", {"conversations": ["Hi"]}, "conversations holds what is no message"),
    ("sharegpt", {"conversations": [{"value": "Hi"}]}, "a message in conversations has no role"),
    (
        "sharegpt",
        {"conversations": speaks("human", "narrator")},
        "a message in conversations is of the unknown role 'narrator'",
    ),
    ("sharegpt", {"conversations": speaks("human", "function_call", "observation", "gpt")}, "it uses a tool"),
    ("sharegpt", {"conversations": speaks("human", "gpt", "system")}, "a system message stands between its turns"),
    ("sharegpt", {"conversations": speaks("human")}, "it has no answer"),
    ("sharegpt", {"conversations": []}, "it has no answer"),
    (
        "sharegpt",
        {"conversations": speaks("human", "gpt"), "kto_tag": False},
        "kto_tag says that its answer is a bad one",
    ),
    ("sharegpt", {"conversations": speaks("human"), "chosen": {"from": "gpt", "value": "So."}}, "rejected is missing"),
    ("messages", {"messages": [u("Why?"), {"role": "assistant", "tool_calls": [{"id": 1}]}]}, "it uses a tool"),
    ("messages", {"messages": [u("Why?"), {"role": "tool", "content": "7"}, a("7")]}, "it uses a tool"),
    (
        "messages",
        {"messages": [u([{"type": "image_url", "image_url": {}}]), a("A cat.")]},
        "a message in messages holds something beside text",
    ),
    ("messages", {"messages": [u(7), a("So.")]}, "the content of a message in messages is not a text"),
    ("messages", {"prompt": "Why?", "completion": [a("So.")]}, "prompt is not a list of messages"),
    ("messages", {"messages": CHAT, "id": "x" * 201}, "an id has more than 200 characters"),
    # Comparisons.
    ("preference", {"chosen": "So.", "rejected": "No."}, "chosen is no transcript"),
    ("preference", {"prompt": "Why?", "chosen": "So."}, "rejected is missing"),
    ("preference", {"prompt": "Why?", "chosen": "So.", "rejected": " So."}, "both sides are the same"),
    ("preference", {"prompt": "Why?", "chosen": "So.", "rejected": ""}, "its rejected side has no answer"),
    ("preference", {"prompt": "", "chosen": "So.", "rejected": "No."}, "its two sides do not begin with"),
    ("preference", {"prompt": "Why?", "chosen": 7, "rejected": 8}, "chosen is not a list of messages"),
    ("preference", {"chosen": [a("So.")], "rejected": [a("No.")]}, "its two sides do not begin with"),
    ("preference", judged(("So.", 1)), "it has fewer than two different answers"),
    ("preference", judged(("So.", 1), ("So. ", 2)), "it has fewer than two different answers"),
    ("preference", judged(("So.", 1.5), ("No.", 2)), "a rank is not a whole number"),
    ("preference", judged(("So.", None), ("No.", 2)), "a rank is not a whole number"),
    ("preference", {"prompt": "Why?", "answers": "So."}, "answers is not a list of objects"),
    (
        "preference",
        {"context": CHAT, "completions": []},
        "what stands before its answers does not end with a turn of the user",
    ),
    ("preference", {"context": [u("Why?")], "completions": [{"rank": 0}]}, "completion is missing"),
    # Pictures and sounds beside the words.
    ("sharegpt", {"conversations": speaks("human", "gpt"), "image": "cat.jpg"}, "it comes with a picture"),
    ("messages", {"messages": CHAT, "images": [{"bytes": None, "path": "cat.jpg"}]}, "it comes with a picture"),
    (
        "preference",
        {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "audios": ["a.wav"]},
        "it comes with a picture",
    ),
    ("instructions", {"instruction": "Why?", "output": "So.", "video": "a.mp4"}, "it comes with a picture"),
]


@pytest.mark.parametrize(("format", "value", "reason"), REFUSALS)
def test_a_bad_line(format, value, reason):
    ((line, bad),) = formats.read([(7, value)], format=format, options=Options())
    assert line == 7
    assert isinstance(bad, Bad)
    assert str(bad).startswith(reason)
    assert "\n" not in str(bad)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [None, True, 7, 0.5, "Why?", [], [{}]])
def test_what_is_no_object(format, value):
    ((_, bad),) = formats.read([(1, value)], format=format, options=Options())
    assert str(bad) == "it is not an object"


def test_bad_lines_stop_nothing():
    rows = [(1, {"messages": CHAT}), (2, Bad("it is not UTF-8 (byte 8)")), (4, {}), (5, {"messages": CHAT})]
    found = list(formats.read(rows, format="messages", options=Options()))
    assert [(line, isinstance(item, Bad)) for line, item in found] == [(1, False), (2, True), (4, True), (5, False)]
    assert str(found[1][1]) == "it is not UTF-8 (byte 8)"
    assert found[3][1].line == 5


def test_a_format_that_there_is_not():
    with pytest.raises(Invalid, match=r"^There is no format csv\. Formats: oasst, hh, instructions, sharegpt,"):
        formats.read([], format="csv", options=Options())


# --- Recognising -----------------------------------------------------------------------------------------------------


def test_the_format_of_most_rows_counts():
    rows = [{"messages": CHAT}] * 3 + [{"prompt": "Why?"}] * 2 + [{"x": 1}, 7]
    assert formats.recognise(rows, "rows.jsonl") == "messages"


@pytest.mark.parametrize(
    ("value", "format"),
    [
        ("Why?", "prompts"),
        ({"text": "Why?"}, "prompts"),
        ({"instruction": "Why?", "input": ""}, "prompts"),
        ({"instruction": "Why?", "output": None}, "prompts"),
        ({"instruction": "Why?", "output": ""}, "instructions"),
        ({"prompt": "Why?", "completion": "So.", "messages": None}, "instructions"),
        ({"prompt": "Why?", "messages": CHAT}, "messages"),
        ({"chosen": f"{BEGUN} So.", "rejected": f"{BEGUN} No.", "prompt": BEGUN}, "preference"),
        ({"chosen": f"{BEGUN} So.", "rejected": f"{BEGUN} No."}, "hh"),
        ({"conversation_id": "x", "model": "m", "conversation": CHAT, "language": "English"}, "sharegpt"),
        ({"prompt": "Why?", "answer_html": "", "response_tokens": 7}, "prompts"),
    ],
)
def test_one_row_is_recognised(value, format):
    assert formats.recognise([value], "rows.jsonl") == format


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "rows.jsonl is in none of the formats oasst, hh, instructions, sharegpt, messages, preference, prompts: "
             "nothing in it could be read as JSON."),
        ([7, None], "its rows are no objects."),
        ([{"question": "Why?", "answer": "So."}], "its fields are question, answer."),
        ([{"prompt": "Why?", "response_0": "So.", "response_1": "No.", "better_response_id": 0}],
         "its fields are prompt, response_0, response_1, better_response_id. "
         "The format prompts takes the openings alone."),
        ([{"instruction": "Why?", "completions": [{"model": "m", "response": "So.", "overall_score": 7.0}]}],
         "its fields are instruction, completions. The format prompts takes the openings alone."),
        ([{f"f{n}": n} for n in range(20)], "f10, f11 and 8 more."),
        ([{"version": 1, "data": [{"prompt": "Why?"}]}],
         "it is one object; if the rows are in its list 'data', give a file of that list alone."),
        ([{"messages": CHAT}, {"prompt": "Why?"}],
         "rows.jsonl may be messages or prompts: as many of its rows are. Name the format."),
        ([{"message_id": "x", "parent_id": None, "role": "prompter", "text": "Why?"}],
         "bring in the file of trees (its name has `trees` in it)."),
    ],
)  # fmt: skip
def test_a_file_that_is_not_recognised(values, said):
    with pytest.raises(Invalid, match=re.escape(said) + "$"):
        formats.recognise(values, "rows.jsonl")


@pytest.mark.parametrize("given", ["<noinput>", " <NoInput> ", "<no input>", "", None])
def test_an_input_that_is_none(given):
    row = {"instruction": "Why?", "input": given, "output": "So.", "images": []}
    ((_, item),) = formats.read([(1, row)], format="instructions", options=Options())
    assert [turn.text for turn in item.talks[0].turns] == ["Why?", "So."]
