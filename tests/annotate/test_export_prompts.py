"""`export prompts`: openings after the system message, in the split of all that was made from them."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotate import conversations, derive
from annotate.datasets import shapes
from annotate.datasets.check import check
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("folders")]


@pytest.fixture
def project():
    """Two openings, one with a use case, and one that is not used any more."""
    made = factory.project(slug="demo")
    for text, fields in (
        ("One", {"use_case": "open QA"}),
        ("Two", {"source": "set.jsonl"}),
        ("Old", {"active": False}),
    ):
        family = derive.family_of(text)
        made.prompts.create(text=text, digest=derive.digest_of(text), family=family, **fields)
    return made


def export(out: Path, *arguments: str) -> list[dict]:
    where = ["prompts", "--project", "demo", "--format", "prompt_only", "--out", str(out)]
    call_command("export", *where, *arguments, stdout=StringIO())
    assert check(out).problems == []
    lines = [json.loads(line) for file in out.glob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted(lines, key=lambda line: line["prompt_id"])


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        call_command("export", "prompts", "--project", "demo", "--format", "prompt_only", *arguments)
    assert refusal.value.returncode == 2
    return str(refusal.value)


def test_an_opening_with_what_is_known_of_it(project, tmp_path):
    first, second = export(tmp_path / "out")
    assert list(shapes.misfits(first, shapes.SHAPES["prompt_only"])) == []
    family = derive.family_of("One")
    assert first == {
        "prompt": [{"role": "system", "content": project.system_message}, {"role": "user", "content": "One"}],
        "source": "",
        "use_case": "open QA",
        "group_id": None,
        "conversation_id": None,
        "prompt_id": project.prompts.get(text="One").pk,
        "iteration": None,
        "split": derive.split_of(project.secret, family),
        "family": family,
    }
    assert second["source"] == "set.jsonl"
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert (counts["rows"], counts["by_use_case"]) == (2, {"": 1, "open QA": 1})


def test_by_use_case_and_those_that_are_not_used_any_more(project, tmp_path):
    texts = [line["prompt"][1]["content"] for line in export(tmp_path / "one", "--use-case", "open QA")]
    assert texts == ["One"]
    texts = [line["prompt"][1]["content"] for line in export(tmp_path / "all", "--include", "inactive")]
    assert texts == ["One", "Two", "Old"]


def test_the_split_is_that_of_what_was_made_from_it(project, tmp_path):
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, "one!")
    conversation = conversations.finish(assignment=slot, user=slot.trainer)
    first, _ = export(tmp_path / "out")
    assert first["split"] == derive.split_of(project.secret, conversation.family)


def test_nothing_to_export(project):
    says = "There is nothing to export: no opening matches. Use cases: (none), open QA."
    assert refused("--use-case", "poems") == says
    assert refused("--since", "2999-01-01").endswith("`manage.py import_prompts` brings some.")
    assert refused("--iteration", "1").startswith("--iteration is for comparisons and demonstrations")


def test_another_projects_openings_are_left_out(project, tmp_path):
    factory.project().prompts.create(text="Theirs", digest="d", family="f")
    assert len(export(tmp_path / "out")) == 2
