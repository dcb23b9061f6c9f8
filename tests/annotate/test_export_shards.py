"""The files of an export: shards of each kind, their names, types and schema, and the keys beside them."""

import dataclasses
import hashlib
import json
from array import array
from pathlib import Path

import datasets as hugging_face
import jsonschema
import orjson
import psutil
import pyarrow.parquet
import pytest
import zstandard
from django.core.files.storage import default_storage
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from annotate.datasets import columns, filters, parquet, schemas, shapes, shards, snapshots, writing
from annotate.datasets.check import check
from annotate.errors import Invalid
from annotate.models import Export
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.usefixtures("folders")]


@pytest.fixture
def project():
    """A project with twelve imported comparisons, among them one whose texts are odd."""
    made = factory.project(overlap=1)
    for number in range(11):
        rank(made, f"Question {number}", f"Answer {number}", "A tie", "Another")
    rank(made, 'Ça va?\u2028مرحبا 你好 🎈\n\t\\ " \x01', "2026-01-31T12:00:00", "1e5", "null")
    return made


def rank(project, opening: str, answer: str, tie: str, worse: str) -> None:
    talk = factory.imported(project, ("user", opening), ("assistant", answer))
    factory.imported_comparison(project, (answer, tie), (worse,), conversation=talk)


def export(project, out: Path, format: str = "ranked", kind: str = "jsonl", shard_rows: int = 100_000, **more):
    files = shards.Files(kind=kind, shard_rows=shard_rows)
    wanted = {"project": project, "format": format, "filters": filters.Comparisons(), "files": files, "out": out}
    return snapshots.export("comparisons", **wanted | more)


def lines(out: Path) -> list[dict]:
    found = []
    for path in sorted(out.iterdir()):
        if shards.split_of(path.name):
            with shards.opened(path) as read:
                found += [json.loads(line) for line in read]
    return found


def by_ranking(found: list[dict]) -> list[dict]:
    return sorted(found, key=lambda line: line["ranking_id"])


@pytest.mark.parametrize("kind", shards.KINDS)
@pytest.mark.parametrize("format", ["ranked", "preference"])
def test_the_same_lines_are_in_every_kind(project, tmp_path, format, kind):
    export(project, tmp_path / "wanted", format)
    for rows in (100_000, 4):
        out = tmp_path / f"out-{rows}"
        export(project, out, format, kind, rows)
        assert by_ranking(lines(out)) == by_ranking(lines(tmp_path / "wanted"))
        assert check(out).problems == []
        described = json.loads((out / "manifest.json").read_text())
        assert described["files_kind"] == kind
        listing = "".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(out.glob(f"*.{kind}"))
        )
        assert described["digest"] == hashlib.sha256(listing.encode()).hexdigest()


def test_shards_are_numbered_and_no_group_is_parted(project, tmp_path):
    export(project, tmp_path / "out", "preference", shard_rows=5)
    by_split = {}
    for path in sorted((tmp_path / "out").glob("*.jsonl")):
        by_split.setdefault(shards.split_of(path.name), []).append(path)
    for split, paths in by_split.items():
        assert [path.name for path in paths] == shards.names(split, len(paths), "jsonl")
        groups = [{json.loads(line)["group_id"] for line in path.read_bytes().splitlines()} for path in paths]
        assert sum(map(len, groups)) == len(set().union(*groups))
        # Two pairs a comparison: a third comparison would be one row too many.
        assert all(len(group) == 2 for group in groups[:-1])


def test_a_group_that_is_longer_than_a_shard_is_one_shard(tmp_path):
    project = factory.project(overlap=1)
    answers = [f"Answer {number}" for number in range(5)]
    talk = factory.imported(project, ("user", "Which?"), ("assistant", answers[0]))
    factory.imported_comparison(project, *((one,) for one in answers), conversation=talk)
    export(project, tmp_path / "out", "preference", shard_rows=3)
    (path,) = (tmp_path / "out").glob("*.jsonl")
    assert len(path.read_text().splitlines()) == 10
    assert check(tmp_path / "out").problems == []


