"""`check_export` of demonstrations: what export wrote passes; each thing that can be wrong is named with its line."""

import hashlib
import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotate.datasets import filters, manifest, snapshots
from tests import factory
from worker import trl_columns

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FORMATS = ["messages", "prompt_completion"]
TURNS = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Where the export in each format lies that the tests take copies of."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def export(made, tmp_path):
    """A copy of an export of three written conversations of one family, the first with an edited, the second with a
    taken answer."""

    def copy(format: str) -> Path:
        if not (made / format).exists():
            write(made / format, format)
        return shutil.copytree(made / format, tmp_path / format)

    return copy


def write(out: Path, format: str) -> None:
    project = factory.project(review_share=0)
    for number, opening in enumerate(("Hello!", "hello", "Hello")):
        slot = factory.held_piece(project)
        asked = factory.suggested(slot, "One.", "Two.")
        came_from = {"from": [asked.pk, 0], "shown": [[asked.pk, 0], [asked.pk, 1]]} if number < 2 else {}
        said = [
            factory.written_turn("user", opening),
            factory.written_turn("assistant", "One." if number else "Once.", **came_from),
            factory.written_turn("user", "And then?"),
            factory.written_turn("assistant", "Nothing more."),
        ]
        factory.finished_piece(project, None, *said, slot=slot)
    snapshots.export("demonstrations", project=project, format=format, filters=filters.Demonstrations(), out=out)


def file_of(folder: Path) -> Path:
    (file,) = folder.glob("*.jsonl")
    return file


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in file_of(folder).read_text().splitlines()]


def rewrite(folder: Path, files: dict[str, list[dict]], **changes) -> None:
    """Put other lines into the folder, with a manifest that describes the files: only their content is wrong."""
    found = json.loads((folder / "manifest.json").read_text()) | changes
    for split, lines in files.items():
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        (folder / f"{split}.jsonl").write_bytes(data)
        described = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": len(lines)}
        found["files"][f"{split}.jsonl"] = described
    found["digest"] = manifest.digest_of(found["files"])
    (folder / "manifest.json").write_text(json.dumps(found))


def run(folder: Path) -> str:
    said = StringIO()
    call_command("check_export", str(folder), stdout=said)
    return said.getvalue()


def problems(folder: Path) -> list[str]:
    """The lines that name a problem."""
    said = StringIO()
    with pytest.raises(CommandError) as refusal:
        call_command("check_export", str(folder), stdout=said)
    assert refusal.value.returncode == 1
    return said.getvalue().splitlines()[2:]


@pytest.mark.parametrize(("format", "rows"), [("messages", 3), ("prompt_completion", 6), ("openai_sft", 3)])
def test_what_export_wrote_is_well(export, format, rows):
    said = run(export(format))
    assert f"demonstrations, {format}, rows: {rows}\n" in said
    assert "0=best" not in said
    assert said.endswith("ok\n")


def turn(line: dict, number: int = 2) -> dict:
    return line["turn"] if "turn" in line else line["turns"][number]


def first(line: dict) -> dict:
    return line["prompt" if "prompt" in line else "messages"][0]


