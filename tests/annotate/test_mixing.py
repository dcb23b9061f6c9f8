"""`export demonstrations --mix`: another set in dialogue form, drawn under a seed, in the splits of the project."""

import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from annotate import derive, families
from annotate.datasets import filters, mixing, snapshots, writing
from annotate.datasets.check import check
from annotate.datasets.shards import Files
from annotate.errors import Invalid, NotFound
from annotate.models import Export, FamilyMember
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.usefixtures("folders")]


@pytest.fixture
def project():
    """One whose splits are always the same, with three pieces of writing."""
    project = factory.project(slug="demo", review_share=0, secret="ab" * 32)
    for _ in range(3):
        factory.finished_piece(project)
    return project


def row(number: int) -> dict:
    words = random.Random(number)
    return {"id": f"row-{number}", "instruction": f"Do {words.random()}", "input": "", "output": f"Done {number}"}


@pytest.fixture
def file(tmp_path):
    """A file of a hundred instructions."""
    return written(tmp_path / "seed.jsonl", [row(number) for number in range(100)])


def written(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def export(project, out: Path, *mixes: str, format: str = "messages", what: str = "demonstrations", **asked) -> list:
    wanted = filters.parse(what, asked | ({"mix": list(mixes)} if mixes else {}))
    files = Files(kind=asked.pop("kind", "jsonl"))
    snapshots.export(what, project=project, format=format, filters=wanted, files=files, out=out)
    assert check(out).problems == []
    return [json.loads(line) for name in sorted(out.glob("*.jsonl")) for line in name.read_text().splitlines()]


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def mixed(lines: list[dict]) -> dict[str, dict]:
    return {line["source_id"]: line for line in lines if line["source"] != "demonstrations"}


def test_a_file_is_mixed_in_as_dialogue_with_its_source_on_every_line(project, file, tmp_path):
    lines = export(project, tmp_path / "out", f"{file}:20")
    assert Counter(line["source"] for line in lines) == {"demonstrations": 3, "seed.jsonl": 20}
    line = next(iter(mixed(lines).values()))
    number = int(line["source_id"].removeprefix("row-"))
    assert line["messages"] == [
        {"role": "system", "content": project.system_message},
        {"role": "user", "content": row(number)["instruction"]},
        {"role": "assistant", "content": f"Done {number}"},
    ]
    assert [turn["source"] for turn in line["turns"]] == ["imported"] * 3
    assert (line["kind"], line["conversation_id"], line["trainer"], line["iteration"]) == ("imported", None, None, None)
    assert line["family"] == derive.family_of(row(number)["instruction"])
    assert line["split"] == derive.split_of(project.secret, line["family"])
    said = manifest(tmp_path / "out")
    (parent,) = said["parents"]
    assert (parent["kind"], parent["name"], parent["conversations"]) == ("file", "seed.jsonl", 100)
    assert len(parent["sha256"]) == 64
    assert said["filters"]["mix"] == [f"{file}:20"]
    assert str(tmp_path) not in json.dumps(lines)


def test_the_same_seed_draws_the_same_and_more_of_it_those_and_others(project, file, tmp_path):
    few = mixed(export(project, tmp_path / "few", f"{file}:10"))
    again = mixed(export(project, tmp_path / "again", f"{file}:10"))
    many = mixed(export(project, tmp_path / "many", f"{file}:50"))
    other = mixed(export(project, tmp_path / "other", f"{file}:10", mix_seed=1))
    assert few == again
    assert few.keys() < many.keys()
    assert few.keys() != other.keys()
    assert manifest(tmp_path / "few")["digest"] == manifest(tmp_path / "again")["digest"]


@pytest.mark.parametrize(("weight", "count"), [("0.5", 2), ("2.0", 6), ("100.0", 100), ("0.1", 0)])
def test_a_weight_goes_by_the_exports_own(project, file, tmp_path, weight, count):
    assert len(mixed(export(project, tmp_path / "out", f"{file}:{weight}"))) == count


def test_where_a_weight_comes_to_none_it_is_said(project, file, tmp_path, caplog):
    assert not mixed(export(project, tmp_path / "out", f"{file}:0.1"))
    assert "Nothing of seed.jsonl is mixed in: 0.1 of 3 conversations is none." in caplog.text


def test_where_there_are_fewer_all_come_and_it_is_said(project, file, tmp_path, caplog):
    assert len(mixed(export(project, tmp_path / "out", f"{file}:5000"))) == 100
    assert "seed.jsonl has 100 conversations to mix in; 5000 were wanted." in caplog.text


def test_the_draw_is_even(project, file, tmp_path):
    """Over many seeds every row comes about as often as any other."""
    wanted = filters.parse("demonstrations", {"mix": [f"{file}:10"]})
    drawn = Counter()
    for seed in range(60):
        drawn.update(line["source_id"] for (line,) in mixing.drawn(project, replace(wanted, mix_seed=seed), 3))
    assert drawn.total() == 600
    assert len(drawn) > 90
    assert max(drawn.values()) < 20


def test_turns_of_every_format(project, file, tmp_path):
    lines = export(project, tmp_path / "pairs", f"{file}:5", format="prompt_completion")
    assert len(mixed(lines)) == 5
    assert all(line["completion"][0]["role"] == "assistant" for line in lines)
    plain = export(project, tmp_path / "plain", f"{file}:5", format="openai_sft")
    assert len(plain) == 8


def test_openings_join_the_families_of_the_project(project, tmp_path):
    opening = "How would you explain to a child why the sky is blue at noon and red in the evening?"
    (family,) = families.join(project=project, texts=[opening])
    path = written(tmp_path / "near.jsonl", [{"prompt": f"{opening} Please.", "completion": "Light is scattered."}])
    (line,) = mixed(export(project, tmp_path / "out", f"{path}:1")).values()
    assert line["family"] == family


def test_what_is_near_to_two_splits_is_out_before_the_draw(project, file, tmp_path):
    FamilyMember.objects.bulk_create(
        FamilyMember(project=project, member=derive.family_of(row(number)["instruction"]), family=f"-{number:063}")
        for number in range(60)
    )
    for count in (10, 40, 60):
        drawn = mixed(export(project, tmp_path / str(count), f"{file}:{count}"))
        assert len(drawn) == min(count, 40)
        assert all(int(name.removeprefix("row-")) >= 60 for name in drawn)
    assert manifest(tmp_path / "10")["counts"]["left_out"]["held_out"] == 0


def test_of_one_split_as_many_are_drawn(project, tmp_path):
    path = written(tmp_path / "seed.jsonl", [row(number) for number in range(1000)])
    lines = export(project, tmp_path / "out", f"{path}:20", split="train")
    drawn = mixed(lines)
    assert (len(drawn), {line["split"] for line in lines}) == (20, {"train"})


def node(name: str, role: str, *replies: dict) -> dict:
    return {"message_id": name, "text": f"Says {name}", "role": role, "replies": list(replies)}


def test_a_conversation_that_ends_with_the_user_is_cut_and_one_without_an_answer_left_out(project, tmp_path):
    asked = node("a", "prompter", node("b", "assistant", node("c", "prompter")), node("d", "assistant"))
    trees = [
        {"message_tree_id": tree["message_id"], "tree_state": "ready_for_export", "prompt": tree}
        for tree in (asked, node("alone", "prompter"))
    ]
    path = written(tmp_path / "trees.jsonl", trees)
    lines = [line for line in export(project, tmp_path / "out", f"{path}:9") if line["source"] == "trees.jsonl"]
    said = [[message["content"] for message in line["messages"]] for line in lines]
    assert sorted(said) == [[project.system_message, "Says a", f"Says {answer}"] for answer in "bd"]


def test_several_sets(project, file, tmp_path):
    other = written(
        tmp_path / "other.jsonl", [{"prompt": f"Other {number}?", "completion": "Yes."} for number in range(9)]
    )
    lines = export(project, tmp_path / "out", f"{file}:5", f"{other}:1.0")
    assert Counter(line["source"] for line in lines) == {"demonstrations": 3, "seed.jsonl": 5, "other.jsonl": 3}
    assert [parent["name"] for parent in manifest(tmp_path / "out")["parents"]] == ["seed.jsonl", "other.jsonl"]


# --- Exports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.zst", "parquet"])
def test_an_export_of_the_project_keeps_its_families_and_splits(project, tmp_path, kind):
    kept = {}
    for piece in [factory.finished_piece(project) for _ in range(8)]:
        kept[piece.pk] = piece.family
    everything = snapshots.export(
        "demonstrations",
        project=project,
        format="messages",
        filters=filters.parse("demonstrations", {}),
        files=Files(kind=kind),
    )
    # What is wanted now is something else, or all would be there already.
    wanted = filters.parse("demonstrations", {"mix": [f"export:{everything.pk}:100"]})
    factory.current(project)
    none = replace(wanted, review_states=frozenset({"returned"}))
    drawn = [line for (line,) in mixing.drawn(project, none, 1)]
    assert len(drawn) == 11
    assert {line["source"] for line in drawn} == {f"export:{everything.digest[:12]}"}
    assert kept.items() <= {line["conversation_id"]: line["family"] for line in drawn}.items()
    assert all(line["split"] == derive.split_of(project.secret, line["family"]) for line in drawn)
    assert all(turn["position"] == place for line in drawn for place, turn in enumerate(line["turns"]))
    (parent,) = mixing.parents(project, none)
    assert parent == {
        "kind": "export",
        "name": "demonstrations messages",
        "export": everything.pk,
        "digest": everything.digest,
        "conversations": 11,
    }
    # None comes twice.
    assert list(mixing.drawn(project, wanted, 1)) == []


def test_an_export_of_another_project_is_split_anew(project, tmp_path):
    other = factory.project(review_share=0)
    for _ in range(5):
        factory.finished_piece(other)
    export(other, tmp_path / "other")
    made = Export.objects.get(project=other)
    lines = mixed(export(project, tmp_path / "out", f"export:{made.digest[:8]}:5"))
    lines = [
        line for line in export(project, tmp_path / "again", f"export:{made.pk}:5") if line["project"] == other.slug
    ]
    assert len(lines) == 5
    assert all(line["split"] == derive.split_of(project.secret, line["family"]) for line in lines)
    assert all(line["iteration"] is None and line["source_split"] for line in lines)
    export_row = Export.objects.filter(project=project).latest("id")
    assert list(export_row.parents.all()) == [made]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.jsonl:5", "cannot be read: No such file"),
        (".:5", "is no file"),
        ("-:5", "cannot be read: No such file"),
    ],
)
def test_files_that_are_not_there(project, tmp_path, name, says):
    refused(project, tmp_path, name, says)


