"""An export that is cut short, by Ctrl-C, a full disk or killed anywhere: it goes on, and ends with the same bytes."""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import DatabaseError, connections
from django.utils import timezone

from annotate import jobs
from annotate.datasets import checkpoint, copies, filters, manifest, shards, snapshots, stored, writing
from annotate.errors import Conflict, Invalid, Unavailable
from annotate.models import Export, Ranking
from tests import factory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

RANKINGS = 9
FILES = shards.Files(shard_rows=2)


@pytest.fixture(autouse=True)
def home(settings, tmp_path, monkeypatch) -> Path:
    """The home folder, with the storage of exports in it. A chunk is one ranking, and each is kept at once."""
    settings.BOTHSIDES_HOME = tmp_path / "home"
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "home" / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    monkeypatch.setattr(writing, "CHUNK", 1)
    monkeypatch.setattr(writing, "KEEP_SECONDS", 0)
    return tmp_path / "home"


@pytest.fixture
def project():
    made = factory.project(overlap=1)
    brought_in = factory.imported_in(made)
    for number in range(RANKINGS):
        _rank(made, f"Question {number}", brought_in)
    return made


def _rank(project, opening: str, brought_in=None) -> None:
    turns = ("user", opening), ("assistant", f"Answer to {opening}")
    talk = factory.imported(project, *turns, imported_in=brought_in)
    factory.imported_comparison(project, (turns[1][1], "A tie"), ("Another",), conversation=talk)


def export(project, out: Path | None = None, files: shards.Files = FILES, **more) -> Export:
    wanted = {"project": project, "format": "ranked", "filters": filters.Comparisons(), "files": files, "out": out}
    return snapshots.export("comparisons", **wanted | more)


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored_bytes(export: Export) -> dict[str, bytes]:
    names = default_storage.listdir(export.location)[1]
    return {name: snapshots.opened(export, name).read() for name in names}


def nothing_looks_whole(home: Path, out: Path) -> None:
    """Of an export that is not done no manifest is anywhere but in the storage, where it is not registered yet."""
    assert not out.exists()
    elsewhere = (home / "exports", out.parent / "wanted")
    left = [path for path in out.parent.rglob("manifest.json") if not set(elsewhere) & set(path.parents)]
    assert left == []


