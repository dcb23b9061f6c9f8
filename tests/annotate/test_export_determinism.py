"""The same query over the same record writes the same bytes, whatever the process, its hash seed or its chunks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from annotate.datasets import filters, shapes, shards, snapshots, writing
from annotate.models import Export
from tests import factory, site

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.usefixtures("folders")]

EXPORT = """
import sys, django
django.setup()
from pathlib import Path
from annotate.datasets import filters, shards, snapshots
from annotate.models import Project
project = Project.objects.get(slug=sys.argv[1])
for name in sys.argv[3:]:
    what, format, kind = name.split("/")
    files = shards.Files(kind, 3)
    out = Path(sys.argv[2]) / f"{what}-{format}-{kind}"
    snapshots.export(what, project=project, format=format, filters=filters.parse(what, {}), files=files, out=out)
"""


@pytest.fixture
def project():
    """A project with a little of everything that can be exported."""
    made = factory.project(overlap=2, review_share=0, kinds=["write", "rank", "chat"])
    brought_in = factory.imported_in(made)
    for number in range(6):
        talk = factory.imported(
            made, ("user", f"Question {number}"), ("assistant", f"Answer {number}"), imported_in=brought_in
        )
        factory.imported_comparison(made, (f"Answer {number}", "A tie"), ("Another",), conversation=talk)
    for _ in range(2):
        factory.finished_piece(made)
        comparison = factory.comparison_about(made, "What is a cat?")
        factory.ranking(comparison, "B A=D C")
        factory.ranking(comparison, "A B C D", all_bad=True)
    made.prompts.create(text="Say hello", digest="d", family="f", use_case="chat")
    return made


def wanted() -> list[str]:
    """Every format, and one of each in the other kinds of files."""
    names = [f"{what}/{format}/jsonl" for what, formats in shapes.FORMATS.items() for format in formats]
    return [*names, *(f"comparisons/ranked/{kind}" for kind in shards.KINDS[1:])]


def exported(project, folder: Path, names: list[str]) -> None:
    for name in names:
        what, format, kind = name.split("/")
        snapshots.export(
            what,
            project=project,
            format=format,
            filters=filters.parse(what, {}),
            files=shards.Files(kind, 3),
            out=folder / f"{what}-{format}-{kind}",
        )


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_commit(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: re.sub(rb'"bothsides_commit": .*', b"", data) for name, data in found.items()}


def test_twice_and_in_chunks_of_one(project, tmp_path, monkeypatch):
    exported(project, tmp_path / "one", wanted())
    monkeypatch.setattr(writing, "CHUNK", 1)
    exported(project, tmp_path / "two", wanted())
    assert bytes_in(tmp_path / "one") == bytes_in(tmp_path / "two")


def test_in_another_process(project, tmp_path):
    names = wanted()
    exported(project, tmp_path / "here", names)
    for seed in ("1", "2"):
        environment = site.environment(
            PYTHONHASHSEED=seed,
            BOTHSIDES_HOME=str(tmp_path / "home"),
            DJANGO_SETTINGS_MODULE="annotate.settings",
            TZ="Asia/Kathmandu",
            LC_ALL="C",
        )
        command = [sys.executable, "-c", EXPORT, project.slug, str(tmp_path / seed), *names]
        subprocess.run(command, check=True, env=environment, cwd=django_settings.BASE_DIR)
        # Somebody may commit meanwhile.
        assert without_commit(bytes_in(tmp_path / "here")) == without_commit(bytes_in(tmp_path / seed))


def test_no_time_of_day_and_no_place_is_in_it(project, tmp_path):
    exported(project, tmp_path / "out", ["comparisons/ranked/jsonl"])
    manifest = json.loads((tmp_path / "out" / "comparisons-ranked-jsonl" / "manifest.json").read_text())
    made = Export.objects.get()
    for told in (made.location, str(made.created_at.date()), str(tmp_path), made.location.rpartition("-")[2]):
        assert told not in json.dumps(manifest)


def test_interrupted_in_the_middle_and_gone_on_with(project, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK", 1)
    monkeypatch.setattr(writing, "KEEP_SECONDS", 0)
    exported(project, tmp_path / "whole", wanted())

    def interrupted(step, done, total):
        if step == snapshots.WRITING and done >= min(3, total - 1):
            raise KeyboardInterrupt

    for name in wanted():
        what, format, kind = name.split("/")
        how = {"format": format, "filters": filters.parse(what, {}), "files": shards.Files(kind, 3)}
        with pytest.raises(KeyboardInterrupt):
            snapshots.export(what, project=project, progress=interrupted, **how)
        cut = Export.objects.get(state=Export.State.STOPPED)
        snapshots.go_on(cut, out=tmp_path / "cut" / f"{what}-{format}-{kind}")
    assert bytes_in(tmp_path / "cut") == bytes_in(tmp_path / "whole")
