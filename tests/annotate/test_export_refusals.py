"""`export` with bad input, or cut short: one line, exit code 2, and nothing left behind anywhere."""

from pathlib import Path

import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.management import CommandError, call_command

from annotate import jobs
from annotate.datasets import comparison_rows, comparisons, filters, snapshots
from annotate.models import Export
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(settings, tmp_path) -> Path:
    """The home folder, with the storage of exports in it."""
    settings.BOTHSIDES_HOME = tmp_path / "home"
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "home" / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    return tmp_path / "home"


@pytest.fixture
def project():
    made = factory.project(slug="demo", overlap=1)
    factory.ranking(factory.comparison_about(made, "One"))
    return made


@pytest.fixture
def nothing_left(tmp_path):
    """Holds after the test: no export is registered, and what lay there before is all that lies there."""
    yield
    assert not Export.objects.exists()
    left = {path for path in tmp_path.rglob("*") if path.is_file() and path.name != "mine"}
    assert left == set()
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "out").exists()


def refused(*arguments: str, format: str = "ranked") -> str:
    with pytest.raises(CommandError) as refusal:
        call_command("export", "comparisons", "--format", format, *arguments)
    message = str(refusal.value)
    assert refusal.value.returncode == 2
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("project", "nothing_left")
class TestRefused:
    def test_an_unknown_project(self, tmp_path):
        message = refused("--project", "nope", "--out", str(tmp_path / "out"))
        assert message == "There is no project nope. Projects: demo."

    def test_no_project_named_where_there_are_two(self, tmp_path):
        factory.project(slug="other")
        assert refused("--out", str(tmp_path / "out")) == "Name a project with --project: demo, other."

    def test_an_unknown_iteration(self, tmp_path):
        message = refused("--project", "demo", "--iteration", "7", "--out", str(tmp_path / "out"))
        assert message == "Project demo has no iteration 7. Iterations: 1."

    def test_a_folder_that_is_not_empty(self, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine").write_text("kept")
        message = refused("--project", "demo", "--out", str(tmp_path / "full"))
        assert message == f"{tmp_path}/full is not empty; name a new folder."
        assert (tmp_path / "full" / "mine").read_text() == "kept"

    def test_a_file_for_a_folder(self, tmp_path):
        (tmp_path / "mine").write_text("kept")
        assert "is a file" in refused("--project", "demo", "--out", str(tmp_path / "mine"))
        assert "is a file" in refused("--project", "demo", "--out", str(tmp_path / "mine" / "deeper"))

    def test_a_folder_that_nobody_can_write(self):
        # Not even root makes a folder in there.
        message = refused("--project", "demo", "--out", "/proc/bothsides/out")
        assert message.startswith("The export cannot be written: /proc/")

    def test_a_name_that_no_folder_can_have(self, tmp_path):
        out = tmp_path / ("n" * 300)
        assert refused("--project", "demo", "--out", str(out)) == f"{out} cannot be written: File name too long."

    def test_where_a_disk_is_mounted(self, tmp_path, monkeypatch):
        disk = tmp_path / "disk"
        disk.mkdir()
        monkeypatch.setattr(Path, "is_mount", lambda path: path == disk)
        message = refused("--project", "demo", "--out", str(disk))
        assert message == f"{disk} is where a disk is mounted; name a new folder in it."

    def test_a_split_without_rankings(self, tmp_path):
        (row,) = comparison_rows.rows([_found().get().pk])
        empty = "test" if comparisons.Renderer(_project()).ranked(row)["split"] != "test" else "train"
        message = refused("--project", "demo", "--split", empty, "--out", str(tmp_path / "out"))
        assert message == f"There is nothing to export: no ranking belongs to the split {empty}."

    def test_a_day_to_come(self, tmp_path):
        message = refused("--project", "demo", "--since", "2999-01-01", "--out", str(tmp_path / "out"))
        assert message.startswith("There is nothing to export: no ranking matches.")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["demonstrations", "--format", "ranked"],
            ["comparisons", "--format", "csv"],
            ["comparisons"],
            ["comparisons", "--format", "ranked", "--split", "dev"],
            ["comparisons", "--format", "ranked", "--include", "skipped"],
            ["comparisons", "--format", "ranked", "--iteration", "first"],
            ["comparisons", "--format", "ranked", "--since", "yesterday"],
            ["comparisons", "--format", "ranked", "--since", "2026-02-30"],
        ],
    )
    def test_words_that_it_does_not_know(self, arguments):
        with pytest.raises(CommandError):
            call_command("export", *arguments)


def _project():
    return comparisons.Project.objects.get(slug="demo")


def _found():
    return comparison_rows.rankings(project=_project(), filters=filters.Comparisons())


@pytest.mark.usefixtures("nothing_left")
class TestNothingThere:
    def test_no_ranking_at_all(self, tmp_path):
        factory.project(slug="empty")
        message = refused("--project", "empty", "--out", str(tmp_path / "out"))
        assert message.endswith("--include open surplus would add those.")

    def test_only_an_open_comparison(self, tmp_path):
        made = factory.project(slug="open", overlap=2)
        factory.ranking(factory.comparison_about(made, "One"))
        assert "--include open" in refused("--project", "open", "--out", str(tmp_path / "out"))

    def test_pairs_of_nothing_but_ties(self, tmp_path):
        made = factory.project(slug="tied", overlap=1)
        factory.ranking(factory.comparison_about(made, "One"), "A=B=C=D")
        message = refused("--project", "tied", "--out", str(tmp_path / "out"), format="preference")
        assert message == "There is nothing to export: preference holds no ties, and in the only ranking all are tied."


class FullDisk(FileSystemStorage):
    """Takes two files and then no more."""

    def _save(self, name, content):
        if len(list(Path(self.location).rglob("*.*"))) >= 2:
            raise OSError(28, "No space left on device")
        return super()._save(name, content)


@pytest.mark.usefixtures("nothing_left")
def test_a_storage_that_breaks_off(project, settings, home, tmp_path):
    full = {"BACKEND": "tests.annotate.test_export_refusals.FullDisk", "OPTIONS": {"location": home / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": full}
    (home / "exports").mkdir(parents=True)
    message = refused("--project", "demo", "--out", str(tmp_path / "out"))
    assert message.startswith("The export cannot be written:")
    assert message.endswith("No space left on device.")


@pytest.mark.usefixtures("nothing_left")
def test_a_record_that_cannot_be_made_takes_the_files_back(project, monkeypatch, tmp_path):
    end = jobs.end

    def broken(job, *, state, **fields):
        if state == Export.State.DONE:
            assert default_storage.exists(f"{fields['location']}/manifest.json")
            raise RuntimeError("the record is broken")
        end(job, state=state, **fields)

    monkeypatch.setattr(jobs, "end", broken)
    with pytest.raises(RuntimeError):
        snapshots.export(
            "comparisons", project=project, format="ranked", filters=filters.Comparisons(), out=tmp_path / "out"
        )