BOTH = [
    (lambda line: line.pop("trainer"), "trainer is missing"),
    (lambda line: line.update(guidelines="1"), "guidelines is no int64"),
    (lambda line: line.update(review_state="fine"), "fine is no review_state"),
    (lambda line: line.update(review_state="approved"), "is approved without a review_id"),
    (lambda line: line.update(review_id=7), "review_id and reviewer are not there together"),
    (lambda line: line.update(revises=line["conversation_id"]), "revises is the conversation itself"),
    (lambda line: line.update(finished_at="2026-05-04T10:00:00"), "finished_at is no time in UTC"),
    (lambda line: line.update(finished_at="2026-05-04T10:00:00+02:00"), "finished_at is no time in UTC"),
    (lambda line: line.update(alternates=False), "user and assistant take turns"),
    (lambda line: line.update(split="held_out"), "split is held_out, the file's is"),
    (lambda line: first(line).update(role="tool"), "tool is no role"),
    (lambda line: first(line).update(role="assistant"), "user and assistant do not take turns"),
    (lambda line: first(line).update(content=" "), "a message of the system is empty"),
    (lambda line: turn(line).update(sampling=[]), "sampling is not an object"),
    (lambda line: turn(line).update(source="found"), "turn 2 has no source: found"),
    (lambda line: turn(line).update(edit_distance=1.01), "turn 2 has an edit_distance that is not 0 to 1"),
    (lambda line: turn(line).update(edit_distance=-0.5), "turn 2 has an edit_distance that is not 0 to 1"),
    (lambda line: turn(line).update(edit_distance=None), "turn 2 is edited and has no edit_distance"),
    (lambda line: turn(line).update(typed=-1), "turn 2 has typed below 0"),
    (lambda line: turn(line).update(policy=None), "turn 2 has completion_id without policy"),
    (lambda line: turn(line).update(completion_id=None), "turn 2 has suggestion without completion_id"),
    (lambda line: turn(line).update(source="written"), "turn 2 is written and has a completion_id"),
    (lambda line: turn(line).update(source="taken"), "turn 2 is taken and differs from its suggestion"),
    (lambda line: turn(line)["passed"].append(turn(line)["passed"][0]), "turn 2 has a completion_id twice in passed"),
    (
        lambda line: turn(line)["passed"][0].update(completion_id=turn(line)["completion_id"]),
        "turn 2 has a completion_id twice in passed",
    ),
]
OF_MESSAGES = [
    (lambda line: line["turns"].pop(), "turns are not parallel to messages: 4 beside 5"),
    (lambda line: turn(line).update(position=7), "the positions of turns do not count from 0"),
    (lambda line: line["messages"].pop(), "the last message is not the assistant's"),
    (lambda line: line["messages"].insert(2, dict(line["messages"][0])), "a system message is not the first one"),
    (lambda line: turn(line, 1).update(source="taken"), "turn 1 is taken and has no completion_id"),
    (lambda line: turn(line, 1).update(edit_distance=0), "turn 1 is written and has an edit_distance"),
]
OF_ROWS = [
    (lambda line: turn(line).update(position=3), "turn.position is not the number of messages in prompt"),
    (lambda line: line.update(completion=[]), "completion is not one message of the assistant"),
    (lambda line: line["completion"][0].update(content=" "), "completion is empty"),
    (lambda line: line["completion"][0].update(role="user"), "completion is not one message of the assistant"),
]
WRONG = [(format, *case) for format in FORMATS for case in BOTH]
WRONG += [("messages", *case) for case in OF_MESSAGES] + [("prompt_completion", *case) for case in OF_ROWS]


@pytest.mark.parametrize(("format", "damage", "says"), WRONG, ids=[f"{case[0]} {case[2]}" for case in WRONG])
def test_what_can_be_wrong_with_a_line(export, format, damage, says):
    folder = export(format)
    lines = lines_of(folder)
    damage(lines[0])
    name = file_of(folder).name
    rewrite(folder, {file_of(folder).stem: lines})
    found = problems(folder)
    assert any(problem.startswith(f"{name}:1: ") and says in problem for problem in found), found
    assert not any(problem.startswith(f"{name}:2") for problem in found)


@pytest.mark.parametrize("format", FORMATS)
def test_a_line_that_is_there_twice_or_out_of_order(export, format):
    folder = export(format)
    lines = lines_of(folder)
    name = file_of(folder).name
    rewrite(folder, {file_of(folder).stem: [lines[0], lines[0], *lines[1:]]})
    says = "stands before or beside a line of the same or a later conversation_id and position"
    assert f"{name}:2: {says}" in problems(folder)
    rewrite(folder, {file_of(folder).stem: [lines[1], lines[0], *lines[2:]]})
    assert f"{name}:2: {says}" in problems(folder)


