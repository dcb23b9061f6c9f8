"""`check_export`: what export wrote passes; each thing that can be wrong is named with its file and line."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotate.datasets import comparison_formats, filters, manifest, snapshots
from annotate.datasets.check import SHOWN
from annotate.datasets.filters import parse as filters_of
from annotate.datasets.tallies import Tally
from tests import factory
from worker import trl_columns

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TURNS = [{"role": "user", "content": "p"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Where the export in each format lies that the tests take copies of."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def export(made, tmp_path):
    """A copy of an export of three closed comparisons, the first ranked B A=D C, the others A B C D; the folder."""

    def copy(format: str) -> Path:
        if not (made / format).exists():
            write(made / format, format)
        return shutil.copytree(made / format, tmp_path / format)

    return copy


def write(out: Path, format: str) -> None:
    project = factory.project(overlap=1)
    # One family keeps all lines in one file, so that a line's number says which it is.
    project.secret = "00" * 32
    project.save()
    for opening, order in (("Hello!", "B A=D C"), ("hello", "A B C D"), ("Hello", "A B C D")):
        factory.ranking(factory.comparison_about(project, opening), order)
    snapshots.export("comparisons", project=project, format=format, filters=filters.Comparisons(), out=out)


def file_of(folder: Path) -> Path:
    (file,) = folder.glob("*.jsonl")
    return file


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in file_of(folder).read_text().splitlines()]


def change_manifest(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, files: dict[str, list[dict]]) -> None:
    """Put other lines into the folder, with a manifest that describes them, so that only their content is wrong."""
    found = json.loads((folder / "manifest.json").read_text())
    for split, lines in files.items():
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        (folder / f"{split}.jsonl").write_bytes(data)
        described = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": len(lines)}
        found["files"][f"{split}.jsonl"] = described
    if found["format"] == "ranked":
        tally = Tally()
        for line in itertools.chain(*files.values()):
            tally.add([line], [line])
        counts = tally.as_json()
    else:
        by_split = {split: {"rows": len(lines)} for split, lines in files.items()}
        counts = found["counts"] | {"rows": sum(map(len, files.values())), "by_split": by_split}
    change_manifest(folder, files=found["files"], counts=counts, digest=manifest.digest_of(found["files"]))


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


@pytest.mark.parametrize("format", list(comparison_formats.FORMATS))
def test_what_export_wrote_is_well(export, format):
    folder = export(format)
    said = run(folder)
    rows = {"ranked": 3, "unpaired": 6, "prompt_only": 3, "nemo_rl": 3}.get(format, 17)
    assert f"comparisons, {format}, rows: {rows}\n" in said
    assert "0=best" in said
    assert said.endswith("ok\n")


def test_it_needs_no_database(export, tmp_path):
    folder = export("ranked")
    nothing = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    done = subprocess.run(
        [sys.executable, "manage.py", "check_export", str(folder)],
        cwd=ROOT,
        env=nothing | {"BOTHSIDES_HOME": str(tmp_path / "nothing-here")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("ok\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "manifest.json: No such file or directory"),
        (b"\xff{", "is not the manifest of an export"),
        (b"[]", "is not the manifest of an export"),
        (b'{"what": "comparisons"}', "is not the manifest of an export"),
        (
            b'{"schema_version": 1, "what": "comparisons", "format": "ranked", "counts": {"by_split": {}},'
            b' "files": {}}',
            "does not know",
        ),
        (
            b'{"schema_version": 4, "what": "comparisons", "format": "ranked", "counts": {"by_split": {}},'
            b' "files": {"../up.jsonl": {"sha256": "0"}}}',
            "does not know",
        ),
        (b"[" * 100_000, "is not the manifest of an export"),
        (b'{"what": ' + b'{"a": ' * 100_000, "is not the manifest of an export"),
        (
            b'{"schema_version": 1, "what": "comparisons", "format": "ranked", "counts": {"by_split": {}},'
            b' "files": {"\\ud83d.jsonl": {"sha256": "0"}}}',
            "is not the manifest of an export",
        ),
    ],
)
def test_a_folder_that_is_no_export(tmp_path, content, says):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CommandError) as refusal:
        run(tmp_path)
    assert refusal.value.returncode == 2
    assert says in str(refusal.value)


def test_no_such_folder(tmp_path):
    with pytest.raises(CommandError) as refusal:
        run(tmp_path / "nope")
    assert refusal.value.returncode == 2
    assert "\n" not in str(refusal.value)


class TestFiles:
    def test_a_changed_byte(self, export):
        folder = export("ranked")
        file = file_of(folder)
        file.write_bytes(file.read_bytes().replace(b"Answer", b"answer", 1))
        assert problems(folder) == [f"{file.name}: has another sha256 than in the manifest: it was changed"]

    def test_a_changed_card(self, export):
        folder = export("ranked")
        (folder / "README.md").write_text("mine")
        assert problems(folder) == ["README.md: has another sha256 than in the manifest: it was changed"]

    def test_a_file_that_is_gone(self, export):
        folder = export("ranked")
        (folder / "README.md").unlink()
        assert problems(folder) == ["README.md: is in the manifest and not in the folder"]

    def test_a_name_that_no_file_can_have(self, export):
        folder = export("ranked")
        name = "n" * 300
        files = json.loads((folder / "manifest.json").read_text())["files"] | {name: {"sha256": "0"}}
        change_manifest(folder, files=files)
        assert problems(folder) == [f"{name}: cannot be read: File name too long"]

    def test_one_problem_is_not_called_many(self, export):
        folder = export("ranked")
        (folder / "README.md").write_text("mine")
        with pytest.raises(CommandError, match=r"^1 problem in "):
            run(folder)

    def test_a_line_and_a_count_that_are_nested_deeply(self, export):
        folder = export("ranked")
        file = file_of(folder)
        file.write_bytes(file.read_bytes() + b"[" * 100_000 + b"\n")
        nested = json.loads("[" * 400 + "]" * 400)
        counts = json.loads((folder / "manifest.json").read_text())["counts"]
        change_manifest(folder, counts=counts | {"tied_pairs": nested})
        found = problems(folder)
        assert f"{file.name}:4: is not JSON" in found
        assert "manifest.json: counts.tied_pairs is [[[[[[[...]]]]]]], the files have 1" in found

    @pytest.mark.parametrize("half", [b"\\ud83d", b"\xed\xa0\xbd"], ids=["escaped", "raw"])
    def test_half_a_character(self, export, half):
        folder = export("ranked")
        file = file_of(folder)
        file.write_bytes(file.read_bytes().replace(b"Answer", half, 1))
        says = "holds half a character (a lone surrogate)" if half.startswith(b"\\") else "is not JSON"
        assert f"{file.name}:1: {says}" in problems(folder)

    def test_numbers_that_json_does_not_have(self, export):
        folder = export("ranked")
        file = file_of(folder)
        file.write_bytes(file.read_bytes().replace(b'"agreement":null', b'"agreement":NaN', 1))
        assert f"{file.name}:1: is not JSON" in problems(folder)

    @pytest.mark.parametrize("filters", [{"include": 5, "sources": 5}, {"include": {}}, 5], ids=str)
    def test_filters_that_are_none(self, tmp_path, filters):
        project = factory.project(review_share=0)
        factory.finished_piece(project)
        asked = {"project": project, "format": "messages", "filters": filters_of("demonstrations", {})}
        snapshots.export("demonstrations", **asked, out=tmp_path / "out")
        change_manifest(tmp_path / "out", filters=filters)
        run(tmp_path / "out")

    def test_a_file_too_many(self, export):
        folder = export("ranked")
        (folder / "more.jsonl").write_text("{}\n")
        assert problems(folder) == ["more.jsonl: is not in the manifest"]

    def test_a_lost_line(self, export):
        folder = export("preference")
        file = file_of(folder)
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
        split = file.stem
        assert problems(folder) == [
            f"{file.name}: has another sha256 than in the manifest: it was changed",
            "manifest.json: counts.rows is 17, the files have 16",
            f"manifest.json: {file.name}: rows: 17, in the file: 16",
            f"manifest.json: {split}: rows by counts: 17, in its files: 16",
        ]

    def test_another_direction_or_digest_in_the_manifest(self, export):
        folder = export("ranked")
        change_manifest(folder, rank_order="0=worst", digest="0" * 64)
        assert problems(folder) == [
            "manifest.json: rank_order is not 0=best",
            "manifest.json: digest is not that of the files listed",
        ]

    def test_counts_that_are_not_those_of_the_files(self, export):
        folder = export("ranked")
        counts = json.loads((folder / "manifest.json").read_text())["counts"]
        change_manifest(folder, counts=counts | {"tied_pairs": 0, "comparisons_by_k": {"4": 4}})
        assert problems(folder) == [
            "manifest.json: counts.tied_pairs is 0, the files have 1",
            "manifest.json: counts.comparisons_by_k is {'4': 4}, the files have {'4': 3}",
        ]

    def test_what_is_not_json(self, export):
        folder = export("ranked")
        file = file_of(folder)
        file.write_bytes(file.read_bytes() + b"\n{broken\n")
        found = problems(folder)
        assert f"{file.name}:4: is not JSON" in found
        assert f"{file.name}:5: is not JSON" in found

    def test_many_problems_are_counted_and_not_all_listed(self, export):
        folder = export("ranked")
        file = file_of(folder)
        file.write_bytes(b"?\n" * 200)
        found = problems(folder)
        assert len(found) == SHOWN + 1
        assert found[-1].startswith("… and 1")


def one(line: dict, number: int) -> dict:
    return line["completions"][number]


RANKED = [
    (lambda line: line.pop("trainer"), "trainer is missing"),
    (lambda line: line.update(margin=1), "margin is no field of this format"),
    (lambda line: line.update(all_bad=0), "all_bad is no bool"),
    (lambda line: line.update(ranking_id="7"), "ranking_id is no int64"),
    (lambda line: line.update(ranking_id=2**63), "ranking_id is no int64"),
    (lambda line: one(line, 1).update(rank=True), "completions[1].rank is no int64"),
    (lambda line: line.update(context={}), "context is not a list"),
    (lambda line: line.update(completions=["a", "b"]), "completions[0] is not an object"),
    (lambda line: line.update(comparison_id=99), "group_id is not the comparison_id"),
    (lambda line: line.update(k=3), "k is 3, completions: 4"),
    (lambda line: one(line, 1).update(rank=1), "ranks are not dense from 0, the best: 1, 2"),
    (lambda line: one(line, 2).update(rank=5), "ranks are not dense from 0, the best: 0, 1, 5"),
    (lambda line: [place.update(rank=place["rank"] + 1) for place in line["completions"]], "ranks are not dense"),
    (lambda line: one(line, 0).update(rank=-1), "ranks are not dense from 0"),
    (lambda line: one(line, 1).update(original=True), "more than one completion is the original"),
    (lambda line: one(line, 1).update(candidate_id=one(line, 0)["candidate_id"]), "a candidate_id is there twice"),
    (lambda line: one(line, 1).update(shown_position=3), "shown_position does not number"),
    (lambda line: one(line, 1).update(rating=8), "completions[1].rating is not 1 to 7"),
    (lambda line: one(line, 1).update(completion=one(line, 0)["completion"]), "two completions are the same"),
    (lambda line: one(line, 1).update(completion=[]), "completions[1] is not one message of the assistant"),
    (lambda line: one(line, 1)["completion"][0].update(content=" \n"), "completions[1] is empty"),
    (lambda line: one(line, 1)["completion"][0].update(role="user"), "completions[1] is not one message of the"),
    (lambda line: line["context"].pop(), "the context does not end with a message of the user"),
    (lambda line: line["context"][0].update(role="tool"), "tool is no role"),
    (lambda line: line["context"][1].update(content=""), "a message of the user is empty"),
    (lambda line: line.update(selection="likely"), "likely is no selection"),
    (lambda line: line["draw"].update(index=1), "draw.index is not below draw.size"),
    (lambda line: line.update(split="held_out"), "split is held_out, the file's is"),
]


@pytest.mark.parametrize(("damage", "says"), RANKED, ids=[says for _, says in RANKED])
def test_what_can_be_wrong_with_a_ranking(export, damage, says):
    folder = export("ranked")
    file, lines = file_of(folder), lines_of(folder)
    damage(lines[0])
    data = "".join(f"{json.dumps(line)}\n" for line in lines)
    file.write_text(data)
    found = problems(folder)
    assert any(problem.startswith(f"{file.name}:1: {says}") for problem in found), found
    assert not any(problem.startswith((f"{file.name}:2", f"{file.name}:3")) for problem in found)


def side(line: dict, name: str) -> dict:
    return line[name][-1]


def swap(line: dict) -> None:
    line["chosen"], line["rejected"] = line["rejected"], line["chosen"]


PAIRS = [
    (lambda line: line.update(chosen_rank=1), "is a tie, which is no pair"),
    (lambda line: line.update(chosen_rank=2), "the rejected one ranks before the chosen one (0 is best)"),
    (lambda line: line.update(chosen_rank=-1), "a rank is below 0"),
    (lambda line: side(line, "rejected").update(content=side(line, "chosen")["content"]), "chosen and rejected are"),
    (lambda line: side(line, "chosen").update(content=" "), "chosen is empty"),
    (lambda line: side(line, "rejected").update(content=""), "rejected is empty"),
    (lambda line: side(line, "chosen").update(role="user"), "chosen is not one message of the assistant"),
    (lambda line: line.pop("rejected"), "rejected is missing"),
]


@pytest.mark.parametrize("format", ["preference", "preference_implicit"])
@pytest.mark.parametrize(("damage", "says"), PAIRS, ids=[says for _, says in PAIRS])
def test_what_can_be_wrong_with_a_pair(export, format, damage, says):
    folder = export(format)
    lines = lines_of(folder)
    damage(lines[0])
    rewrite(folder, {file_of(folder).stem: lines})
    assert any(problem.startswith(f"{file_of(folder).name}:1: {says}") for problem in problems(folder))


def test_a_pair_that_was_turned_round(export):
    folder = export("preference")
    lines = lines_of(folder)
    swap(lines[1])
    rewrite(folder, {file_of(folder).stem: lines})
    found = problems(folder)
    assert f"{file_of(folder).name}:2: rejected has another rank than in an earlier pair of its ranking" in found


def test_contexts_of_a_pair_that_differ(export):
    folder = export("preference_implicit")
    lines = lines_of(folder)
    lines[0]["rejected"][0]["content"] = "Be harmful."
    rewrite(folder, {file_of(folder).stem: lines})
    assert problems(folder) == [f"{file_of(folder).name}:1: chosen and rejected do not begin with the same messages"]


def test_an_empty_context_of_a_pair(export):
    folder = export("preference")
    lines = lines_of(folder)
    lines[0]["prompt"] = []
    rewrite(folder, {file_of(folder).stem: lines})
    assert problems(folder) == [f"{file_of(folder).name}:1: the context does not end with a message of the user"]


def test_a_ranking_that_is_there_twice_or_out_of_order(export):
    folder = export("ranked")
    first, second, third = lines_of(folder)
    split = file_of(folder).stem
    rewrite(folder, {split: [first, first, third, second]})
    assert problems(folder) == [
        f"{split}.jsonl:2: stands before or beside a line of the same or a later group_id and ranking_id",
        f"{split}.jsonl:4: stands before or beside a line of the same or a later group_id and ranking_id",
    ]


class TestLeaks:
    def two_splits(self, export, **changes) -> list[str]:
        folder = export("ranked")
        first, second, third = lines_of(folder)
        here = file_of(folder).stem
        there = "test" if here != "test" else "train"
        rewrite(folder, {here: [first, second], there: [third | {"split": there} | changes]})
        return [problem.partition(": ")[2] for problem in problems(folder)]

    def test_a_family_in_two_splits(self, export):
        found = self.two_splits(export, context=[{"role": "user", "content": "Quite another"}])
        assert len(found) == 1
        assert found[0].startswith("leaks: its family is also in the split")

    def test_an_opening_in_two_splits(self, export):
        found = self.two_splits(export, family="another", context=[{"role": "user", "content": "  HELLO "}])
        assert len(found) == 1
        assert found[0].startswith("leaks: its opening is also in the split")

    def test_a_comparison_in_two_splits(self, export):
        folder = export("ranked")
        lines = lines_of(folder)
        here = file_of(folder).stem
        there = "test" if here != "test" else "train"
        rewrite(folder, {here: lines, there: [lines[0] | {"split": there}]})
        assert any("leaks: its group_id is also in the split" in problem for problem in problems(folder))


class TestTrl:
    def test_its_rules_are_tried_where_it_is_installed(self, export):
        assert f"read by TRL {pytest.importorskip('trl').__version__}" in run(export("preference"))

    def test_without_it_the_check_goes_on(self, export, monkeypatch):
        monkeypatch.setattr(trl_columns.importlib.util, "find_spec", lambda name: None)
        said = run(export("preference"))
        assert "TRL is not installed, its own rules were not tried" in said
        assert said.endswith("ok\n")

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ({"prompt": "Hello", "chosen": "a", "rejected": "b"}, "TRL does not take it as conversational"),
            ({"prompt": TURNS, "chosen": TURNS}, "needs the columns chosen and prompt and rejected"),
            ({"prompt": TURNS, "chosen": TURNS, "rejected": TURNS, "margin": 1}, "TRL takes the column margin"),
            (
                {
                    "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}],
                    "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
                },
                "TRL finds another prompt",
            ),
        ],
    )
    def test_what_it_does_not_take(self, tmp_path, row, says):
        pytest.importorskip("trl")
        (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
        format = "preference" if "prompt" in row else "preference_implicit"
        found = list(trl_columns.problems(tmp_path, ["train.jsonl"], format))
        assert any(says in problem for _, problem in found), found

    def test_columns_without_one_type(self, tmp_path):
        pytest.importorskip("trl")
        rows = [{"prompt": TURNS, "chosen": TURNS, "rejected": TURNS, "rank": rank} for rank in (1, "one")]
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = list(trl_columns.problems(tmp_path, ["train.jsonl"]))
        assert any("datasets cannot read it" in problem for _, problem in found)
