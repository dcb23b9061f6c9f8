"""`check_export` of every format: its documented example is well, and each thing that can be wrong with it is named."""

import hashlib
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from annotate.datasets import manifest, schemas, shapes
from annotate.datasets.check import check

EXAMPLES = Path(__file__).resolve().parents[1] / "annotate" / "export_examples"

WHAT = {format: what for what, formats in reversed(shapes.FORMATS.items()) for format in formats}


def example(format: str) -> dict:
    return json.loads((EXAMPLES / f"{format}.jsonl").read_text())


def folder_of(folder: Path, format: str, *lines: dict, what: str = "", **filters) -> Path:
    """An exported folder of these lines that is as it should be but for them."""
    what = what or WHAT[format]
    described = {
        "schema_version": manifest.SCHEMA_VERSION,
        "what": what,
        "format": format,
        "rank_order": "0=best",
        "filters": filters,
        "counts": {"rows": len(lines), "by_split": {"train": {"rows": len(lines)}}},
        "files_kind": "jsonl",
        "files": {},
    }
    folder.mkdir(exist_ok=True)
    data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    schema = schemas.json_schema(title="", shape=shapes.of_manifest(described))
    for name, content in (("train.jsonl", data), (manifest.SCHEMA, schema)):
        (folder / name).write_bytes(content)
        described["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    described["files"]["train.jsonl"]["rows"] = len(lines)
    described["digest"] = manifest.digest_of(described["files"])
    (folder / "manifest.json").write_text(json.dumps(described))
    return folder


def problems(folder: Path) -> list[str]:
    """What is wrong with lines, without what the manifest counts."""
    return [problem for problem in check(folder).problems if not problem.startswith("manifest.json: counts.")]


def chosen(line: dict, **changes) -> None:
    line["chosen"].update(changes)


def first(line: dict) -> dict:
    return line["prompt"]["replies"][0]


WRONG: list[tuple[str, Callable[[dict], object], str]] = [
    ("unpaired", lambda line: line.update(label=1), "label is no bool"),
    ("unpaired", lambda line: line.update(rank=1), "is labelled as good and is not of the best rank"),
    ("unpaired", lambda line: line.update(rank=-1), "a rank is below 0"),
    ("unpaired", lambda line: line["completion"][0].update(content=" "), "completion is empty"),
    ("unpaired", lambda line: line["prompt"].pop(), "the context does not end with a message of the user"),
    ("unpaired", lambda line: line.update(margin=1.0), "margin is no field of this format"),
    ("prompt_only", lambda line: line.update(prompt=[]), "the context does not end with a message of the user"),
    ("prompt_only", lambda line: line.update(group_id=None), "has no group_id"),
    ("nemo_rl", lambda line: line["completions"].pop(1), "ranks are not dense from 0, the best: 1, 2"),
    ("nemo_rl", lambda line: line["completions"].clear(), "fewer than two completions are no order"),
    ("nemo_rl", lambda line: line["completions"][0].update(completion=[]), "completions[0] is not one message of the"),
    (
        "nemo_rl",
        lambda line: line["completions"].append(line["completions"][0]),
        "two completions are the same",
    ),
    ("hh", lambda line: line.update(rejected=line["chosen"]), "chosen and rejected are the same"),
    ("hh", lambda line: line.update(chosen="Hello"), "a transcript does not begin with the mark of a speaker"),
    ("hh", lambda line: line.update(rejected="\n\nHuman: Hi\n\nAssistant: No"), "do not begin with the same turns"),
    ("hh", lambda line: line.update(rejected=""), "rejected is not one message of the assistant"),
    ("hh", lambda line: line.update(chosen=line["chosen"] + "\n\nHuman: More"), "chosen is not one message of the"),
    ("hh", lambda line: line.update(chosen_rank=3), "the rejected one ranks before the chosen one (0 is best)"),
    ("openai_dpo", lambda line: line.update(group_id=3), "group_id is no field of this format"),
    ("openai_dpo", lambda line: line["input"].update(tools=[]), "input.tools is no field of this format"),
    (
        "openai_dpo",
        lambda line: line.update(preferred_output=line["non_preferred_output"]),
        "chosen and rejected are the same",
    ),
    ("openai_dpo", lambda line: line["input"]["messages"].pop(), "the context does not end with a message of the user"),
    ("llamafactory", lambda line: line["conversations"].clear(), "human and gpt do not take turns up to the human's"),
    (
        "llamafactory",
        lambda line: line["conversations"].append({"from": "gpt", "value": "Yes?"}),
        "human and gpt do not take turns up to the human's",
    ),
    ("llamafactory", lambda line: chosen(line, **{"from": "human"}), "chosen is not one message of the assistant"),
    ("llamafactory", lambda line: chosen(line, value=" "), "chosen is empty"),
    ("openai_sft", lambda line: line.update(id=3), "id is no field of this format"),
    ("openai_sft", lambda line: line["messages"].pop(), "the last message is not the assistant's"),
    ("openai_sft", lambda line: line["messages"].append(line["messages"][0]), "a system message is not the first one"),
    ("openai_sft", lambda line: line["messages"][1].update(content=""), "a message of the user is empty"),
    ("messages", lambda line: line.update(kind="dream"), "dream is no kind of conversation"),
    ("messages", lambda line: line.update(conversation_id=None), "has no conversation_id and was not mixed in"),
    ("messages", lambda line: line.update(finished_at=None), "finished_at is no time in UTC"),
    ("oasst", lambda line: line.pop("tree_state"), "tree_state is missing"),
    ("oasst", lambda line: line.update(message_tree_id="x"), "message_tree_id is not the message_id of its prompt"),
    ("oasst", lambda line: line["prompt"].update(role="assistant"), "the prompt is not the prompter's"),
    ("oasst", lambda line: line["prompt"].update(parent_id="x"), "the prompt has a parent_id"),
    ("oasst", lambda line: first(line).update(parent_id="x"), "is not the parent_id of its reply"),
    ("oasst", lambda line: first(line).update(role="prompter"), "is answered by a message of the prompter"),
    ("oasst", lambda line: first(line).update(role="user"), "has no role: user"),
    ("oasst", lambda line: first(line).update(text=" "), "is empty"),
    ("oasst", lambda line: first(line).update(rank=-1), "has a reply with a rank below 0"),
    ("oasst", lambda line: first(line).update(rank="1"), "prompt.replies[0].rank is no int64"),
    ("oasst", lambda line: first(line).update(created_date="today"), "has no time as created_date"),
    ("oasst", lambda line: first(line).update(labels={"spam": {"value": 1}}), "labels.spam.count is missing"),
    ("oasst", lambda line: first(line).update(emojis={"+1": "2"}), "emojis.+1 is no int64"),
    ("oasst", lambda line: first(line).pop("replies"), "prompt.replies[0].replies is missing"),
    (
        "oasst",
        lambda line: line["prompt"]["replies"].append(first(line)),
        "is there twice",
    ),
]


@pytest.mark.parametrize("format", sorted(path.stem for path in EXAMPLES.glob("*.jsonl")))
def test_the_documented_example_is_well(tmp_path, format):
    what = "prompts" if format == "prompt_only" else ""
    assert problems(folder_of(tmp_path / format, format, example(format), what=what)) == []


@pytest.mark.parametrize(("format", "damage", "says"), WRONG, ids=[f"{format} {says}" for format, _, says in WRONG])
def test_what_can_be_wrong_with_a_line(tmp_path, format, damage, says):
    line = example(format)
    damage(line)
    what = "demonstrations" if format == "messages" else ""
    found = problems(folder_of(tmp_path / format, format, line, what=what))
    assert any(problem.startswith("train.jsonl:1: ") and says in problem for problem in found), found


def test_a_label_that_another_contradicts(tmp_path):
    good = example("unpaired")
    bad = good | {"label": False, "completion": [{"role": "assistant", "content": "Nothing."}]}
    found = problems(folder_of(tmp_path / "same", "unpaired", good, bad))
    assert found == ["train.jsonl:2: has another label than an answer of the same rank"]


@pytest.mark.parametrize(
    ("filters", "changes", "says"),
    [
        ({"pairs": "adjacent"}, {}, "its ranks are not adjacent, and only such pairs were wanted"),
        (
            {"pairs": "best_worst"},
            {"chosen_rank": 1},
            "the chosen one is not the best, and only such pairs were wanted",
        ),
        ({"margin": "rank"}, {"margin": -1.0}, "margin is below 0"),
        ({"margin": "rank"}, {}, "margin is missing"),
        ({}, {"margin": 1.0}, "margin is no field of this format"),
    ],
)
def test_what_was_asked_for(tmp_path, filters, changes, says):
    line = example("preference") | changes
    found = problems(folder_of(tmp_path / "out", "preference", line, **filters))
    assert any(problem.startswith(f"train.jsonl:1: {says}") for problem in found), found


@pytest.mark.parametrize("format", ["nemo_rl", "hh", "openai_dpo", "llamafactory", "openai_sft", "oasst"])
def test_an_opening_in_two_splits(tmp_path, format):
    out = folder_of(tmp_path / "out", format, example(format))
    described = json.loads((out / "manifest.json").read_text())
    line = example(format) | ({"split": "test"} if "split" in example(format) else {})
    data = f"{json.dumps(line)}\n".encode()
    (out / "test.jsonl").write_bytes(data)
    described["files"]["test.jsonl"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": 1}
    described["counts"] |= {"rows": 2, "by_split": {"train": {"rows": 1}, "test": {"rows": 1}}}
    described["digest"] = manifest.digest_of(described["files"])
    (out / "manifest.json").write_text(json.dumps(described))
    assert any("leaks: its opening is also in the split" in problem for problem in problems(out))


def test_a_folder_that_datasets_cannot_load(tmp_path):
    pytest.importorskip("datasets")
    out = folder_of(tmp_path / "out", "openai_dpo", example("openai_dpo"))
    (out / "README.md").write_text('---\nconfigs: [{"config_name": "default", "data_files": "gone.jsonl"}]\n---\n')
    with pytest.raises(Exception, match="1 problem in"):
        call_command("check_export", str(out), stdout=StringIO())


def test_it_says_who_read_it(tmp_path):
    datasets = pytest.importorskip("datasets")
    said = StringIO()
    call_command("check_export", str(folder_of(tmp_path / "out", "hh", example("hh"))), stdout=said)
    assert f"loaded by datasets {datasets.__version__}; read by TRL " in said.getvalue()
    said = StringIO()
    call_command("check_export", str(folder_of(tmp_path / "dpo", "openai_dpo", example("openai_dpo"))), stdout=said)
    assert "TRL has no type for openai_dpo" in said.getvalue()