def killed(run: Callable[[], object], *, module, name: str, at: int) -> None:
    """Run it in a process that kills itself in the call of this number of a function, once that is done."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "it came to its end"
        assert os.WTERMSIG(status) == signal.SIGKILL
        return
    try:
        _let_go_of_the_parents_connection()
        calls, former = [], getattr(module, name)

        def last(*arguments, **named):
            answer = former(*arguments, **named)
            calls.append(name)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        setattr(module, name, last)
        run()
    except BaseException:
        # Where the capture does not see it: what the parent prints of a test that failed.
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(1)


def _let_go_of_the_parents_connection() -> None:
    # Kept, so that nothing says good-bye on a connection that is the parent's.
    wrapper = connections["default"]
    _KEPT.append((wrapper.connection, dict(wrapper._connection_pools)))
    wrapper._connection_pools.clear()
    wrapper.connection = None


_KEPT: list = []

POINTS = [
    (writing, "find", 1, "jsonl"),
    (checkpoint, "keep", 1, "jsonl"),
    (checkpoint, "keep", 5, "jsonl"),
    (checkpoint, "keep", 6, "jsonl.zst"),
    (shards.Split, "close_shard", 2, "jsonl"),
    (shards.Split, "close_shard", 3, "jsonl.zst"),
    (shards.Split, "close_shard", 2, "parquet"),
    (shards.Split, "forget_spent", 9, "parquet"),
    (shards.Split, "move_to", 1, "jsonl"),
    (checkpoint, "keep_location", 1, "jsonl.zst"),
    (default_storage, "save", 1, "parquet"),
    (default_storage, "save", 3, "jsonl"),
    (stored, "put", 1, "jsonl"),
    (copies.Copy, "fill", 1, "jsonl"),
    (jobs, "end", 1, "jsonl"),
    (checkpoint, "remove", 1, "jsonl"),
]


IN_A_HURRY = ("keep-5-jsonl", "close_shard-2-parquet", "save-3-jsonl", "end-1-jsonl")
"""The points that are tried when there is little time."""


def _points() -> Iterator:
    for point in POINTS:
        name = "-".join(map(str, point[1:]))
        yield pytest.param(*point, id=name, marks=() if name in IN_A_HURRY else pytest.mark.slow)


@pytest.mark.parametrize(("module", "name", "at", "kind"), list(_points()))
def test_killed_anywhere_it_ends_with_the_same_bytes(project, home, tmp_path, module, name, at, kind):
    files, out = shards.Files(kind=kind, shard_rows=2), tmp_path / "out"
    wanted = export(project, tmp_path / "wanted", files)
    killed(lambda: export(project, out, files), module=module, name=name, at=at)
    cut = Export.objects.exclude(pk=wanted.pk).get()
    if cut.state == Export.State.RUNNING:
        nothing_looks_whole(home, out)
        assert (cut.location, cut.manifest) == ("", {})
    snapshots.go_on(cut, out=out)
    assert cut.state == Export.State.DONE
    assert bytes_in(out) == bytes_in(tmp_path / "wanted") == stored_bytes(cut)
    assert list(snapshots.keys_of(cut)) == list(snapshots.keys_of(wanted))
    assert snapshots.remove_leftovers() in (0, 1)
    assert list((home / "tmp").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out", "wanted"]
    folders, keys = default_storage.listdir(project.slug)
    assert (len(folders), len(keys)) == (2, 2)


def test_what_is_written_is_not_written_again(project, tmp_path, monkeypatch):
    killed(lambda: export(project), module=checkpoint, name="keep", at=6)
    cut, told = Export.objects.get(), []
    snapshots.go_on(cut, progress=lambda step, done, total: told.append((step, done, total)))
    lines = [(done, total) for step, done, total in told if step == snapshots.WRITING]
    assert lines[0] == (5, RANKINGS)
    assert lines[-1] == (RANKINGS, RANKINGS)
    assert snapshots.FINDING not in {step for step, _, _ in told}
    assert (cut.attempt, cut.rows) == (2, RANKINGS)


def test_what_was_ranked_meanwhile_is_not_in_it(project, tmp_path):
    wanted = export(project)
    killed(lambda: export(project), module=checkpoint, name="keep", at=3)
    _rank(project, "Late")
    cut = Export.objects.exclude(pk=wanted.pk).get()
    assert snapshots.go_on(cut).digest == wanted.digest


def test_without_its_folder_it_begins_again(project, home, tmp_path):
    wanted = export(project, tmp_path / "wanted")
    killed(lambda: export(project), module=default_storage, name="save", at=2)
    shutil.rmtree(home / "tmp")
    cut = Export.objects.exclude(pk=wanted.pk).get()
    Export.objects.filter(pk=cut.pk).update(lease_until=timezone.now())
    snapshots.go_on(cut, out=tmp_path / "out")
    assert bytes_in(tmp_path / "out") == bytes_in(tmp_path / "wanted")


@pytest.mark.parametrize(
    "harm",
    ["exports", *(pytest.param(name, marks=pytest.mark.slow) for name in ("checkpoint", "keys", "kept", "lines"))],
)
def test_where_something_of_it_is_gone_it_begins_again(project, home, tmp_path, harm):
    wanted = export(project, tmp_path / "wanted")
    killed(lambda: export(project), module=default_storage, name="save", at=2)
    cut = Export.objects.exclude(pk=wanted.pk).get()
    folder = checkpoint.folder_of(cut.pk)
    if harm == "exports":
        shutil.rmtree(home / "exports")
    elif harm == "lines":
        shutil.rmtree(folder / "files")
    elif harm == "checkpoint":
        (folder / harm).write_bytes(b"broken")
    else:
        (folder / harm).unlink()
    snapshots.go_on(cut, out=tmp_path / "out")
    assert bytes_in(tmp_path / "out") == bytes_in(tmp_path / "wanted")


def test_another_version_of_the_program_begins_again(project, tmp_path, monkeypatch):
    killed(lambda: export(project), module=checkpoint, name="keep", at=5)
    monkeypatch.setattr(manifest, "code_version", lambda: "99.0")
    told = []
    cut = snapshots.go_on(Export.objects.get(), progress=lambda step, done, total: told.append(step))
    assert snapshots.FINDING in told
    assert cut.manifest["bothsides_version"] == "99.0"


def test_ctrl_c_stops_it_and_it_can_go_on(project, home, tmp_path):
    def interrupted(step, done, total):
        if step == snapshots.WRITING and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(project, tmp_path / "out", progress=interrupted)
    cut = Export.objects.get()
    assert (cut.state, cut.reason) == (Export.State.STOPPED, "It was interrupted.")
    nothing_looks_whole(home, tmp_path / "out")
    snapshots.go_on(cut, out=tmp_path / "out")
    wanted = export(project, tmp_path / "wanted")
    assert bytes_in(tmp_path / "out") == bytes_in(tmp_path / "wanted")
    assert cut.digest == wanted.digest


def test_one_that_runs_is_left_alone(project):
    other = []

    def meanwhile(step, done, total):
        if step == snapshots.WRITING and done == 3 and not other:
            other.append(Export.objects.get())
            with pytest.raises(Conflict, match="is running and cannot be begun"):
                snapshots.go_on(other[0])

    assert export(project, progress=meanwhile).state == Export.State.DONE
    assert other


def test_one_whose_lease_ran_out_is_not_written_by_two(project, monkeypatch):
    def meanwhile(step, done, total):
        if step == snapshots.WRITING and done == 3:
            held = Export.objects.get()
            Export.objects.filter(pk=held.pk).update(lease_until=timezone.now())
            with pytest.raises(Conflict, match="Another process still writes export"):
                snapshots.go_on(held)

    monkeypatch.setattr(checkpoint, "LONGEST_WAIT", 1)
    with pytest.raises(jobs.Lost):
        export(project, progress=meanwhile)


def test_one_that_is_done_is_copied(project, tmp_path):
    done = export(project)
    snapshots.go_on(done, out=tmp_path / "out")
    assert bytes_in(tmp_path / "out") == stored_bytes(done)
    assert (done.attempt, Export.objects.count()) == (1, 1)


class TestInTheBackground:
    @pytest.fixture
    def asked(self, project):
        return snapshots.prepare(
            what="comparisons", project=project, format="ranked", filters=filters.Comparisons(), files=FILES
        )

    def test_it_waits_until_somebody_goes_on_with_it(self, project, asked, tmp_path):
        assert (asked.state, asked.background) == (Export.State.WAITING, True)
        assert snapshots.go_on(asked).digest == export(project).digest

    def test_what_was_stopped_stays_so_until_it_is_put_back(self, asked):
        jobs.ask_to_stop(asked)
        with pytest.raises(Conflict, match="is stopped and cannot be begun"):
            snapshots.go_on(asked)
        jobs.put_back(asked)
        assert snapshots.go_on(asked).state == Export.State.DONE

    def test_nothing_to_export_is_told_as_the_reason(self, asked):
        Ranking.objects.update(current=False)
        with pytest.raises(Invalid, match="There is nothing to export"):
            snapshots.go_on(asked)
        asked.refresh_from_db()
        assert asked.state == Export.State.FAILED
        assert asked.reason.startswith("There is nothing to export: no ranking matches.")

    def test_a_disk_that_is_full_in_the_middle(self, asked, monkeypatch):
        written, full = [], shards.Split.write

        def write(split, lines, rows):
            written.append(rows)
            if len(written) == 5:
                raise OSError(28, "No space left on device")
            full(split, lines, rows)

        monkeypatch.setattr(shards.Split, "write", write)
        with pytest.raises(Invalid, match="No space left on device"):
            snapshots.go_on(asked)
        asked.refresh_from_db()
        assert (asked.state, asked.location) == (Export.State.FAILED, "")
        assert asked.reason == "The export cannot be written: No space left on device."
        jobs.put_back(asked)
        assert snapshots.go_on(asked).rows == RANKINGS
        assert len(written) == RANKINGS + 1

    def test_a_storage_that_breaks_off_gives_back_what_it_took(self, project, asked, monkeypatch):
        wanted = export(project)
        save, saved = FileSystemStorage.save, []

        def broken(storage, name, *more, **named):
            saved.append(name)
            if len(saved) == 3:
                raise RuntimeError("bucket\nis away")
            return save(storage, name, *more, **named)

        with monkeypatch.context() as patched:
            patched.setattr(FileSystemStorage, "save", broken)
            with pytest.raises(Unavailable):
                snapshots.go_on(asked)
        asked.refresh_from_db()
        assert asked.state == Export.State.FAILED
        assert asked.reason == "The storage of exports does not take it: RuntimeError: bucket is away"
        assert default_storage.listdir(project.slug)[0] == [Path(wanted.location).name]
        jobs.put_back(asked)
        assert snapshots.go_on(asked).digest == wanted.digest

    def test_a_database_that_goes_away_at_the_end(self, project, asked, monkeypatch):
        def away(*_, **__):
            raise DatabaseError("gone")

        with monkeypatch.context() as patched:
            patched.setattr(jobs, "end", away)
            with pytest.raises(DatabaseError):
                snapshots.go_on(asked)
        Export.objects.filter(pk=asked.pk).update(lease_until=timezone.now())
        asked.refresh_from_db()
        assert snapshots.go_on(asked).digest == export(project).digest
        assert len(default_storage.listdir(project.slug)[0]) == 2


class TestLeftovers:
    @pytest.fixture
    def cut(self, project):
        killed(lambda: export(project), module=stored, name="put", at=1)
        return Export.objects.get()

    def test_what_can_go_on_stays(self, cut, project):
        assert snapshots.remove_leftovers() == 0
        assert checkpoint.folder_of(cut.pk).is_dir()

    def test_what_failed_long_ago_is_removed_with_what_it_stored(self, cut, project, home):
        ended = timezone.now() - snapshots.KEPT_FOR
        fields = {"state": Export.State.FAILED, "token": None, "lease_until": None, "ended_at": ended}
        Export.objects.filter(pk=cut.pk).update(**fields)
        assert default_storage.listdir(project.slug)[0] != []
        assert snapshots.remove_leftovers() == 1
        assert list((home / "tmp").iterdir()) == []
        assert default_storage.listdir(project.slug) == ([], [])

    def test_what_is_deleted_is_removed(self, cut, project, home):
        cut.delete()
        assert snapshots.remove_leftovers() == 1
        assert default_storage.listdir(project.slug) == ([], [])

    def test_what_is_done_keeps_its_files(self, project, home):
        killed(lambda: export(project), module=jobs, name="end", at=1)
        (done,) = Export.objects.all()
        if done.state != Export.State.DONE:
            snapshots.go_on(done)
        (home / "tmp" / f"export-{done.pk}").mkdir(exist_ok=True)
        checkpoint.keep_location(checkpoint.folder_of(done.pk), done.location)
        assert snapshots.remove_leftovers() == 1
        assert stored_bytes(done)["manifest.json"]

    def test_one_that_is_written_now_stays(self, project):
        removed = []

        def meanwhile(step, done, total):
            Export.objects.update(
                state="failed", token=None, lease_until=None, ended_at=timezone.now() - 2 * snapshots.KEPT_FOR
            )
            removed.append(snapshots.remove_leftovers())

        with pytest.raises(jobs.Lost):
            export(project, progress=meanwhile)
        assert set(removed) == {0}
