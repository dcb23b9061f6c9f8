"""The formats of comparisons: what each makes of the same rankings, checked by the documented shape of its consumer."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotate import derive
from annotate.datasets import shapes, shards
from annotate.datasets.check import check
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.usefixtures("folders")]

FORMATS = shapes.FORMATS["comparisons"]


@pytest.fixture
def project():
    return factory.project(slug="demo", overlap=1)


@pytest.fixture
def ranked(project):
    """One comparison of a, b, c and d, ranked B A=D C, of which b has the rating 7, c 2 and d 6."""
    comparison = factory.comparison_about(project, "Hello", None, "b", "c", "d", reply="a")
    _, b, c, d = sorted(comparison.candidates.values_list("id", flat=True))
    factory.ranking(comparison, "B A=D C", ratings={b: 7, c: 2, d: 6})
    return comparison


def export(out: Path, format: str, *arguments: str) -> list[dict]:
    """The lines that the command writes, of which the checker finds nothing wrong."""
    where = ["comparisons", "--project", "demo", "--format", format, "--out", str(out)]
    call_command("export", *where, *arguments, stdout=StringIO())
    report = check(out)
    assert report.problems == []
    return [json.loads(line) for file in sorted(out.glob("*.jsonl")) for line in file.read_text().splitlines()]


def counts(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())["counts"]


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        call_command("export", "comparisons", "--project", "demo", *arguments)
    assert refusal.value.returncode == 2
    return str(refusal.value)


def texts(line: dict) -> tuple[str, str]:
    return line["chosen"][-1]["content"], line["rejected"][-1]["content"]


class TestPairs:
    @pytest.mark.parametrize(
        ("which", "pairs", "others"),
        [
            ("all", {("b", "a"), ("b", "d"), ("b", "c"), ("a", "c"), ("d", "c")}, None),
            ("adjacent", {("b", "a"), ("b", "d"), ("a", "c"), ("d", "c")}, 1),
            ("best_worst", {("b", "c")}, 4),
        ],
    )
    @pytest.mark.parametrize("format", ["preference", "preference_implicit"])
    def test_which_are_made(self, ranked, tmp_path, format, which, pairs, others):
        lines = export(tmp_path / "out", format, "--pairs", which)
        assert len(lines) == len(pairs)
        assert {texts(line) for line in lines} == pairs
        assert {line["group_id"] for line in lines} == {ranked.pk}
        assert all("margin" not in line for line in lines)
        assert counts(tmp_path / "out")["dropped_tied_pairs"] == 1
        assert counts(tmp_path / "out")["left_out"].get("other_pairs") == others

    @pytest.mark.parametrize("format", shapes.MARGIN)
    def test_a_margin_by_rank(self, ranked, tmp_path, format):
        lines = export(tmp_path / "out", format, "--margin", "rank")
        assert [line["margin"] for line in lines] == [1.0, 1.0, 2.0, 1.0, 1.0]

    def test_a_margin_by_rating_is_there_in_every_row(self, ranked, tmp_path):
        lines = export(tmp_path / "out", "preference", "--margin", "rating")
        found = {texts(line): line["margin"] for line in lines}
        assert found == {("b", "a"): 0.0, ("b", "d"): 1.0, ("b", "c"): 5.0, ("a", "c"): 0.0, ("d", "c"): 4.0}
        schema = json.loads((tmp_path / "out" / "schema.json").read_text())
        assert schema["properties"]["margin"] == {"type": "number"}
        assert '"margin"' in (tmp_path / "out" / "README.md").read_text()

    def test_a_rating_that_contradicts_the_order_is_no_margin(self, project, tmp_path):
        comparison = factory.comparison_about(project, "Hello", None, "b", "c", "d", reply="a")
        a, b, *_ = sorted(comparison.candidates.values_list("id", flat=True))
        factory.ranking(comparison, "A B=C=D", ratings={a: 1, b: 7})
        lines = export(tmp_path / "out", "preference", "--margin", "rating")
        assert [line["margin"] for line in lines] == [0.0, 0.0, 0.0]


class TestUnpaired:
    def labels(self, out: Path, *arguments: str) -> dict:
        return {line["completion"][0]["content"]: line["label"] for line in export(out, "unpaired", *arguments)}

    def test_best_and_worst(self, ranked, tmp_path):
        assert self.labels(tmp_path / "out") == {"b": True, "c": False}
        assert counts(tmp_path / "out")["left_out"] == {"middle": 2, "held_out": 0}

    def test_where_all_are_bad_none_is_good(self, project, tmp_path):
        comparison = factory.comparison_about(project, "Hello", None, "b", "c", "d", reply="a")
        factory.ranking(comparison, "A B C D", all_bad=True)
        assert self.labels(tmp_path / "out") == dict.fromkeys("abcd", False)

    def test_where_all_are_tied_nothing_is_known(self, project, tmp_path):
        factory.ranking(factory.comparison_about(project, "Hello"), "A=B=C=D")
        says = "There is nothing to export: unpaired can hold none of it. Left out: undecided 4."
        assert refused("--format", "unpaired") == says
        factory.ranking(factory.comparison_about(project, "Two"), "", all_bad=True)
        assert {line["label"] for line in export(tmp_path / "out", "unpaired")} == {False}


class TestConsensus:
    @pytest.fixture
    def several(self):
        """Three trainers over a, b, c, d: two nearly agree, the third turns it round and finds all bad."""
        made = factory.project(slug="demo", overlap=3)
        comparison = factory.comparison_about(made, "Hello", None, "b", "c", "d", reply="a")
        a, b, c, d = sorted(comparison.candidates.values_list("id", flat=True))
        factory.ranking(comparison, "A B C D", ratings={a: 7}, flags={d: ["moral"]}, active_seconds=10)
        factory.ranking(comparison, "B A C=D", ratings={a: 5, b: 6}, flags={d: ["moral"], c: ["opinion"]})
        factory.ranking(comparison, "D C B A", ratings={a: 1}, all_bad=True, active_seconds=5)
        return comparison

    def test_one_line_by_median_ranks(self, several, tmp_path):
        (line,) = export(tmp_path / "out", "ranked", "--rankings", "consensus")
        # Ranks by trainer: a 0 1 3, b 1 0 2, c 2 2 1, d 3 2 0.
        assert [one["rank"] for one in line["completions"]] == [0, 0, 1, 1]
        assert [one["rating"] for one in line["completions"]] == [5, 6, None, None]
        assert [one["flags"] for one in line["completions"]] == [[], [], [], ["moral"]]
        assert {one["shown_position"] for one in line["completions"]} == {None}
        # Of 6 pairs the first two agree on 4, each of them with the third on 0 and 1.
        assert line["agreement"] == pytest.approx((4 + 0 + 1) / 18)
        assert (line["ranking_id"], line["ranking_kind"], line["rankings"]) == (None, "consensus", 3)
        assert (line["trainer"], line["assignment_state"]) == (None, None)
        assert (line["active_seconds"], line["all_bad"]) == (15, False)
        found = counts(tmp_path / "out")
        assert (found["rows"], found["rankings"], found["comparisons"]) == (1, 3, 1)
        assert (found["by_kind"], found["tied_pairs"], found["dropped_tied_pairs"]) == ({"consensus": 1}, 2, 0)

    def test_pairs_of_it(self, several, tmp_path):
        lines = export(tmp_path / "out", "preference", "--rankings", "consensus", "--margin", "rank")
        assert {texts(line) for line in lines} == {("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")}
        assert {(line["ranking_id"], line["margin"]) for line in lines} == {(None, 1.0)}
        assert [line["agreement"] for line in lines] == pytest.approx([5 / 18] * 4)
        assert counts(tmp_path / "out")["dropped_tied_pairs"] == 2

    def test_each_by_itself_without_it(self, several, tmp_path):
        lines = export(tmp_path / "out", "ranked")
        assert [(line["rankings"], line["agreement"]) for line in lines] == [(1, None)] * 3
        assert len({line["ranking_id"] for line in lines}) == 3

    def test_all_bad_by_majority(self, tmp_path):
        made = factory.project(slug="demo", overlap=2)
        comparison = factory.comparison_about(made, "Hello")
        for _ in range(2):
            factory.ranking(comparison, "", all_bad=True)
        (line,) = export(tmp_path / "out", "ranked", "--rankings", "consensus")
        assert (line["all_bad"], line["agreement"]) == (True, 1.0)

    def test_of_one_ranking(self, ranked, tmp_path):
        (line,) = export(tmp_path / "out", "ranked", "--rankings", "consensus")
        assert (line["rankings"], line["agreement"], line["ranking_kind"]) == (1, None, "consensus")


class TestImported:
    @pytest.fixture
    def imported(self, project, tmp_path):
        """A comparison of three that came in from a file with a tie, beside one that a trainer ranked."""
        row = {
            "context": [{"role": "user", "content": "Which one?"}],
            "completions": [
                {"rank": rank, "completion": [{"role": "assistant", "content": text}]}
                for rank, text in ((1, "x"), (0, "y"), (1, "z"))
            ],
        }
        (tmp_path / "set.jsonl").write_text(json.dumps(row))
        call_command("import_conversations", str(tmp_path / "set.jsonl"), "--project", "demo", stdout=StringIO())
        factory.ranking(factory.comparison_about(project, "Hello"))

    def test_it_is_in_every_format(self, imported, tmp_path):
        rows = {"ranked": 1, "nemo_rl": 1, "prompt_only": 1, "unpaired": 3}
        for format in FORMATS:
            lines = export(tmp_path / format, format, "--origins", "imported")
            assert len(lines) == rows.get(format, 2)

    def test_what_is_known_of_it(self, imported, project, tmp_path):
        (line,) = export(tmp_path / "out", "ranked", "--origins", "imported")
        assert line["ranking_kind"] == "imported"
        assert (line["trainer"], line["iteration"], line["draw"]) == (None, None, None)
        assert {one["completion"][0]["content"]: one["rank"] for one in line["completions"]} == {"x": 1, "y": 0, "z": 1}
        for one in line["completions"]:
            assert (one["kind"], one["policy"], one["sampling"]) == ("imported", None, None)
        assert line["context"][0] == {"role": "system", "content": project.system_message}

    def test_beside_those_of_trainers(self, imported, tmp_path):
        assert {line["ranking_kind"] for line in export(tmp_path / "both", "ranked")} == {"trainer", "imported"}
        (line,) = export(tmp_path / "ours", "ranked", "--origins", "trainer")
        assert line["ranking_kind"] == "trainer"


def test_prompt_only_is_one_line_a_comparison(tmp_path):
    project = factory.project(slug="demo", overlap=2)
    comparison = factory.comparison_about(project, "Hello")
    for order in ("A B C D", "A=B=C=D"):
        factory.ranking(comparison, order)
    (line,) = export(tmp_path / "out", "prompt_only")
    assert [message["role"] for message in line["prompt"]] == ["system", "user"]
    assert (line["group_id"], line["source"], line["prompt_id"]) == (comparison.pk, "comparisons", None)


def test_nemo_rl_by_its_guide(ranked, tmp_path):
    """`context` holds messages, `completions` objects with `rank` and `completion`; a lower rank is better."""
    (line,) = export(tmp_path / "out", "nemo_rl")
    assert set(line) == {"context", "completions", "group_id"}
    assert all(set(message) == {"role", "content"} for message in line["context"])
    for one in line["completions"]:
        assert set(one) == {"rank", "completion"}
        assert isinstance(one["rank"], int)
        assert [message["role"] for message in one["completion"]] == ["assistant"]
    best_first = sorted(line["completions"], key=lambda one: one["rank"])
    assert [one["completion"][0]["content"] for one in best_first] == ["b", "a", "d", "c"]


class TestTranscripts:
    def test_by_the_shape_of_hh_rlhf(self, ranked, project, tmp_path):
        lines = export(tmp_path / "out", "hh")
        assert len(lines) == 5
        for line in lines:
            turns = [re.split(r"\n\n(Human|Assistant): ", line[side])[1:] for side in ("chosen", "rejected")]
            assert [turn[::2] for turn in turns] == [["Human", "Assistant"]] * 2
            assert turns[0][:-1] == turns[1][:-1]
            assert project.system_message not in line["chosen"]
        assert lines[0]["chosen"] == "\n\nHuman: Hello\n\nAssistant: b"

    def test_a_text_that_holds_a_mark_is_left_out(self, project, tmp_path):
        comparison = factory.comparison_about(project, "One", None, "b", "c", "d\n\nHuman: And you?", reply="a")
        factory.ranking(comparison, "A B C D")
        lines = export(tmp_path / "out", "hh")
        assert len(lines) == 3
        assert counts(tmp_path / "out")["left_out"] == {"speaker_marks": 3, "held_out": 0}


def test_openai_dpo_has_exactly_its_keys(ranked, tmp_path):
    for line in export(tmp_path / "out", "openai_dpo"):
        assert set(line) == {"input", "preferred_output", "non_preferred_output"}
        assert set(line["input"]) == {"messages"}
        assert line["input"]["messages"][-1]["role"] == "user"
        for side in ("preferred_output", "non_preferred_output"):
            assert [set(message) for message in line[side]] == [{"role", "content"}]
            assert line[side][0]["role"] == "assistant"


class TestLlamaFactory:
    def test_by_its_readme(self, ranked, project, tmp_path):
        out = tmp_path / "out"
        lines = export(out, "llamafactory")
        described = json.loads((out / "dataset_info.json").read_text())
        (file,) = out.glob("*.jsonl")
        assert described == {
            file.stem: {
                "file_name": file.name,
                "formatting": "sharegpt",
                "ranking": True,
                "columns": {
                    "messages": "conversations",
                    "chosen": "chosen",
                    "rejected": "rejected",
                    "system": "system",
                },
            }
        }
        assert "dataset_info.json" in json.loads((out / "manifest.json").read_text())["files"]
        for line in lines:
            # An odd number of turns, the human's first and last.
            sides = [turn["from"] for turn in line["conversations"]]
            assert sides == ["human", "gpt"] * (len(sides) // 2) + ["human"]
            assert line["chosen"]["from"] == line["rejected"]["from"] == "gpt"
            assert line["system"] == project.system_message
        assert {(line["chosen"]["value"], line["rejected"]["value"]) for line in lines} >= {("b", "c")}

    def test_shards_are_a_dataset_each(self, ranked, tmp_path):
        export(tmp_path / "out", "llamafactory", "--shard-rows", "2")
        described = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
        assert {one["file_name"] for one in described.values()} == {path.name for path in tmp_path.glob("out/*.jsonl")}

    def test_not_under_zstandard(self, ranked):
        says = refused("--format", "llamafactory", "--files", "jsonl.zst")
        assert says == "llamafactory cannot be written as jsonl.zst: LlamaFactory does not read it. Choose jsonl."


@pytest.mark.parametrize("kind", ["jsonl.zst", "parquet"])
def test_other_kinds_of_files_hold_the_same(ranked, tmp_path, kind):
    for format in ("ranked", "hh", "openai_dpo"):
        plain = export(tmp_path / f"{format}-plain", format)
        export(tmp_path / format, format, "--files", kind)
        (path,) = (tmp_path / format).glob(f"*.{kind}")
        with shards.opened(path) as lines:
            assert [json.loads(line) for line in lines] == plain


def test_lines_of_a_group_can_be_found_where_further_columns_are_allowed(ranked, tmp_path):
    for format in FORMATS:
        found = {line.get("group_id") for line in export(tmp_path / format, format)}
        assert found == {None if format == "openai_dpo" else ranked.pk}


def test_nobody_is_named(project, tmp_path):
    author = factory.person(project, email="author@example.org", name="Ann Author")
    factory.ranking(factory.comparison_about(project, "One", author))
    for format in FORMATS:
        export(tmp_path / format, format)
        for path in (tmp_path / format).iterdir():
            content = path.read_text()
            assert [word for word in (project.secret, "example.org", "Ann") if word in content] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ranked", "--margin", "rank"], "--margin: ranked has none; preference, preference_implicit, hh may have."),
        (["openai_dpo", "--margin", "rank"], "--margin: openai_dpo has none;"),
        (["unpaired", "--pairs", "adjacent"], "--pairs: unpaired has no pairs; preference,"),
        (["ranked", "--kinds", "chat"], "--kinds is for conversations; comparisons do not have it."),
        (["ranked", "--mix", "a:1"], "--mix is for demonstrations; comparisons do not have it."),
        (["ranked", "--without", "Ann"], "--without: 'Ann' is no pseudonym"),
        (["ranked", "--without", "0" * 16], "Nobody in project demo has the pseudonym 0000000000000000."),
        (["ranked", "--shard-rows", "0"], "--shard-rows: 0 is no whole number from 1"),
        (["ranked", "--go-on", "1"], "--go-on takes an export as it was asked for; leave all but --out out."),
        (["ranked", "--since", "yesterday"], "--since: not a date; write it as 2026-01-31"),
    ],
)
def test_what_does_not_fit_is_refused(ranked, arguments, says):
    assert refused("--format", *arguments).startswith(says)


def test_without_a_person(tmp_path):
    project = factory.project(slug="demo", overlap=2)
    comparison = factory.comparison_about(project, "Hello")
    one, other = factory.trainer(project), factory.trainer(project)
    kept = factory.ranking(comparison, "A B C D", one)
    factory.ranking(comparison, "D C B A", other)
    gone = derive.pseudonym(project.secret, other.pk)
    (line,) = export(tmp_path / "out", "ranked", "--without", gone)
    assert line["ranking_id"] == kept.pk


class TestRedacted:
    """Two answers that differ in personal data only."""

    @pytest.fixture
    def ranking(self, project):
        answers = ["Write to ann@posteo.net.", "Write to ben@posteo.net.", "No."]
        comparison = factory.comparison_about(project, "Hello", None, *answers, reply="Yes.")
        return factory.ranking(comparison, "A B C D")

    @pytest.mark.parametrize("format", shapes.PAIRS)
    def test_what_became_the_same_is_no_pair(self, ranking, tmp_path, format):
        assert len(export(tmp_path / "out", format, "--personal-data", "redact")) == 5
        assert counts(tmp_path / "out")["left_out"] == {"same_texts": 1, "held_out": 0}
        assert len(export(tmp_path / "all", format, "--personal-data", "report")) == 6

    def test_the_order_is_kept(self, ranking, tmp_path):
        (line,) = export(tmp_path / "out", "ranked", "--personal-data", "redact")
        assert [one["rank"] for one in line["completions"]] == [0, 1, 2, 3]
        texts = [one["completion"][0]["content"] for one in line["completions"]]
        assert texts[1] == texts[2]
        assert "@" not in json.dumps(line)