def test_counts_that_are_not_those_of_the_files(export):
    folder = export("messages")
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    rewrite(folder, {}, counts=counts | {"by_source": {"written": 9}, "left_out": {}})
    assert problems(folder) == [
        "manifest.json: counts.by_source is {'written': 9}, the files have {'edited': 1, 'taken': 1, 'written': 3}"
    ]


def test_a_source_that_was_not_wanted(export):
    folder = export("messages")
    filters = json.loads((folder / "manifest.json").read_text())["filters"]
    rewrite(folder, {}, filters=filters | {"sources": ["written", "edited"]})
    assert problems(folder) == [f"{file_of(folder).name}:2: turn 2 is taken, which was not wanted"]


def test_a_conversation_beside_the_one_that_takes_its_place(export):
    folder = export("messages")
    lines = lines_of(folder)
    lines[1]["revises"] = lines[0]["conversation_id"]
    rewrite(folder, {file_of(folder).stem: lines})
    pk = lines[0]["conversation_id"]
    says = f"manifest.json: conversation_id {pk} is there beside a conversation that revises it"
    assert problems(folder) == [says]
    filters = json.loads((folder / "manifest.json").read_text())["filters"]
    rewrite(folder, {}, filters=filters | {"include": ["superseded"]})
    assert run(folder).endswith("ok\n")


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("conversation_id", {"family": "another", "messages": TURNS}),
        ("family", {"conversation_id": 10**6, "messages": TURNS}),
        ("opening", {"conversation_id": 10**6, "family": "another"}),
    ],
)
def test_what_is_in_two_splits(export, what, changes):
    folder = export("messages")
    lines = lines_of(folder)
    here = file_of(folder).stem
    there = "test" if here != "test" else "train"
    moved = lines[0] | {"split": there} | changes
    if "messages" in changes:
        moved["turns"] = [turn | {"position": number} for number, turn in enumerate([moved["turns"][1]] * 2)]
    rewrite(folder, {here: lines, there: [moved]})
    leaks = [problem.partition(": ")[2] for problem in problems(folder) if "leaks" in problem]
    assert leaks == [f"leaks: its {what} is also in the split {here}"]


@pytest.mark.parametrize("format", ["ranked", "sft"])
def test_a_format_of_something_else(tmp_path, format):
    found = {"schema_version": 1, "what": "demonstrations", "format": format, "counts": {"by_split": {}}, "files": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(CommandError) as refusal:
        run(tmp_path)
    assert refusal.value.returncode == 2
    assert "does not know" in str(refusal.value)


class TestTrl:
    @pytest.mark.parametrize("format", FORMATS)
    def test_its_rules_are_tried_where_it_is_installed(self, export, format):
        assert f"read by TRL {pytest.importorskip('trl').__version__}" in run(export(format))

    @pytest.mark.parametrize(
        ("format", "row", "says"),
        [
            ("messages", {"messages": "Hello"}, "TRL does not take it as conversational"),
            ("messages", {"prompt": TURNS[:1], "completion": TURNS[1:]}, "needs the column messages"),
            ("messages", {"messages": TURNS, "labels": [1]}, "TRL takes the column labels for something else"),
            ("messages", {"messages": TURNS, "completion": "c"}, "TRL takes the column completion for something else"),
            ("prompt_completion", {"prompt": TURNS[:1]}, "needs the columns completion and prompt"),
            (
                "prompt_completion",
                {"prompt": TURNS[:1], "completion": TURNS[1:], "text": "t"},
                "TRL takes the column text for something else",
            ),
        ],
    )
    def test_what_it_does_not_take(self, tmp_path, format, row, says):
        pytest.importorskip("trl")
        (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
        found = list(trl_columns.problems(tmp_path, ["train.jsonl"], format))
        assert any(says in problem for _, problem in found), found
