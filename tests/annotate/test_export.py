"""`export comparisons`: the lines, which rankings count, and what a dataset version says about itself."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotate import derive
from annotate.datasets import comparison_formats, comparison_rows, filters, shapes
from annotate.models import Comparison, Export, Ranking
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.usefixtures("folders")]


@pytest.fixture
def project():
    return factory.project(overlap=1)


def export(project, out: Path | None = None, *arguments: str, format: str = "ranked") -> str:
    said = StringIO()
    where = ["--out", str(out)] if out else []
    call_command(
        "export", "comparisons", "--project", project.slug, "--format", format, *where, *arguments, stdout=said
    )
    return said.getvalue()


def lines(out: Path) -> list[dict]:
    files = sorted(out.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def test_a_ranked_line_holds_everything(project, tmp_path):
    comparison = factory.comparison_about(project, "What is a cat?", None, "An animal.", "A pet.", "No idea.")
    ids = sorted(comparison.candidates.values_list("id", flat=True))
    b, c = ids[1], ids[2]
    ranking = factory.ranking(
        comparison, "B A=D C", ratings={b: 7}, flags={c: ["constraint"]}, all_bad=True, active_seconds=33
    )
    export(project, tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert list(shapes.misfits(line, shapes.RANKED)) == []
    completions = line.pop("completions")
    conversation = comparison.message.conversation
    assert line == {
        "group_id": comparison.pk,
        "comparison_id": comparison.pk,
        "ranking_id": ranking.pk,
        "ranking_kind": "trainer",
        "rankings": 1,
        "agreement": None,
        "conversation_id": conversation.pk,
        "source_id": "",
        "trainer": derive.pseudonym(project.secret, ranking.trainer_id),
        "iteration": 1,
        "split": derive.split_of(project.secret, conversation.family),
        "family": derive.family_of("What is a cat?"),
        "use_case": "",
        "comparison_state": "closed",
        "assignment_state": "submitted",
        "active_seconds": 33,
        "all_bad": True,
        "selection": "random",
        "draw": {"index": 0, "size": 1},
        "k": 4,
        "context": [
            {"role": "system", "content": project.system_message},
            {"role": "user", "content": "What is a cat?"},
        ],
    }
    assert [one["candidate_id"] for one in completions] == ids
    assert [one["rank"] for one in completions] == [1, 0, 2, 1]
    assert [one["shown_position"] for one in completions] == [3, 2, 1, 0]
    assert [one["original"] for one in completions] == [True, False, False, False]
    assert completions[2] == {
        "completion": [{"role": "assistant", "content": "A pet."}],
        "rank": 2,
        "rating": None,
        "flags": ["constraint"],
        "original": False,
        "candidate_id": c,
        "shown_position": 1,
        "kind": "sampled",
        "policy": project.policies.get().name,
        "model": None,
        "sampling": project.sampling(),
        "template_hash": "0" * 64,
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "reasoning": None,
    }
    assert completions[1]["rating"] == 7


def test_the_use_case_is_that_of_the_prompt(project, tmp_path):
    project.prompts.create(text="Say hello", digest="d", family="f", use_case="chat")
    factory.ranking(factory.comparison_about(project, "Say hello"))
    export(project, tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert (line["use_case"], line["family"]) == ("chat", "f")


def test_pairs_are_all_strict_ones_and_ties_are_none(project, tmp_path):
    comparison = factory.comparison_about(project, "Hello", None, "b", "c", "d")
    factory.ranking(comparison, "B A=D C")
    a = comparison.message.text
    export(project, tmp_path / "explicit", format="preference")
    pairs = lines(tmp_path / "explicit")
    assert [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs] == [
        ("b", a),
        ("b", "d"),
        ("b", "c"),
        (a, "c"),
        ("d", "c"),
    ]
    assert [(pair["chosen_rank"], pair["rejected_rank"]) for pair in pairs] == [(0, 1), (0, 1), (0, 2), (1, 2), (1, 2)]
    assert {pair["group_id"] for pair in pairs} == {comparison.pk}
    assert pairs[0]["prompt"][-1] == {"role": "user", "content": "Hello"}
    assert pairs[0]["chosen"] == [{"role": "assistant", "content": "b"}]
    counts = manifest(tmp_path / "explicit")["counts"]
    assert (counts["rows"], counts["rankings"], counts["dropped_tied_pairs"]) == (5, 1, 1)

    export(project, tmp_path / "implicit", format="preference_implicit")
    implicit = lines(tmp_path / "implicit")
    for pair, same in zip(pairs, implicit, strict=True):
        assert "prompt" not in same
        assert same["chosen"] == pair["prompt"] + pair["chosen"]
        assert same["rejected"] == pair["prompt"] + pair["rejected"]


def test_a_ranking_without_an_order_gives_no_pair(project, tmp_path):
    factory.ranking(factory.comparison_about(project, "One"), "", all_bad=True)
    factory.ranking(factory.comparison_about(project, "Two"), "A B=C=D", all_bad=True)
    export(project, tmp_path / "pairs", format="preference")
    assert len(lines(tmp_path / "pairs")) == 3
    counts = manifest(tmp_path / "pairs")["counts"]
    assert (counts["rankings"], counts["all_bad"], counts["rankings_with_ties"], counts["tied_pairs"]) == (2, 2, 2, 9)


def test_only_submitted_rankings_of_closed_comparisons_count(tmp_path):
    project = factory.project(overlap=2)
    closed = factory.comparison_about(project, "Closed")
    still_open = factory.comparison_about(project, "Open")
    counted = {factory.ranking(closed).pk, factory.ranking(closed, "D C B A").pk}
    early = factory.ranking(still_open).pk
    late = factory.ranking(factory.comparison_about(project, "Surplus"))
    late.assignment.__class__.objects.filter(pk=late.assignment_id).update(state="surplus")

    def exported(name: str, *include: str) -> set[int]:
        export(project, tmp_path / name, *include)
        return {line["ranking_id"] for line in lines(tmp_path / name)}

    assert exported("default") == counted
    assert exported("open", "--include", "open") == counted | {early}
    assert exported("both", "--include", "open", "surplus") == counted | {early, late.pk}
    states = {(line["comparison_state"], line["assignment_state"]) for line in lines(tmp_path / "both")}
    assert states == {("closed", "submitted"), ("open", "submitted"), ("open", "surplus")}


def test_a_superseded_ranking_does_not_count(project, tmp_path):
    kept = factory.ranking(factory.comparison_about(project, "One"))
    old = factory.ranking(factory.comparison_about(project, "Two"))
    Ranking.objects.filter(pk=old.pk).update(current=False)
    export(project, tmp_path / "out")
    assert [line["ranking_id"] for line in lines(tmp_path / "out")] == [kept.pk]


def test_another_projects_rankings_are_left_out(project, tmp_path):
    kept = factory.ranking(factory.comparison_about(project, "One"))
    factory.ranking(factory.comparison_about(factory.project(), "One"))
    export(project, tmp_path / "out")
    assert [line["ranking_id"] for line in lines(tmp_path / "out")] == [kept.pk]


def test_one_iteration_or_rankings_from_a_day_on(project, tmp_path):
    old = factory.ranking(factory.comparison_about(project, "One"))
    Ranking.objects.filter(pk=old.pk).update(created_at=datetime(2026, 1, 30, 23, 59, tzinfo=UTC))
    new = factory.ranking(factory.comparison_about(project, "Two"))
    Ranking.objects.filter(pk=new.pk).update(created_at=datetime(2026, 1, 31, tzinfo=UTC))
    export(project, tmp_path / "since", "--since", "2026-01-31")
    assert [line["ranking_id"] for line in lines(tmp_path / "since")] == [new.pk]
    assert manifest(tmp_path / "since")["filters"]["since"] == "2026-01-31T00:00:00+00:00"
    export(project, tmp_path / "one", "--iteration", "1")
    assert len(lines(tmp_path / "one")) == 2
    assert manifest(tmp_path / "one")["iterations"] == [
        {
            "number": 1,
            "k": 4,
            "overlap": 1,
            "guidelines": 1,
            "form_version": 1,
            "keeps_original": True,
            "policies": [{"name": project.policies.get().name, "weight": 1}],
        }
    ]


def test_what_was_chosen_from_a_pool_says_so_and_can_be_left_out(project, tmp_path):
    drawn, chosen = (factory.ranking(factory.comparison_about(project, opening)) for opening in ("One", "Two"))
    pool = Comparison.objects.filter(pk=chosen.comparison_id)
    pool.update(pool=chosen.comparison_id, selection="uncertain")
    export(project, tmp_path / "all")
    said = {line["ranking_id"]: line["selection"] for line in lines(tmp_path / "all")}
    assert said == {drawn.pk: "random", chosen.pk: "uncertain"}
    export(project, tmp_path / "random", "--selection", "random")
    assert [line["ranking_id"] for line in lines(tmp_path / "random")] == [drawn.pk]
    export(project, tmp_path / "pairs", "--selection", "uncertain", format="preference")
    assert {(line["ranking_id"], line["selection"]) for line in lines(tmp_path / "pairs")} == {(chosen.pk, "uncertain")}


@pytest.mark.parametrize("format", ["ranked", "preference"])
def test_what_is_brought_in_elsewhere_is_selected_as_it_was(project, tmp_path, format):
    _, chosen = (factory.ranking(factory.comparison_about(project, opening)) for opening in ("One", "Two"))
    pool = Comparison.objects.filter(pk=chosen.comparison_id)
    pool.update(pool=chosen.comparison_id, selection="uncertain")
    export(project, tmp_path / "out", format=format)
    there = [line["selection"] for line in lines(tmp_path / "out")]
    assert set(there) == {"random", "uncertain"}
    elsewhere = factory.project()
    for file in (tmp_path / "out").glob("*.jsonl"):
        call_command("import_conversations", str(file), "--project", elsewhere.slug, stdout=StringIO())
    assert sorted(elsewhere.comparisons.values_list("selection", flat=True)) == sorted(there)
    export(elsewhere, tmp_path / "again")
    assert sorted(line["selection"] for line in lines(tmp_path / "again")) == sorted(there)


def openings_of(project, split: str, count: int) -> list[str]:
    """Openings whose families belong to a split."""
    texts = (f"Opening {number}" for number in range(10_000))
    found = (text for text in texts if derive.split_of(project.secret, derive.family_of(text)) == split)
    return [next(found) for _ in range(count)]


def test_each_split_has_its_file(project, tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for text in openings_of(project, split, count):
            factory.ranking(factory.comparison_about(project, text))
    said = export(project, tmp_path / "out")
    assert "train 3, test 1" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "manifest.json",
        "schema.json",
        "test.jsonl",
        "train.jsonl",
    ]
    for split in ("train", "test"):
        for line in (tmp_path / "out" / f"{split}.jsonl").read_text().splitlines():
            assert json.loads(line)["split"] == split
    export(project, tmp_path / "test", "--split", "test")
    assert [path.name for path in (tmp_path / "test").glob("*.jsonl")] == ["test.jsonl"]
    assert manifest(tmp_path / "test")["counts"]["comparisons"] == 1


def test_openings_that_differ_in_case_share_a_split(project, tmp_path):
    for text in ("What is a dog?", "what is a DOG"):
        factory.ranking(factory.comparison_about(project, text))
    export(project, tmp_path / "out")
    assert len({line["split"] for line in lines(tmp_path / "out")}) == 1


def test_the_manifest_counts_and_names_what_is_there(tmp_path):
    project = factory.project(overlap=2, k=3)
    for opening in ("One", "Two"):
        comparison = factory.comparison_about(project, opening)
        factory.ranking(comparison, "A=B=C")
        factory.ranking(comparison, "C B A", all_bad=True)
    out = tmp_path / "out"
    export(project, out)
    found = manifest(out)
    splits = found["counts"].pop("by_split")
    assert sum(split["rows"] for split in splits.values()) == 4
    assert sum(split["comparisons"] for split in splits.values()) == 2
    assert found["counts"] == {
        "rows": 4,
        "rankings": 4,
        "comparisons": 2,
        "all_bad": 2,
        "rankings_with_ties": 2,
        "tied_pairs": 6,
        "dropped_tied_pairs": 0,
        "comparisons_by_k": {"3": 2},
        "by_kind": {"trainer": 4},
        "left_out": {"held_out": 0},
    }
    assert found["rank_order"] == "0=best"
    assert (found["schema_version"], found["what"], found["format"]) == (4, "comparisons", "ranked")
    assert found["project"] == project.slug
    policy = project.policies.get()
    assert found["policies"] == [
        {"name": policy.name, "engine": policy.engine, "location": policy.location, "revision": policy.revision}
    ]
    assert set(found["files"]) == {path.name for path in out.iterdir()} - {"manifest.json"}
    for name, described in found["files"].items():
        content = (out / name).read_bytes()
        assert described["sha256"] == hashlib.sha256(content).hexdigest()
        assert described["bytes"] == len(content)


def test_policies_that_shared_the_places_are_told_with_their_weights(tmp_path):
    project = factory.shared_project(3, 1, keeps_original=False)
    ours, theirs = project.policies.order_by("id")
    comparison = factory.open_comparison(project)
    factory.ranking(comparison)
    export(project, tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert [one["original"] for one in line["completions"]] == [False] * 4
    assert sorted(one["policy"] for one in line["completions"]) == sorted([ours.name] * 3 + [theirs.name])
    (told,) = manifest(tmp_path / "out")["iterations"]
    weights = [{"name": ours.name, "weight": 3}, {"name": theirs.name, "weight": 1}]
    assert (told["keeps_original"], told["policies"]) == (False, weights)
    assert [one["name"] for one in manifest(tmp_path / "out")["policies"]] == sorted([ours.name, theirs.name])


def test_all_rankings_of_a_comparison_stand_together(tmp_path):
    project = factory.project(overlap=2)
    first, second = (factory.comparison_about(project, "Same words", None, *"bcd") for _ in range(2))
    for comparison in (second, first, second, first):
        factory.ranking(comparison)
    export(project, tmp_path / "out")
    assert [line["group_id"] for line in lines(tmp_path / "out")] == [first.pk, first.pk, second.pk, second.pk]


def test_the_same_query_writes_the_same_bytes(project, tmp_path):
    for number in range(5):
        factory.ranking(factory.comparison_about(project, f"Opening {number}"), "B A=D C")
    for format in comparison_formats.FORMATS:
        export(project, tmp_path / f"{format}-1", format=format)
        export(project, tmp_path / f"{format}-2", format=format)
        first, second = (
            {path.name: path.read_bytes() for path in (tmp_path / f"{format}-{number}").iterdir()} for number in (1, 2)
        )
        assert first == second


def test_it_is_registered_and_the_copy_equals_what_is_stored(project, tmp_path):
    factory.ranking(factory.comparison_about(project, "One"))
    out = tmp_path / "new" / "folder"
    said = export(project, out, "--iteration", "1")
    registered = Export.objects.get()
    assert (registered.project, registered.iteration.number) == (project, 1)
    assert (registered.what, registered.format, registered.rows) == ("comparisons", "ranked", 1)
    assert registered.manifest == manifest(out)
    assert registered.digest == registered.manifest["digest"]
    assert registered.filters == filters.Comparisons(iteration=1).as_json()
    assert f"export {registered.pk}, sha256 {registered.digest}" in said
    _, stored = default_storage.listdir(registered.location)
    assert sorted(stored) == sorted(path.name for path in out.iterdir())
    for name in stored:
        with default_storage.open(f"{registered.location}/{name}") as file:
            assert file.read() == (out / name).read_bytes()
    assert list((tmp_path / "home" / "tmp").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_digest_is_what_sha256sum_prints(project, tmp_path):
    for text in (*openings_of(project, "train", 1), *openings_of(project, "validation", 1)):
        factory.ranking(factory.comparison_about(project, text))
    export(project, tmp_path / "out")
    listing = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted((tmp_path / "out").glob("*.jsonl"))
    )
    assert manifest(tmp_path / "out")["digest"] == hashlib.sha256(listing.encode()).hexdigest()


def test_the_copy_may_be_left_out(project):
    factory.ranking(factory.comparison_about(project, "One"))
    export(project)
    assert default_storage.exists(f"{Export.objects.get().location}/manifest.json")


def test_an_empty_folder_is_filled(project, tmp_path):
    factory.ranking(factory.comparison_about(project, "One"))
    (tmp_path / "out").mkdir()
    export(project, tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 1


def test_no_secret_and_no_person_is_in_it(project, tmp_path):
    author = factory.person(project, email="author@example.org", name="Ann Author")
    rater = factory.person(project, email="rater@example.org", name="Ray Rater")
    factory.ranking(factory.comparison_about(project, "One", author), user=rater)
    for format in comparison_formats.FORMATS:
        export(project, tmp_path / format, format=format)
        for path in (tmp_path / format).iterdir():
            content = path.read_text()
            for word in (project.secret, "example.org", "Ann", "Ray"):
                assert word not in content


def test_texts_of_all_languages_stay_as_they_are(project, tmp_path):
    text = 'Ça va?\u2028\u0645\u0631\u062d\u0628\u0627 你好 🎈\n\ttab \\ " end'
    factory.ranking(factory.comparison_about(project, text, None, "é", "\u202eright", "</script>"))
    export(project, tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.jsonl")
    assert file.read_bytes().count(b"\n") == 1
    line = json.loads(file.read_bytes())
    assert line["context"][-1]["content"] == text
    answers = [one["completion"][0]["content"] for one in line["completions"][1:]]
    assert answers == ["é", "\u202eright", "</script>"]


def test_the_only_project_needs_no_name(project, tmp_path):
    factory.ranking(factory.comparison_about(project, "One"))
    call_command("export", "comparisons", "--format", "ranked", "--out", str(tmp_path / "out"), stdout=StringIO())
    assert len(lines(tmp_path / "out")) == 1


def test_queries_do_not_grow_with_rows(project):
    factory.ranking(factory.comparison_about(project, "One"))
    with CaptureQueriesContext(connection) as few:
        export(project)
    for number in range(3):
        factory.ranking(factory.comparison_about(project, f"Opening {number}"))
    with CaptureQueriesContext(connection) as more:
        export(project)
    assert len(more) == len(few)


def test_rankings_from_tomorrow_on_are_none_today(project, tmp_path):
    factory.ranking(factory.comparison_about(project, "One"))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    found = comparison_rows.rankings(project=project, filters=filters.Comparisons(since=tomorrow))
    assert not found.exists()


@pytest.mark.parametrize("format", list(comparison_formats.FORMATS))
def test_every_field_is_documented(format):
    documented = (Path(__file__).resolve().parents[2] / "docs" / "export-formats.md").read_text()

    def names(shape) -> set[str]:
        if isinstance(shape, dict):
            return set(shape).union(*map(names, shape.values()))
        return names(shape[0]) if isinstance(shape, list) else set()

    wanted = names(shapes.SHAPES[format]) - {"role", "content"}
    assert [name for name in sorted(wanted) if f"`{name}`" not in documented] == []


def test_every_field_of_the_manifest_is_documented(project, tmp_path):
    documented = (Path(__file__).resolve().parents[2] / "docs" / "export-formats.md").read_text()
    factory.ranking(factory.comparison_about(project, "One"))
    export(project, tmp_path / "out")
    found = manifest(tmp_path / "out")
    wanted = {*found, *found["counts"], *found["filters"], *found["iterations"][0], *found["policies"][0]}
    assert [name for name in sorted(wanted) if f"`{name}`" not in documented] == []
