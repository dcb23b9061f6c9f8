"""Dataset versions: written whole or not at all, kept in the storage of exports, registered, never changed.

An export is a job. `export` runs one in the foreground; `prepare` lets a worker run one; `go_on` runs what waits or
was cut short. The files grow in a working folder, see `checkpoint`, and come into the storage when all are whole.
"""

import secrets
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from django.db import DatabaseError, transaction
from django.utils import timezone

from annotate import jobs
from annotate.datasets import checkpoint, columns, copies, manifest, shards, stored
from annotate.datasets.filters import Filters, check
from annotate.datasets.running import ASKED, CLOSING, FINDING, JOINING, MIXING, STORING, WRITING, Progress, Running
from annotate.datasets.shards import Files
from annotate.datasets.stored import keys_of, opened
from annotate.datasets.what import What
from annotate.datasets.whats import WHATS, named
from annotate.errors import Invalid
from annotate.models import Export, Iteration, Project, User

__all__ = [
    "CLOSING",
    "FINDING",
    "JOINING",
    "MIXING",
    "STORING",
    "WHATS",
    "WRITING",
    "Progress",
    "export",
    "go_on",
    "keys_of",
    "named",
    "opened",
    "prepare",
    "remove_leftovers",
]

KEPT_FOR = timedelta(days=1)
"""How long the working folder of an export that failed or was stopped is kept."""


def _quiet(step: str, done: int, total: int | None) -> None:
    """Tell nobody."""


def export(
    what: What | str,
    *,
    project: Project,
    format: str,
    filters: Filters,
    files: Files | None = None,
    out: Path | None = None,
    progress: Progress = _quiet,
    created_by: User | None = None,
    parents: Sequence[Export] = (),
    keys: Sequence[int] | None = None,
) -> Export:
    """Write what counts as a new dataset version, here and now, and a copy of it to the folder `out`.

    With `keys` only these of its one parent, in the parent's order, and no query. Raises Invalid where there is
    nothing to export, the iteration does not exist, or `out` cannot be written or is not empty: nothing is left
    behind then. After Ctrl-C, or when the process was killed, `go_on` can finish it.
    """
    what = named(what)
    if out:
        copies.check(out)
    asked = _ask(what, project, format, filters, files or Files(), created_by, parents, keys, background=False)
    try:
        return _run(asked, out, progress)
    except (jobs.Stopped, jobs.Lost, DatabaseError):
        raise
    except Exception:
        if asked.state != Export.State.DONE:
            _undo(asked)
        raise


def prepare(
    *,
    what: What | str,
    project: Project,
    format: str,
    filters: Filters,
    files: Files | None = None,
    created_by: User | None = None,
    parents: Sequence[Export] = (),
    keys: Sequence[int] | None = None,
    background: bool = True,
) -> Export:
    """Ask for an export that a worker writes, or with `background` False whoever calls `go_on`; see `export`.

    Raises Invalid where it is asked for what there is not.
    """
    asked = _ask(
        named(what), project, format, filters, files or Files(), created_by, parents, keys, background=background
    )
    jobs.ring(asked)
    return asked


def go_on(export: Export, *, out: Path | None = None, progress: Progress = _quiet) -> Export:
    """Run an export that waits, or was cut short: what is written already stays. One that is done is copied to `out`.

    The bytes are those of an export that was not cut short. Raises Conflict where it is running elsewhere or, as a
    background job, has ended; Invalid as `export`.
    """
    if out:
        copies.check(out)
    if export.state == Export.State.DONE:
        _copy(export, out)
        return export
    if export.state == Export.State.RUNNING and checkpoint.died_here(export.pk, export.token):
        jobs.give_back(export, token=export.token, counts=True)
    elif export.state in Export.ENDED and not export.background:
        jobs.put_back(export)
    return _run(export, out, progress)