@pytest.mark.parametrize("kind", shards.KINDS)
def test_hugging_face_reads_the_folder_with_its_splits_and_types(project, tmp_path, kind):
    export(project, tmp_path / "out", kind=kind, shard_rows=3)
    read = hugging_face.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    described = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["by_split"]
    assert {split: len(rows) for split, rows in read.items()} == {
        split: counts["rows"] for split, counts in described.items()
    }
    everything = [row for rows in read.values() for row in rows]
    assert by_ranking(everything) == by_ranking(lines(tmp_path / "out"))


def test_types_of_parquet_are_not_inferred(project, tmp_path):
    export(project, tmp_path / "out", kind="parquet")
    for path in (tmp_path / "out").glob("*.parquet"):
        schema = pyarrow.parquet.read_schema(path)
        # All null in what was imported.
        assert str(schema.field("trainer").type) == "string"
        assert str(schema.field("iteration").type) == "int64"
        assert schema.equals(parquet.schema_of(shapes.of("ranked")))


def test_zstandard_is_one_frame_with_a_checksum(project, tmp_path):
    export(project, tmp_path / "out", kind="jsonl.zst")
    path = next((tmp_path / "out").glob("*.zst"))
    frame = zstandard.get_frame_parameters(path.read_bytes())
    assert frame.has_checksum
    assert frame.content_size == len(zstandard.ZstdDecompressor().decompress(path.read_bytes()))


@pytest.mark.parametrize("format", ["ranked", "preference", "hh"])
def test_lines_keep_to_the_schema_beside_them(project, tmp_path, format):
    export(project, tmp_path / "out", format)
    schema = json.loads((tmp_path / "out" / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    found = lines(tmp_path / "out")
    assert all(validator.is_valid(line) for line in found)
    for name in found[0]:
        assert not validator.is_valid({key: value for key, value in found[0].items() if key != name})
        assert not validator.is_valid(found[0] | {name: [None]})
    assert not validator.is_valid(found[0] | {"more": 1})


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"kind": "csv"}, "files: 'csv' is none of jsonl, jsonl.zst, parquet."),
        ({"shard_rows": 0}, "shard_rows: 0 is no whole number from 1 to 100,000,000."),
        ({"shard_rows": "many"}, "shard_rows: 'many' is no whole number from 1 to 100,000,000."),
        ({"shard_rows": True}, "shard_rows: True is no whole number from 1 to 100,000,000."),
        ({"level": 3}, "files: level is not known; there are kind and shard_rows."),
    ],
)
def test_files_that_there_are_not(files, says):
    with pytest.raises(Invalid) as refusal:
        shards.parse(files)
    assert refusal.value.message == says


class TestDamaged:
    @pytest.fixture
    def out(self, project, tmp_path):
        return tmp_path / "out"

    @pytest.mark.parametrize("kind", ["jsonl.zst", "parquet"])
    def test_a_file_with_other_bytes(self, project, out, kind):
        export(project, out, kind=kind)
        path = max(out.glob(f"*.{kind}"), key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))
        problems = check(out).problems
        assert f"{path.name}: has another sha256 than in the manifest: it was changed" in problems
        # In Parquet it may only be another letter.
        assert kind == "parquet" or f"{path.name}: is damaged: " in "".join(problems)

    def test_a_column_of_another_type(self, project, out):
        export(project, out, kind="parquet")
        path = next(out.glob("*.parquet"))
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(table.set_column(0, "group_id", table["group_id"].cast("int32")), path)
        says = f"{path.name}: is no Parquet file with the columns and types of this format"
        assert says in check(out).problems

    def test_another_schema(self, project, out):
        export(project, out)
        schema = json.loads((out / "schema.json").read_text())
        del schema["properties"]["k"]
        (out / "schema.json").write_text(json.dumps(schema))
        assert check(out).problems[-1] == "schema.json: is not the schema of this format"

    def test_a_shard_that_is_gone(self, project, out):
        export(project, out, shard_rows=2)
        (path,) = out.glob("train-00001-*")
        path.unlink()
        assert f"{path.name}: is in the manifest and not in the folder" in check(out).problems


