"""The command `export` itself: what it says, what it refuses, and how it goes on."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotate import families
from annotate.datasets import filters, shapes
from annotate.management.commands.export import Command
from annotate.models import Export
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("folders")]


@pytest.fixture
def project():
    made = factory.project(slug="demo", overlap=1, review_share=0)
    factory.ranking(factory.comparison_about(made, "One"))
    factory.finished_piece(made)
    return made


def run(*arguments: str) -> str:
    said = StringIO()
    call_command("export", *arguments, stdout=said)
    return said.getvalue()


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        call_command("export", *arguments)
    message = str(refusal.value)
    assert refusal.value.returncode == 2
    assert "\n" not in message
    return message


def test_help_has_every_filter_and_an_example_of_everything():
    parser = Command().create_parser("manage.py", "export")
    said = parser.format_help()
    for what, formats in shapes.FORMATS.items():
        assert f"manage.py export {what}" in said
        assert all(format in said for format in formats)
    for name in filters.READ:
        flag = {"review_states": "--review-state", "personal": "--personal-data"}.get(name)
        assert (flag or f"--{name.replace('_', '-')}") in said


@pytest.mark.parametrize("what", ["comparisons", "demonstrations", "conversations"])
def test_each_default_is_that_of_the_filters(project, what):
    run(what, "--project", "demo", "--format", shapes.FORMATS[what][0])
    assert Export.objects.get().filters == filters.parse(what, {}).as_json()


def test_it_says_what_came_of_it(project, tmp_path):
    (tmp_path / "set_of_mine.jsonl").write_text(json.dumps({"instruction": "Sing", "output": "La."}) + "\n")
    said = run(
        "demonstrations", "--project", "demo", "--format", "messages", "--mix", f"{tmp_path}/set_of_mine.jsonl:1"
    )  # fmt: skip
    assert "rows: 2 (" in said
    assert "from demonstrations 1, set_of_mine.jsonl 1; by source: imported 1, written 1; left out: none" in said
    said = run("comparisons", "--project", "demo", "--format", "preference", "--pairs", "best_worst")
    assert "rankings: 1; comparisons: 1; left out: other pairs 5" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Name what to export, comparisons or demonstrations or conversations or prompts, and its --format."),
        (["comparisons"], "Name what to export"),
        (["--format", "ranked"], "Name what to export"),
        (["--go-on", "12345"], "There is no export 12345. `manage.py exports` lists them."),
        (["comparisons", "--go-on", "1"], "--go-on takes an export as it was asked for; leave all but --out out."),
        (["--go-on", "1", "--files", "parquet"], "--go-on takes an export as it was asked for"),
        (["prompts", "--format", "ranked"], "There is no format ranked of prompts. Formats: prompt_only."),
        (["demonstrations", "--format", "messages", "--mix", "x"], "--mix: 'x' is not NAME:WEIGHT"),
        (
            ["demonstrations", "--format", "messages", "--mix-seed", "-1"],
            "--mix-seed: -1 is no whole number from 0",
        ),
        (["demonstrations", "--format", "messages", "--mix", "gone.jsonl:1"], "gone.jsonl"),
        (["prompts", "--format", "prompt_only", "--project", "nope"], "There is no project nope. Projects: demo."),
    ],
)
def test_what_is_refused(project, arguments, says):
    assert says in refused(*arguments)
    assert not Export.objects.exists()


def test_ctrl_c_says_how_to_go_on(project, tmp_path, monkeypatch):
    def interrupted(**given):
        raise KeyboardInterrupt

    said = StringIO()
    monkeypatch.setattr(families, "join_pending", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call_command("export", "comparisons", "--project", "demo", "--format", "ranked", stderr=said)
    monkeypatch.undo()
    export = Export.objects.get()
    assert said.getvalue() == f"Stopped. manage.py export --go-on {export.pk} goes on with it.\n"
    out: Path = tmp_path / "out"
    assert f"export {export.pk}, sha256 " in run("--go-on", str(export.pk), "--out", str(out))
    assert (out / "manifest.json").exists()
    # Once more it is a copy.
    run("--go-on", str(export.pk), "--out", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()