# --- Asking ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def _ask(
    what: What,
    project: Project,
    format: str,
    filters: Filters,
    files: Files,
    created_by: User | None,
    parents: Sequence[Export],
    keys: Sequence[int] | None,
    *,
    background: bool,
) -> Export:
    """The record of an export that waits to be written."""
    check(what=what.name, format=format, filters=filters, kind=shards.parse(files.as_json()).kind)
    # It could not be told from what is read back where a worker begins.
    if any(parent.project_id != project.pk for parent in parents):
        raise Invalid("An export has parents of its own project only.")
    asked = Export.objects.create(
        project=project,
        iteration=_iteration(project, filters),
        what=what.name,
        format=format,
        filters=filters.as_json(),
        files=files.as_json(),
        background=background,
        created_by=created_by,
    )
    asked.parents.set(parents)
    if keys is not None:
        if len(parents) != 1:
            raise Invalid("Keys are those of one parent.")
        name = f"{project.slug}/asked-{secrets.token_hex(6)}{stored.KEYS}"
        stored.save(name, zlib.compress(columns.as_bytes(array("q", keys))))
        asked.files[ASKED] = name
        asked.save(update_fields=["files"])
    return asked


def _iteration(project: Project, filters: Filters) -> Iteration | None:
    if filters.iteration is None:
        return None
    rounds = {one.number: one for one in Iteration.objects.filter(project=project).order_by("number")}
    if filters.iteration not in rounds:
        known = ", ".join(map(str, rounds)) or "none yet"
        raise Invalid(f"Project {project.slug} has no iteration {filters.iteration}. Iterations: {known}.")
    return rounds[filters.iteration]


def _undo(asked: Export) -> None:
    """Leave nothing of an export that was refused in the foreground."""
    checkpoint.remove(checkpoint.folder_of(asked.pk))
    _forget_asked(asked)
    asked.delete()


def _forget_asked(asked: Export) -> None:
    if name := asked.files.get(ASKED):
        stored.remove(name)


# --- Running ---------------------------------------------------------------------------------------------------------


def _run(asked: Export, out: Path | None, progress: Progress) -> Export:
    out = out and out.resolve()
    with _said_clearly(out), copies.begun(out, name=f"export-{asked.pk}") as copy:
        # Once more within, so that the job keeps the same reason.
        with jobs.running(asked) as run, _said_clearly(out), checkpoint.held(asked.pk, run.token) as folder:
            running = Running(asked, folder, run, progress)
            try:
                running.write_and_register(copy)
            except stored.Gone:
                # What was moved to the storage is lost, and here it is no more.
                running.clear()
                running.write_and_register(copy)
            checkpoint.remove(folder)
        _forget_asked(asked)
        if copy:
            _put(asked, copy)
    return asked


@contextmanager
def _said_clearly(out: Path | None) -> Iterator[None]:
    """A full disk and the like as Invalid, with the place and the reason."""
    try:
        yield
    except OSError as error:
        where = error.filename or out
        told = f"{where}: {error.strerror or error}" if where else error.strerror or error
        raise Invalid(f"The export cannot be written: {told}.") from error


def _put(asked: Export, copy: copies.Copy) -> None:
    try:
        copy.put_in_place()
    except OSError as error:
        raise Invalid(
            f"Export {asked.pk} is registered, but its copy cannot be put in {copy.out}: {error.strerror}. "
            f"manage.py export --go-on {asked.pk} --out DIR makes another."
        ) from error


def _copy(export: Export, out: Path | None) -> None:
    """Copy an export that is done."""
    with _said_clearly(out), copies.begun(out and out.resolve(), name=f"export-{export.pk}") as copy:
        if copy:
            copy.fill([*export.manifest["files"], manifest.MANIFEST], lambda name: opened(export, name))
            copy.put_in_place()


# --- What is left over -----------------------------------------------------------------------------------------------


def remove_leftovers() -> int:
    """Remove working folders here that nobody needs any more, and what their exports left in the storage. How many.

    What failed or was stopped can be gone on with for a day.
    """
    removed = 0
    for pk, folder in checkpoint.folders():
        found = Export.objects.filter(pk=pk).first()
        unfinished = found is not None and found.state != Export.State.DONE
        if unfinished and (found.ended_at is None or found.ended_at > timezone.now() - KEPT_FOR):
            continue
        if not checkpoint.is_free(pk):
            continue
        location = checkpoint.location_in(folder)
        if location and not Export.objects.filter(location=location).exists():
            stored.remove_folder(location)
        checkpoint.remove(folder)
        removed += 1
    return removed