def refused(project, tmp_path, name: str, says: str, error=Invalid) -> None:
    before = Export.objects.count()
    with pytest.raises(error, match=says):
        export(project, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()
    assert Export.objects.count() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"prompt": "One"}\n{"prompt": "Two"}\n', "holds openings without answers"),
        ('{"prompt": "One", "completion": "Yes"}\n{"prompt": "Two", "completion": 5}\n', "bad.jsonl .*line 2: "),
        ('{"prompt": "One", "completion": "Yes"}\n{"prompt"\n', "bad.jsonl .*line 2: "),
        ('{"a": 1}\n', "bad.jsonl is in none of the formats"),
        ("", "bad.jsonl is empty"),
    ],
)
def test_files_that_cannot_be_mixed_in(project, tmp_path, content, says):
    (tmp_path / "bad.jsonl").write_text(content)
    refused(project, tmp_path, f"{tmp_path / 'bad.jsonl'}:5", says)


def test_a_file_that_changes_meanwhile(project, file):
    source = mixing._opened(filters.mix(f"{file}:5"), project)
    assert len(list(source.talks())) == 100
    with file.open("a") as more:
        more.write(json.dumps(row(100)) + "\n")
    with pytest.raises(Invalid, match="was changed while it was read"):
        list(source.talks())


