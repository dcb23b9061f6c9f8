"""Thoughts in exports: in `ranked` in a field of their own, and nowhere else."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from annotate.datasets import shapes
from annotate.datasets.check import check
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

THOUGHT = "The user greets. Ask vera.lindt@posteo.de."


@pytest.fixture
def project(settings, tmp_path):
    """One with a ranked comparison of answers that were thought about, and a finished chat."""
    settings.BOTHSIDES_HOME = tmp_path / "home"
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "home" / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    made = factory.project(slug="demo", overlap=1)
    factory.ranking(factory.open_comparison(made, reasoning=THOUGHT), "B A=D C")
    return made


def export(out: Path, what: str, format: str, *arguments: str) -> str:
    """The files that the command writes, of which the checker finds nothing wrong."""
    where = ["--project", "demo", "--format", format, "--out", str(out)]
    call_command("export", what, *where, *arguments, stdout=StringIO())
    assert check(out).problems == []
    return "".join(file.read_text() for file in sorted(out.glob("*.jsonl")))


def thoughts(written: str) -> set:
    return {one["reasoning"] for line in written.splitlines() for one in json.loads(line)["completions"]}


def test_a_ranked_line_has_them_beside_the_answers(project, tmp_path):
    written = export(tmp_path / "out", "comparisons", "ranked")
    assert thoughts(written) == {THOUGHT}
    for line in map(json.loads, written.splitlines()):
        assert THOUGHT not in json.dumps([line["context"], [one["completion"] for one in line["completions"]]])


def test_a_consensus_has_them_too(project, tmp_path):
    assert thoughts(export(tmp_path / "out", "comparisons", "ranked", "--rankings", "consensus")) == {THOUGHT}


OTHERS = [
    (what, format) for what in ("comparisons", "conversations") for format in shapes.FORMATS[what] if format != "ranked"
]


@pytest.mark.parametrize(("what", "format"), OTHERS, ids=["-".join(one) for one in OTHERS])
def test_no_other_format_has_them(project, tmp_path, what, format):
    written = export(tmp_path / "out", what, format)
    assert re.search("Reply|Answer", written) or format == "prompt_only"
    assert "The user greets" not in written


def test_suggestions_leave_theirs_behind(project, tmp_path):
    slot = factory.held_piece(project)
    request = factory.suggested(slot, "Eight minutes.")
    request.completions.update(reasoning=THOUGHT)
    turns = [
        factory.written_turn("user", "How do I boil an egg?"),
        factory.written_turn("assistant", "Eight minutes.", **{"from": [request.pk, 0]}, taken=14),
    ]
    project.review_share = 0
    project.save()
    factory.finished_piece(project, None, *turns, slot=slot)
    for format in shapes.FORMATS["demonstrations"]:
        written = export(tmp_path / format, "demonstrations", format)
        assert "Eight minutes." in written
        assert "The user greets" not in written


def test_personal_data_is_taken_out_of_them(project, tmp_path):
    written = export(tmp_path / "out", "comparisons", "ranked", "--personal-data", "redact")
    assert thoughts(written) == {"The user greets. Ask [e-mail address]."}


def test_they_come_in_a_parquet_file_as_a_column_of_text(project, tmp_path):
    where = ["--project", "demo", "--format", "ranked", "--out", str(tmp_path / "out"), "--file", "parquet"]
    call_command("export", "comparisons", *where, stdout=StringIO())
    assert check(tmp_path / "out").problems == []
