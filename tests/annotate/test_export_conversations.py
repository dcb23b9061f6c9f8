"""`export conversations`: every finished one by itself, or those that begin alike as trees in OASST's shape."""

import contextlib
import json
import os
import uuid
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
from django.core.management import CommandError, call_command

from annotate import conversations, derive
from annotate.datasets import filters, shapes, snapshots, trees
from annotate.datasets.check import check
from annotate.datasets.tallies import nodes
from annotate.models import TurnShape
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("folders")]

DATA = os.environ.get("BOTHSIDES_TEST_DATA")


@pytest.fixture
def project():
    return factory.project(slug="demo", review_share=0, overlap=1)


def export(project, out: Path, *arguments: str, format: str = "messages") -> list[dict]:
    """The lines that the command writes, of which the checker finds nothing wrong."""
    where = ["--project", project.slug, "--format", format, "--out", str(out)]
    call_command("export", "conversations", *where, *arguments, stdout=StringIO())
    assert check(out).problems == []
    return [json.loads(line) for file in sorted(out.glob("*.jsonl")) for line in file.read_text().splitlines()]


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        call_command("export", "conversations", "--project", "demo", *arguments)
    assert refusal.value.returncode == 2
    return str(refusal.value)


def imported(project, tmp_path: Path, *rows: dict, format: str = "auto", arguments: tuple = ()) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    call_command(
        "import_conversations", str(file), "--format", format, "--project", project.slug, *arguments, stdout=StringIO()
    )


def node(pk: str, text: str, role: str, *replies: dict, **facts) -> dict:
    for reply in replies:
        reply["parent_id"] = pk
    return {"message_id": pk, "text": text, "role": role, "replies": list(replies)} | facts


def tree(**root) -> dict:
    """Two answers, the first with three ranked answers to a further question; all fields that OASST's exporter has."""
    further = node(
        "m4", "And a soft one?", "prompter",
        node("m5", "Four.", "assistant", rank=1, lang="en", labels={"toxicity": {"value": 0.25, "count": 3}}),
        node("m6", "Five minutes.", "assistant", rank=0, emojis={"+1": 2}, model_name="gpt", synthetic=True),
        node("m7", "No.", "assistant", rank=2, detoxify={"toxicity": 0.000125, "threat": 1e-05}),
        review_count=3, review_result=True,
    )  # fmt: skip
    answers = [
        node("m3", "Eight minutes.", "assistant", further, rank=0, user_id="u-1", created_date="2023-02-05T14:23:50Z"),
        node("m2", "Boil it.", "assistant", rank=1, deleted=False, events={"rating": [{"type": "rating"}]}),
    ]
    prompt = node("m1", "How do I boil an egg?", "prompter", *answers, lang="en")
    return {"message_tree_id": "m1", "tree_state": "ready_for_export", "origin": "here", "prompt": prompt} | root


class TestMessages:
    def test_every_kind_is_there_with_what_is_known(self, project, tmp_path):
        chat = factory.finished_chat(project)
        piece = factory.finished_piece(project)
        imported(project, tmp_path, {
            "id": "row-7", "split": "dev", "category": "cooking",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
        })  # fmt: skip
        found = {line["kind"]: line for line in export(project, tmp_path / "out")}
        assert set(found) == {"chat", "write", "imported"}
        assert [found[kind]["conversation_id"] for kind in ("chat", "write")] == [chat.pk, piece.pk]
        assert {line["source"] for line in found.values()} == {"conversations"}
        line = found["imported"]
        assert list(shapes.misfits(line, shapes.SHAPES["messages"])) == []
        assert (line["trainer"], line["iteration"], line["guidelines"]) == (None, None, None)
        assert (line["source_id"], line["source_split"], line["use_case"]) == ("row-7", "dev", "cooking")
        assert [turn["source"] for turn in line["turns"]] == ["imported"] * 3
        assert [message["content"] for message in line["messages"]] == [project.system_message, "Hi", "Hello."]
        assert found["chat"]["turns"][2]["source"] == "reply"
        counts = manifest(tmp_path / "out")["counts"]
        assert (counts["conversations"], counts["by_kind"]) == (3, {"chat": 1, "imported": 1, "write": 1})

    def test_kinds_days_and_people(self, project, tmp_path):
        user = factory.trainer(project)
        chat = factory.finished_chat(project, user)
        piece = factory.finished_piece(project)
        lines = export(project, tmp_path / "kinds", "--kinds", "write")
        assert [line["conversation_id"] for line in lines] == [piece.pk]
        lines = export(project, tmp_path / "people", "--without", derive.pseudonym(project.secret, user.pk))
        assert [line["conversation_id"] for line in lines] == [piece.pk]
        assert refused("--format", "messages", "--since", "2999-01-01").startswith("There is nothing to export")
        assert chat.pk

    def test_unfinished_ones_and_other_projects_are_left_out(self, project, tmp_path):
        factory.held_chat(project, factory.trainer(project))
        factory.finished_chat(factory.project())
        assert refused("--format", "messages") == "There is nothing to export: no finished conversation matches."
        assert "of kind imported matches" in refused("--format", "messages", "--kinds", "imported")

    def test_one_that_ends_with_the_user(self, project, tmp_path):
        imported(project, tmp_path, tree(prompt=node("m1", "Is anybody there?", "prompter")), format="oasst")
        (line,) = export(project, tmp_path / "out")
        assert line["messages"][-1]["role"] == "user"