def test_a_file_that_changes_before_it_goes_on(project, file, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK", 1)
    monkeypatch.setattr(writing, "KEEP_SECONDS", 0)

    def stop(step: str, done: int, total: int | None) -> None:
        if step == snapshots.MIXING and done == 5:
            raise KeyboardInterrupt

    wanted = filters.parse("demonstrations", {"mix": [f"{file}:20"]})
    asked = {"project": project, "format": "messages", "filters": wanted}
    with pytest.raises(KeyboardInterrupt):
        snapshots.export("demonstrations", **asked, progress=stop)
    cut, before = Export.objects.get(), file.read_text()
    written(file, [row(number) for number in range(100, 200)])
    with pytest.raises(Invalid, match="What is mixed in was changed since the export began to"):
        snapshots.go_on(cut)
    # As it was, but touched.
    file.write_text(before)
    cut.refresh_from_db()
    assert snapshots.go_on(cut).digest == snapshots.export("demonstrations", **asked).digest


def test_what_is_in_two_sets_comes_once(project, tmp_path):
    factory.finished_chat(project)
    few = snapshots.export("conversations", project=project, format="messages", filters=filters.Conversations())
    factory.finished_chat(project)
    more = snapshots.export("conversations", project=project, format="messages", filters=filters.Conversations())
    lines = export(project, tmp_path / "out", f"export:{few.pk}:9", f"export:{more.pk}:9")
    ids = [line["conversation_id"] for line in lines]
    assert len(ids) == len(set(ids)) == 5


def test_files_that_could_not_be_told_apart(project, file, tmp_path):
    (tmp_path / "more").mkdir()
    other = written(tmp_path / "more" / file.name, [row(1)])
    for names in ([f"{file}:1", f"{other}:1"], ["elsewhere/demonstrations:1"]):
        with pytest.raises(Invalid, match="could not be told from another set on its lines; rename the file"):
            filters.parse("demonstrations", {"mix": names})


def test_exports_that_cannot_be_mixed_in(project, tmp_path):
    refused(project, tmp_path, "export:999999:5", "There is no export 999999", NotFound)
    export(project, tmp_path / "pairs", format="prompt_completion")
    made = Export.objects.get()
    refused(project, tmp_path, f"export:{made.pk}:5", "as prompt_completion; what can be mixed in are demonstrations")
    waits = Export.objects.create(project=project, what="demonstrations", format="messages")
    refused(project, tmp_path, f"export:{waits.pk}:5", "is waiting; only one that is done")


def test_the_real_instructions(project, tmp_path):
    """Those of Self-Instruct, all of which come in."""
    folder = os.environ.get("BOTHSIDES_TEST_DATA")
    path = folder and Path(folder) / "instructions_seed.jsonl"
    if not path or not path.exists():
        pytest.skip("BOTHSIDES_TEST_DATA names no folder with instructions_seed.jsonl")
    lines = export(project, tmp_path / "out", f"{path}:1000")
    assert len(lines) - 3 >= len(path.read_text().splitlines())
    assert {line["source"] for line in lines} == {"demonstrations", "instructions_seed.jsonl"}


def test_it_can_be_gone_on_with(project, file, tmp_path):
    """What is made again is the same, so that what was written of it is passed over."""
    wanted = filters.parse("demonstrations", {"mix": [f"{file}:30"]})
    once = [line for (line,) in mixing.drawn(project, wanted, 3)]
    again = [line for (line,) in mixing.drawn(project, wanted, 3)]
    assert once == again


def test_many_conversations_are_no_more_queries(project, file, django_assert_max_num_queries):
    wanted = filters.parse("demonstrations", {"mix": [f"{file}:100"]})
    list(mixing.drawn(project, wanted, 3))
    with django_assert_max_num_queries(3):
        list(mixing.drawn(project, wanted, 3))