class TestKeys:
    def test_they_are_those_of_its_lines_in_their_order(self, project, tmp_path):
        made = export(project, tmp_path / "out")
        assert sorted(snapshots.keys_of(made)) == sorted(line["ranking_id"] for line in lines(tmp_path / "out"))

    def test_some_of_a_parents_make_an_export_of_their_own(self, project, tmp_path):
        parent = export(project, None)
        keys = snapshots.keys_of(parent)[::3]
        rank(project, "Late", "Answer", "A tie", "Another")
        made = export(project, tmp_path / "out", parents=[parent], keys=keys)
        assert snapshots.keys_of(made) == keys
        assert list(made.parents.all()) == [parent]
        listed = [{"kind": "export", "name": "comparisons ranked", "export": parent.pk, "digest": parent.digest}]
        assert made.manifest["parents"] == listed
        assert not [name for name in default_storage.listdir(project.slug)[1] if name.startswith("asked-")]

    def test_others_than_the_parents_are_refused(self, project):
        parent = export(project, None)
        for keys in ([0], list(snapshots.keys_of(parent))[::-1]):
            with pytest.raises(Invalid, match="Keys are asked for that are not in the parent"):
                export(project, None, parents=[parent], keys=keys)
        with pytest.raises(Invalid, match="Keys are those of one parent"):
            export(project, None, keys=[1])
        assert list(Export.objects.all()) == [parent]
        assert len(default_storage.listdir(project.slug)[1]) == 1

    def test_an_export_that_is_not_done_has_none(self, project):
        asked = snapshots.prepare(what="comparisons", project=project, format="ranked", filters=filters.Comparisons())
        with pytest.raises(Invalid, match=f"Export {asked.pk} is waiting; only one that is done has keys"):
            snapshots.keys_of(asked)


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), max_size=5), st.data())
def test_a_column_holds_what_was_put_in(tmp_path_factory, parts, data):
    column = columns.Column(tmp_path_factory.mktemp("column") / "numbers")
    column.cut(0)
    everything = array("q")
    for part in parts:
        column.append(part)
        everything.extend(part)
    assert column.flush() == len(everything)
    kept = data.draw(st.integers(0, len(everything)))
    column.cut(kept)
    begin = data.draw(st.integers(0, kept))
    assert [number for part in column.parts(begin) for number in part] == list(everything[begin:kept])
    with pytest.raises(ValueError, match="is shorter than it was"):
        column.cut(kept + 1)


def test_a_family_in_two_splits_refuses_the_export(project, tmp_path, monkeypatch):
    number = iter(range(100))
    monkeypatch.setattr("annotate.datasets.splits.Splitter.of", lambda *_: ("train", "validation")[next(number) % 2])
    for _ in range(2):
        rank(project, "The same words", "Answer", "A tie", "Another")
    with pytest.raises(Invalid, match="1 family has lines in more than one split"):
        export(project, tmp_path / "out")
    assert not Export.objects.exists()
    assert not (tmp_path / "out").exists()


def test_long_lines_come_a_few_at_a_time(project, tmp_path, monkeypatch):
    sizes = []
    what = snapshots.named("comparisons")
    monkeypatch.setattr(writing, "CHUNK_BYTES", 1)
    monkeypatch.setattr(writing, "FIRST_CHUNK", 3)
    watched = dataclasses.replace(what, rows=lambda keys: sizes.append(len(keys)) or what.rows(keys))
    monkeypatch.setitem(snapshots.WHATS, "comparisons", watched)
    export(project, tmp_path / "out")
    assert sizes == [3] + [1] * 9


@pytest.mark.parametrize("kind", shards.KINDS)
def test_memory_does_not_grow_with_a_shard(tmp_path, kind):
    line = orjson.dumps({"prompt": [{"role": "user", "content": "x" * 2000}], "n": 1}) + b"\n"
    shape = {"prompt": shapes.MESSAGES, "n": "int64"}
    split = shards.Split(folder=tmp_path, name="train", files=shards.Files(kind, 10**6), shape=shape)
    for _ in range(100):
        split.write(line * 1000, 1000)
    before = psutil.Process().memory_info().rss
    split.close_shard()
    assert psutil.Process().memory_info().rss < before + 100 * 2**20
    (shard,) = split.written.full
    assert shard.rows == 100_000
    assert json.loads(schemas.json_schema(title="", shape=shape))["required"] == ["prompt", "n"]