class TestTrees:
    @pytest.mark.parametrize("system", ["project", "none"])
    def test_a_file_of_trees_comes_out_as_it_went_in(self, project, tmp_path, system):
        other = tree(message_tree_id="n1", prompt=node("n1", "Who are you?", "prompter"))
        del other["origin"]
        imported(project, tmp_path, tree(), other, format="oasst", arguments=("--system", system))
        lines = export(project, tmp_path / "out", format="oasst")
        assert {line["message_tree_id"]: line for line in lines} == {"m1": tree(), "n1": other}
        counts = manifest(tmp_path / "out")["counts"]
        assert (counts["trees"], counts["conversations"], counts["messages"], counts["ranked"]) == (2, 5, 8, 5)
        assert counts["by_kind"] == {"imported": 5}

    def test_it_comes_in_again_as_it_came_out(self, project, tmp_path):
        imported(project, tmp_path, tree(), format="oasst")
        lines = export(project, tmp_path / "out", format="oasst")
        again = factory.project(slug="again")
        imported(again, tmp_path, *lines)
        assert export(again, tmp_path / "again", format="oasst") == lines

    @pytest.mark.skipif(not DATA, reason="BOTHSIDES_TEST_DATA names no folder with oasst_trees_en.jsonl")
    def test_real_trees(self, project, tmp_path):
        file = Path(DATA) / "oasst_trees_en.jsonl"
        call_command("import_conversations", str(file), "--project", "demo", stdout=StringIO())
        lines = []
        for split in shapes.SPLITS:
            # There may be none of it.
            with contextlib.suppress(CommandError):
                lines += export(project, tmp_path / split, "--split", split, format="oasst")
        wanted = [json.loads(line) for line in file.read_text().splitlines()]
        for one in wanted:
            _strip(one["prompt"])
        found = {line["message_tree_id"]: line for line in lines}
        assert len(found) == len(wanted)
        for one in wanted:
            assert found[one["message_tree_id"]] == one

    def test_files_that_use_the_same_names_lose_nothing(self, project, tmp_path):
        def numbered(name: str, opening: str, *answers: str) -> dict:
            replies = [node(str(number), text, "assistant", rank=number - 2) for number, text in enumerate(answers, 2)]
            rows = {"message_tree_id": "1", "prompt": node("1", opening, "prompter", *replies)}
            (tmp_path / name).mkdir()
            file = tmp_path / name / f"{name}.jsonl"
            file.write_text(json.dumps(rows) + "\n")
            call_command("import_conversations", str(file), "--project", "demo", stdout=StringIO())
            return rows

        first = numbered("one", "How do I boil an egg?", "Gently.", "Not at all.")
        numbered("two", "Where do the swallows go in winter?", "South.", "Nowhere.")
        numbered("three", "How do I boil an egg?", "In water.", "Not at all.", "With care.")
        lines = {}
        for split in ("train", "validation", "test"):
            with contextlib.suppress(CommandError):
                for line in export(project, tmp_path / split, "--split", split, format="oasst"):
                    lines[line["prompt"]["text"]] = line
        replies = {
            opening: {reply["text"]: reply.get("rank") for reply in line["prompt"]["replies"]}
            for opening, line in lines.items()
        }
        # What both say is there once; what has another's name is not ranked among that one's neighbours.
        assert replies == {
            "How do I boil an egg?": {"Gently.": 0, "Not at all.": 1, "In water.": None, "With care.": 2},
            "Where do the swallows go in winter?": {"South.": 0, "Nowhere.": 1},
        }
        assert lines["How do I boil an egg?"]["message_tree_id"] == first["message_tree_id"]
        assert len({line["message_tree_id"] for line in lines.values()}) == 2

    def test_fields_that_readers_would_not_take_stay_behind(self, project, tmp_path):
        odd = {
            "lang": 7,
            "created_date": "yesterday",
            "emojis": [1],
            "labels": {"a": 1},
            "review_count": "3",
            "rank": -1,
        }
        rows = {"message_tree_id": "m1", "tree_state": 5, "origin": [], "more": 1}
        rows["prompt"] = node("m1", "Hi", "prompter", node("m2", "Hello.", "assistant", **odd, deleted="no", note=[1]))
        imported(project, tmp_path, rows, format="oasst")
        (line,) = export(project, tmp_path / "out", format="oasst")
        assert (line["tree_state"], line.get("origin"), line["more"]) == ("ready_for_export", None, 1)
        (reply,) = line["prompt"]["replies"]
        assert reply == node("m2", "Hello.", "assistant", parent_id="m1", note=[1])

    def test_chats_that_begin_alike_are_one_tree(self, project, tmp_path):
        comparison = factory.comparison_about(project, "Hello", None, "b", "c", "d", reply="a")
        factory.ranking(comparison, "B A=D C")
        user = factory.trainer(project)
        slot = factory.held_chat(project, user)
        factory.turn(slot, "Hello", "a")
        factory.turn(slot, "More", "e")
        conversations.finish(assignment=slot, user=user)
        (line,) = export(project, tmp_path / "out", format="oasst")
        root = line["prompt"]
        ranks = {reply["text"]: reply.get("rank") for reply in root["replies"]}
        assert ranks == {"a": 1, "b": 0, "c": 2, "d": 1}
        a = next(reply for reply in root["replies"] if reply["text"] == "a")
        assert [reply["text"] for reply in a["replies"]] == ["More"]
        assert [reply["text"] for reply in a["replies"][0]["replies"]] == ["e"]
        assert a["parent_id"] == root["message_id"]
        assert (a["synthetic"], a["model_name"]) == (True, project.policies.get().name)
        # Of the first of the two, and the same in every export.
        author = comparison.message.conversation.trainer_id
        pseudonym = derive.pseudonym(project.secret, author)
        assert root["user_id"].replace("-", "")[:12] == pseudonym[:12]
        assert uuid.UUID(root["message_id"]).version == 5
        assert "user_id" not in a
        assert export(project, tmp_path / "again", format="oasst") == [line]
        assert manifest(tmp_path / "out")["policies"][0]["name"] == project.policies.get().name

    def test_an_original_that_was_no_candidate_has_no_rank_unless_one_says_the_same(self, tmp_path):
        project = factory.project(slug="demo", overlap=1, k=2, keeps_original=False)
        first = factory.comparison_about(project, "Hello", None, "b", "c", reply="a")
        second = factory.comparison_about(project, "Good day", None, "a", "b", reply="a")
        for comparison in (first, second):
            factory.ranking(comparison, "B A")
        told = {
            line["prompt"]["text"]: line["prompt"]["replies"]
            for line in export(project, tmp_path / "out", format="oasst")
        }
        assert {reply["text"]: reply.get("rank") for reply in told["Hello"]} == {"a": None, "b": 1, "c": 0}
        assert [(reply["text"], reply["rank"]) for reply in told["Good day"]] == [("a", 1), ("b", 0)]

    def test_ranks_are_those_of_the_consensus_without_people_that_are_left_out(self, tmp_path):
        project = factory.project(slug="demo", overlap=2, k=3)
        comparison = factory.comparison_about(project, "Hello", None, "b", "c", reply="a")
        one, other = factory.trainer(project), factory.trainer(project)
        factory.ranking(comparison, "A B C", one)
        factory.ranking(comparison, "C B A", other)

        def ranks(name: str, *arguments: str) -> dict:
            (line,) = export(project, tmp_path / name, *arguments, format="oasst")
            return {reply["text"]: reply.get("rank") for reply in line["prompt"]["replies"]}

        assert ranks("all") == {"a": 0, "b": 0, "c": 0}
        assert ranks("one", "--without", derive.pseudonym(project.secret, other.pk)) == {"a": 0, "b": 1, "c": 2}

    def test_a_policy_that_comes_while_it_is_written(self, tmp_path):
        project = factory.project(slug="demo", overlap=1, k=3)
        comparison = factory.comparison_about(project, "Hello", None, "b", "c", reply="a")
        factory.ranking(comparison, "A B C")
        later: list[str] = []

        def come(step: str, done: int, total: int | None) -> None:
            if step == snapshots.WRITING and not later:
                policy = factory.policy()
                comparison.requests.update(policy=policy)
                later.append(policy.name)

        wanted = {"project": project, "format": "oasst", "filters": filters.Conversations()}
        snapshots.export("conversations", **wanted, progress=come, out=tmp_path / "out")
        (file,) = (tmp_path / "out").glob("*.jsonl")
        names = {reply["model_name"] for reply in json.loads(file.read_text())["prompt"]["replies"]}
        assert names == {project.policies.get().name, *later}

    def test_pairs_that_were_imported(self, project, tmp_path):
        hh = {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Go away.",
        }
        imported(project, tmp_path, hh, format="hh")
        (line,) = export(project, tmp_path / "out", format="oasst")
        assert {reply["text"]: reply["rank"] for reply in line["prompt"]["replies"]} == {"Hello.": 0, "Go away.": 1}
        assert "created_date" not in line["prompt"]

    def test_what_a_tree_cannot_hold_is_left_out_and_counted(self, project, tmp_path, monkeypatch):
        monkeypatch.setattr(trees, "TURNS", 3)
        factory.finished_chat(project, turns=2)
        project.turn_shape = TurnShape.FREE
        project.save()
        said = [factory.written_turn(role, role) for role in ("user", "assistant", "assistant")]
        factory.finished_piece(project, None, *said)
        assert "Left out: not alternating 1, too long 1." in refused("--format", "oasst")
        factory.finished_chat(project)
        assert len(export(project, tmp_path / "out", format="oasst")) == 1
        counts = manifest(tmp_path / "out")["counts"]
        assert counts["left_out"] == {"not_alternating": 1, "too_long": 1, "held_out": 0}

    def test_the_longest_one_can_be_written_and_read(self, project, tmp_path):
        said = [{"role": ("user", "assistant")[number % 2], "content": f"t{number}"} for number in range(trees.TURNS)]
        imported(project, tmp_path, {"messages": said}, format="messages")
        (line,) = export(project, tmp_path / "out", format="oasst")
        assert sum(1 for _ in nodes(line)) == trees.TURNS

    def test_it_is_no_table(self, project, tmp_path):
        factory.finished_chat(project)
        says = "oasst cannot be written as parquet: a tree has no columns. Choose jsonl."
        assert refused("--format", "oasst", "--files", "parquet") == says
        export(project, tmp_path / "out", format="oasst")
        assert "features" not in (tmp_path / "out" / "README.md").read_text()

    def test_its_schema_describes_it(self, project, tmp_path):
        imported(project, tmp_path, tree(), format="oasst")
        (line,) = export(project, tmp_path / "out", format="oasst")
        schema = json.loads((tmp_path / "out" / "schema.json").read_text())
        jsonschema.validate(line, schema)
        line["prompt"]["replies"][0]["replies"][0]["role"] = 7
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(line, schema)


def _strip(one: dict) -> None:
    for each in nodes({"prompt": one}):
        each["text"] = each["text"].strip()


def test_queries_do_not_grow_with_conversations(project, tmp_path, django_assert_max_num_queries):
    for _ in range(5):
        factory.finished_chat(project)
    with django_assert_max_num_queries(45):
        snapshots.export("conversations", project=project, format="oasst", filters=filters.Conversations())


def test_nobody_is_named(project, tmp_path):
    author = factory.person(project, email="author@example.org", name="Ann Author")
    factory.finished_chat(project, author)
    for format in shapes.FORMATS["conversations"]:
        export(project, tmp_path / format, format=format)
        for path in (tmp_path / format).iterdir():
            content = path.read_text()
            assert [word for word in (project.secret, "example.org", "Ann") if word in content] == []
