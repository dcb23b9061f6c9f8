"""`export demonstrations`: the lines with all that is known of every turn, and which conversations count."""

import json
import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotate import assignments, demonstrations, derive
from annotate.datasets import demonstration_formats, filters, shapes, snapshots, writing
from annotate.datasets.check import check
from annotate.errors import Conflict
from annotate.models import Completion, Conversation, Export, TurnShape
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.usefixtures("folders")]

FORMATS = list(demonstration_formats.FORMATS)
EXAMPLES = Path(__file__).parent / "export_examples"


@pytest.fixture
def project():
    """A project in which nothing is drawn for review."""
    return factory.project(slug="demo", review_share=0)


def export(project, out: Path, *arguments: str, format: str = "messages") -> str:
    said = StringIO()
    where = ["--project", project.slug, "--format", format, "--out", str(out)]
    call_command("export", "demonstrations", *where, *arguments, stdout=said)
    report = check(out)
    assert report.problems == []
    return said.getvalue()


def lines(out: Path) -> list[dict]:
    files = sorted(out.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def exported(project, out: Path, *arguments: str) -> set[int]:
    export(project, out, *arguments)
    return {line["conversation_id"] for line in lines(out)}


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        call_command("export", *arguments)
    message = str(refusal.value)
    assert refusal.value.returncode == 2
    assert "\n" not in message
    assert not Export.objects.exists()
    return message


def rich(project, user=None) -> Conversation:
    """Four turns: written, edited with a hint and one passed, taken, written with one passed."""
    slot = factory.held_piece(project, user)
    first = factory.suggested(slot, "Boil it.", "Eight minutes.", hint="shorter")
    second = factory.suggested(slot, "And a soft one?", role="user")
    third = factory.suggested(slot, "I do not know.")
    turns = [
        factory.written_turn("user", "How do I boil an egg?", seconds=9, typed=20, pasted=1),
        factory.written_turn(
            "assistant",
            "Eight long minutes.",
            **{"from": [first.pk, 1]},
            shown=[[first.pk, 0], [first.pk, 1]],
            taken=14,
        ),
        factory.written_turn("user", "And a soft one?", **{"from": [second.pk, 0]}, shown=[[second.pk, 0]], taken=15),
        factory.written_turn("assistant", "Five minutes.", shown=[[third.pk, 0]]),
    ]
    return factory.finished_piece(project, None, *turns, slot=slot)


def test_a_line_of_messages_holds_everything(project, tmp_path):
    user = factory.trainer(project)
    conversation = rich(project, user)
    export(project, tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert list(shapes.misfits(line, shapes.SHAPES["messages"])) == []
    messages, turns = line.pop("messages"), line.pop("turns")
    assert messages == [
        {"role": "system", "content": project.system_message},
        {"role": "user", "content": "How do I boil an egg?"},
        {"role": "assistant", "content": "Eight long minutes."},
        {"role": "user", "content": "And a soft one?"},
        {"role": "assistant", "content": "Five minutes."},
    ]
    assert line == {
        "source": "demonstrations",
        "source_id": "",
        "source_split": "",
        "kind": "write",
        "conversation_id": conversation.pk,
        "project": "demo",
        "iteration": 1,
        "guidelines": 1,
        "trainer": derive.pseudonym(project.secret, user.pk),
        "alternates": True,
        "review_state": "none",
        "reviewer": None,
        "review_id": None,
        "revises": None,
        "forked_from": None,
        "prompt_id": None,
        "use_case": "",
        "family": derive.family_of("How do I boil an egg?"),
        "split": derive.split_of(project.secret, conversation.family),
        "finished_at": conversation.finished_at.astimezone(UTC).isoformat(),
    }
    assert [turn["source"] for turn in turns] == ["written", "written", "edited", "taken", "written"]
    assert [turn["position"] for turn in turns] == [0, 1, 2, 3, 4]
    ids = {completion.text: completion.pk for completion in Completion.objects.all()}
    nothing = dict.fromkeys(
        ("policy", "completion_id", "seed", "sampling", "template_hash", "finish_reason", "suggestion", "hint")
    )
    assert turns[1] == nothing | {
        "position": 1,
        "source": "written",
        "edit_distance": None,
        "active_seconds": 9,
        "typed": 20,
        "pasted": 1,
        "taken": 0,
        "passed": [],
    }
    assert turns[2] == {
        "position": 2,
        "source": "edited",
        "policy": project.policies.get().name,
        "completion_id": ids["Eight minutes."],
        "seed": None,
        "sampling": project.sampling(),
        "template_hash": "0" * 64,
        "finish_reason": "stop",
        "suggestion": "Eight minutes.",
        "hint": "shorter",
        "edit_distance": pytest.approx(5 / 19),
        "active_seconds": 5,
        "typed": 5,
        "pasted": 0,
        "taken": 14,
        "passed": [{"completion_id": ids["Boil it."], "text": "Boil it."}],
    }
    assert (turns[3]["source"], turns[3]["edit_distance"], turns[3]["hint"]) == ("taken", 0, "")
    assert turns[4]["passed"] == [{"completion_id": ids["I do not know."], "text": "I do not know."}]


def test_a_turn_of_the_assistant_is_a_row_of_prompt_and_completion(project, tmp_path):
    rich(project)
    export(project, tmp_path / "whole")
    export(project, tmp_path / "turns", format="prompt_completion")
    (whole,) = lines(tmp_path / "whole")
    rows = lines(tmp_path / "turns")
    assert [len(row["prompt"]) for row in rows] == [2, 4]
    for row in rows:
        assert list(shapes.misfits(row, shapes.SHAPES["prompt_completion"])) == []
        position = row["turn"]["position"]
        assert row["prompt"] == whole["messages"][:position]
        assert row["completion"] == [whole["messages"][position]]
        assert row["turn"] == whole["turns"][position]
        assert {name: row[name] for name in shapes.WRITTEN} == {name: whole[name] for name in shapes.WRITTEN}


def test_only_turns_of_chosen_sources(project, tmp_path):
    mixed = rich(project)
    plain = factory.finished_piece(project)
    export(project, tmp_path / "edited", "--sources", "edited", format="prompt_completion")
    assert [(row["conversation_id"], row["turn"]["position"]) for row in lines(tmp_path / "edited")] == [(mixed.pk, 2)]
    assert manifest(tmp_path / "edited")["counts"]["left_out"]["other_sources"] == 1
    export(project, tmp_path / "two", "--sources", "written", "edited", format="prompt_completion")
    assert len(lines(tmp_path / "two")) == 3
    # Of a whole conversation all turns of the assistant are.
    assert exported(project, tmp_path / "whole", "--sources", "written") == {plain.pk}
    assert exported(project, tmp_path / "both", "--sources", "written", "edited") == {plain.pk, mixed.pk}


def test_what_is_imported_and_what_it_began_as(project, tmp_path):
    prompt = project.prompts.create(text="Say hello", digest="d", family="f", use_case="chat")
    slot = factory.held_piece(project)
    opening = factory.written_turn("user", "Say hello", opening=True, taken=9)
    factory.finished_piece(project, None, opening, factory.written_turn("assistant", "Hello."), slot=slot)
    export(project, tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert (line["prompt_id"], line["use_case"], line["family"]) == (prompt.pk, "chat", "f")
    assert (line["turns"][1]["source"], line["turns"][1]["edit_distance"]) == ("imported", 0)


def test_other_shapes_say_so(project, tmp_path):
    project.turn_shape = TurnShape.FREE
    project.save()
    words = [("user", "One."), ("user", "Two."), ("assistant", "Three."), ("assistant", "Four.")]
    factory.finished_piece(project, None, *(factory.written_turn(*word) for word in words))
    export(project, tmp_path / "out")
    assert [line["alternates"] for line in lines(tmp_path / "out")] == [False]
    export(project, tmp_path / "rows", format="prompt_completion")
    assert len(lines(tmp_path / "rows")) == 2


class TestWhatCounts:
    @pytest.fixture(scope="class")
    @classmethod
    def one_of_each(cls, class_rows) -> dict[str, Conversation]:
        project = factory.project(slug="demo", review_share=1)
        found = {name: factory.finished_piece(project) for name in ("wanted", "approved", "returned", "bettered")}
        factory.review_of(found["approved"])
        factory.review_of(found["returned"], verdict="returned")
        review = factory.review_of(found["bettered"], edits={2: "Nine minutes."})
        found["edit"] = review.edit
        project.review_share = 0
        project.save()
        found["none"] = factory.finished_piece(project)
        late = factory.held_piece(project)
        version = factory.save(late, *(factory.written_turn(*turn) for turn in factory.TURNS))
        late.__class__.objects.filter(pk=late.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        assignments.expire()
        assignments.claim(user=factory.trainer(project), project=project, kinds=["write"])
        found["late"] = demonstrations.finish(assignment=late, user=late.trainer, version=version)
        return found

    @pytest.fixture
    def made(self, one_of_each) -> dict[str, Conversation]:
        """One conversation of each fate, by its name."""
        return {name: Conversation.objects.get(pk=made.pk) for name, made in one_of_each.items()}

    @pytest.mark.parametrize(
        ("arguments", "names"),
        [
            ([], "approved edit none"),
            (["--include", "unreviewed"], "approved edit none wanted"),
            (["--include", "returned"], "approved edit none returned"),
            (["--include", "surplus"], "approved edit none late"),
            (["--include", "superseded"], "approved edit none bettered"),
            (["--include", *filters.INCLUDE["demonstrations"]], "approved edit none wanted returned late bettered"),
            (["--review-state", "approved"], "approved edit"),
            (["--review-state", "approved", "wanted"], "approved edit wanted"),
            (["--review-state", "returned"], "returned"),
            (["--review-state", "none", "--include", "surplus"], "none late"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_by_review_and_fate(self, made, tmp_path, arguments, names):
        found = exported(made["none"].project, tmp_path / "out", *arguments)
        fates = {conversation.pk: name for name, conversation in made.items()}
        assert sorted(fates[pk] for pk in found) == sorted(names.split())

    def test_by_default_as_the_record_counts(self, made, tmp_path):
        project = made["none"].project
        for rule in (False, True):
            project.counts_before_review = rule
            project.save()
            counting = set(demonstrations.counting(project).values_list("pk", flat=True))
            assert exported(project, tmp_path / str(rule)) == counting
            assert (made["wanted"].pk in counting) is rule

    def test_what_was_left_out_is_counted_with_the_reason(self, made, tmp_path):
        said = export(made["none"].project, tmp_path / "out")
        counts = manifest(tmp_path / "out")["counts"]
        assert counts["left_out"] == {
            "superseded": 1,
            "surplus": 1,
            "returned": 1,
            "unreviewed": 1,
            "other_review_state": 0,
            "other_sources": 0,
            "held_out": 0,
        }
        assert counts["by_review_state"] == {"approved": 2, "none": 1}
        assert "left out: returned 1, superseded 1, surplus 1, unreviewed 1" in said

    def test_the_review_that_stands_is_named(self, made, tmp_path):
        project = made["none"].project
        export(project, tmp_path / "out", "--include", "returned")
        found = {line["conversation_id"]: line for line in lines(tmp_path / "out")}
        for name in ("approved", "returned"):
            review = made[name].reviews.get()
            line = found[made[name].pk]
            assert (line["review_state"], line["review_id"]) == (name, review.pk)
            assert line["reviewer"] == derive.pseudonym(project.secret, review.reviewer_id)
        # What a reviewer made has the review with which they made it.
        edit = found[made["edit"].pk]
        assert (edit["review_id"], edit["revises"]) == (made["bettered"].reviews.get().pk, made["bettered"].pk)
        assert edit["trainer"] == edit["reviewer"]
        assert found[made["none"].pk]["review_id"] is None

    def test_a_mended_piece_takes_the_place_of_the_returned_one(self, made, tmp_path):
        project, returned = made["none"].project, made["returned"]
        slot = assignments.claim(user=returned.trainer, project=project, kinds=["write"])
        assert slot.subject == returned
        mended = factory.finished_piece(project, slot=slot)
        factory.review_of(mended)
        export(project, tmp_path / "out", "--include", "returned")
        found = {line["conversation_id"]: line for line in lines(tmp_path / "out")}
        assert returned.pk not in found
        assert found[mended.pk]["revises"] == returned.pk
        assert found[mended.pk]["family"] == returned.family

    def test_nothing_that_counts_says_what_would(self):
        project = factory.project(slug="other", review_share=1)
        factory.finished_piece(project)
        message = refused("demonstrations", "--project", "other", "--format", "messages")
        assert message == (
            "There is nothing to export: no conversation matches. Left out: 1 unreviewed; --include unreviewed would "
            "add those."
        )
        message = refused("demonstrations", "--project", "other", "--format", "messages", "--review-state", "approved")
        assert message == "There is nothing to export: no conversation matches. Left out: 1 unreviewed."


def test_a_branch_names_what_it_came_from(project, tmp_path):
    slot = factory.held_piece(project)
    factory.save(slot, *(factory.written_turn(*turn) for turn in factory.TURNS))
    branch = demonstrations.branch(assignment=slot, user=slot.trainer, upto=0)
    slot.refresh_from_db()
    first = demonstrations.finish(assignment=slot, user=slot.trainer, version=slot.draft_version)
    second = factory.finished_piece(project, slot=factory.held(branch, slot.trainer))
    export(project, tmp_path / "out")
    found = {line["conversation_id"]: line["forked_from"] for line in lines(tmp_path / "out")}
    assert found == {first.pk: None, second.pk: first.pk}


def test_chats_unfinished_pieces_and_other_projects_are_left_out(project, tmp_path):
    kept = factory.finished_piece(project)
    factory.finished_chat(project)
    factory.held_piece(project)
    factory.finished_piece(factory.project(review_share=0))
    assert exported(project, tmp_path / "out") == {kept.pk}


def test_by_day_iteration_and_split(project, tmp_path):
    old, new = factory.finished_piece(project), factory.finished_piece(project)
    Conversation.objects.filter(pk=old.pk).update(finished_at=datetime(2026, 1, 30, 23, 59, tzinfo=UTC))
    Conversation.objects.filter(pk=new.pk).update(finished_at=datetime(2026, 1, 31, tzinfo=UTC))
    assert exported(project, tmp_path / "since", "--since", "2026-01-31") == {new.pk}
    assert exported(project, tmp_path / "one", "--iteration", "1") == {old.pk, new.pk}
    split = derive.split_of(project.secret, old.family)
    assert old.pk in exported(project, tmp_path / "split", "--split", split)
    assert [path.name for path in (tmp_path / "split").glob("*.jsonl")] == [f"{split}.jsonl"]


class TestMarks:
    def test_a_piece_in_an_export_is_not_revised_any_more(self, project, tmp_path):
        inside, outside = rich(project), factory.finished_piece(project)
        assert demonstrations.can_revise(conversation=inside, user=inside.trainer)
        export(project, tmp_path / "out", "--sources", "edited", format="prompt_completion")
        for conversation in (inside, outside):
            conversation.refresh_from_db()
        assert (inside.exported_at is not None, outside.exported_at) == (True, None)
        with pytest.raises(Conflict, match="part of an export"):
            demonstrations.revise(conversation=inside, user=inside.trainer)
        demonstrations.revise(conversation=outside, user=outside.trainer)

    def test_the_first_time_stays(self, project, tmp_path):
        conversation = factory.finished_piece(project)
        export(project, tmp_path / "one")
        conversation.refresh_from_db()
        first = conversation.exported_at
        export(project, tmp_path / "two")
        conversation.refresh_from_db()
        assert conversation.exported_at == first

    def test_an_export_that_fails_marks_nothing(self, project, tmp_path, monkeypatch):
        conversation = factory.finished_piece(project)

        def broken(**fields):
            raise RuntimeError("the database is gone")

        monkeypatch.setattr(Export.objects, "create", broken)
        with pytest.raises(RuntimeError):
            snapshots.export("demonstrations", project=project, format="messages", filters=filters.Demonstrations())
        conversation.refresh_from_db()
        assert conversation.exported_at is None
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_comparisons_mark_nothing(self, project, tmp_path):
        comparison = factory.comparison_about(project, "One")
        factory.ranking(comparison)
        where = ["--format", "ranked", "--out", str(tmp_path / "out")]
        call_command("export", "comparisons", *where, stdout=StringIO())
        assert not Conversation.objects.filter(exported_at__isnull=False).exists()


def test_the_manifest_counts_and_names_what_is_there(project, tmp_path):
    rich(project)
    factory.finished_piece(project)
    export(project, tmp_path / "out", "--include", "surplus")
    found = manifest(tmp_path / "out")
    counts = found["counts"]
    splits = counts.pop("by_split")
    assert sum(split["rows"] for split in splits.values()) == 2
    assert sum(split["conversations"] for split in splits.values()) == 2
    assert counts == {
        "rows": 2,
        "conversations": 2,
        "by_kind": {"write": 2},
        "by_set": {"demonstrations": 2},
        "by_source": {"edited": 1, "written": 2},
        "by_review_state": {"none": 2},
        "turns_by_source": {"assistant": {"edited": 1, "written": 2}, "user": {"taken": 1, "written": 2}},
        "left_out": dict.fromkeys(counts["left_out"], 0),
    }
    assert (found["what"], found["format"], "rank_order" in found) == ("demonstrations", "messages", False)
    assert [policy["name"] for policy in found["policies"]] == [project.policies.get().name]
    registered = Export.objects.get()
    assert registered.manifest == manifest(tmp_path / "out")
    assert registered.filters == filters.parse("demonstrations", {"include": ["surplus"]}).as_json()
    export(project, tmp_path / "rows", format="prompt_completion")
    counts = manifest(tmp_path / "rows")["counts"]
    assert counts["turns_by_source"] == {"assistant": counts["by_source"]} == {"assistant": {"edited": 1, "written": 2}}


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_query_writes_the_same_bytes(project, tmp_path, format):
    for _ in range(3):
        rich(project)
    export(project, tmp_path / "one", format=format)
    export(project, tmp_path / "two", format=format)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert first == second


@pytest.mark.parametrize("format", FORMATS)
def test_no_secret_and_no_person_is_in_it(tmp_path, format):
    project = factory.project(review_share=1)
    author = factory.person(project, email="author@example.org", name="Ann Author")
    reviewer = factory.person(project, role="reviewer", email="reviewer@example.org", name="Ray Reviewer")
    factory.review_of(factory.finished_piece(project, author), reviewer)
    export(project, tmp_path / "out", format=format)
    for path in (tmp_path / "out").iterdir():
        for word in (project.secret, "example.org", "Ann", "Ray"):
            assert word not in path.read_text()


def test_queries_grow_with_chunks_and_not_with_rows(project, tmp_path):
    rich(project)
    with CaptureQueriesContext(connection) as few:
        export(project, tmp_path / "few")
    for _ in range(3):
        rich(project)
    with CaptureQueriesContext(connection) as more:
        export(project, tmp_path / "more")
    assert len(more) == len(few)


def test_more_conversations_than_a_chunk(project, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK", 2)
    made = [rich(project).pk for _ in range(5)]
    export(project, tmp_path / "out")
    assert sorted(line["conversation_id"] for line in lines(tmp_path / "out")) == made
    assert all(line["turns"][3]["suggestion"] == "And a soft one?" for line in lines(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["demonstrations", "--format", "ranked"],
            "There is no format ranked of demonstrations. Formats: messages, prompt_completion, openai_sft.",
        ),
        (
            ["comparisons", "--format", "messages"],
            "There is no format messages of comparisons. Formats: ranked, preference, preference_implicit, unpaired, "
            "prompt_only, nemo_rl, hh, openai_dpo, llamafactory.",
        ),
        (
            ["comparisons", "--format", "ranked", "--sources", "written"],
            "--sources is for demonstrations; comparisons do not have it.",
        ),
        (
            ["comparisons", "--format", "ranked", "--review-state", "approved"],
            "--review-state is for demonstrations; comparisons do not have it.",
        ),
        (
            ["comparisons", "--format", "ranked", "--include", "superseded"],
            "--include superseded is not for comparisons, which know open, surplus.",
        ),
        (
            ["demonstrations", "--format", "messages", "--include", "surplus", "open"],
            "--include open is not for demonstrations, which know unreviewed, returned, surplus, superseded.",
        ),
        (
            ["demonstrations", "--format", "messages", "--review-state", "approved", "--include", "unreviewed"],
            "--review-state names all that is wanted; leave include unreviewed out.",
        ),
        (["demonstrations", "--format", "messages"], "There is nothing to export: no conversation matches."),
    ],
)
def test_options_that_do_not_fit_are_refused(project, arguments, says):
    assert refused(*arguments) == says


def test_a_split_or_source_without_a_row(project):
    conversation = factory.finished_piece(project)
    split = derive.split_of(project.secret, conversation.family)
    empty = "test" if split != "test" else "train"
    whole = ["demonstrations", "--format", "messages"]
    assert refused(*whole, "--split", empty).endswith(f"no conversation belongs to the split {empty}.")
    assert refused(*whole, "--sources", "taken", "edited").endswith(
        "in no conversation all turns of the assistant are edited or taken."
    )
    rows = ["demonstrations", "--format", "prompt_completion"]
    assert refused(*rows, "--sources", "taken").endswith("no turn of the assistant is taken.")


@pytest.mark.parametrize("format", list(shapes.SHAPES))
def test_the_example_of_each_format_has_its_shape(format):
    documented = (Path(__file__).resolve().parents[2] / "docs" / "export-formats.md").read_text()
    (example,) = (EXAMPLES / f"{format}.jsonl").read_text().splitlines()
    assert list(shapes.misfits(json.loads(example), shapes.SHAPES[format])) == []
    shown = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", documented, re.MULTILINE | re.DOTALL)]
    assert json.loads(example) in shown


@pytest.mark.parametrize("format", FORMATS)
def test_every_field_is_documented(project, tmp_path, format):
    documented = (Path(__file__).resolve().parents[2] / "docs" / "export-formats.md").read_text()

    def names(shape) -> set[str]:
        if isinstance(shape, dict):
            return set(shape).union(*map(names, shape.values()))
        return names(shape[0]) if isinstance(shape, list) else set()

    factory.finished_piece(project)
    export(project, tmp_path / "out", format=format)
    found = manifest(tmp_path / "out")
    wanted = names(shapes.SHAPES[format]) | {*found, *found["counts"], *found["counts"]["left_out"], *found["filters"]}
    assert [name for name in sorted(wanted - {"role", "content"}) if f"`{name}`" not in documented] == []
