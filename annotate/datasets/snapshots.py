"""Dataset versions: written whole or not at all, kept in the storage of exports, registered, never changed.

An export is a job. `export` runs one in the foreground; `prepare` lets a worker run one; `go_on` runs what waits or
was cut short. The files grow in a working folder, see `checkpoint`, and come into the storage when all are whole.
"""

import hashlib
import secrets
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from django.core.files.storage import default_storage
from django.db import DatabaseError, transaction
from django.utils import timezone

from annotate import families, jobs
from annotate.datasets import checkpoint, columns, copies, manifest, schemas, shapes, shards, stored, writing
from annotate.datasets.checkpoint import State
from annotate.datasets.columns import Column
from annotate.datasets.comparisons import COMPARISONS
from annotate.datasets.conversations import CONVERSATIONS
from annotate.datasets.demonstrations import DEMONSTRATIONS
from annotate.datasets.filters import Filters, check, parse
from annotate.datasets.personal_data import Scan
from annotate.datasets.prompts import PROMPTS
from annotate.datasets.shards import Files
from annotate.datasets.stored import keys_of, opened
from annotate.datasets.what import What
from annotate.errors import Invalid
from annotate.models import Export, Iteration, Project, User

__all__ = ["WHATS", "export", "go_on", "keys_of", "opened", "prepare", "remove_leftovers"]

WHATS = {what.name: what for what in (COMPARISONS, DEMONSTRATIONS, CONVERSATIONS, PROMPTS)}
"""All that can be exported, by name."""

Progress = Callable[[str, int, int | None], None]
"""Told the step that is being done, how much of it is done, and of how much where that is known."""

ASKED = "asked_keys"
"""Where in `Export.files` it stands under which name keys that were asked for lie in the storage."""

KEPT_FOR = timedelta(days=1)
"""How long the working folder of an export that failed or was stopped is kept."""

JOINING, FINDING, WRITING, MIXING = "Joining families", "Finding what counts", "Writing lines", "Mixing in"
CLOSING, STORING = "Closing files", "Storing files"


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
) -> Export:
    """Ask for an export that a worker writes; see `export`. Raises Invalid where it is asked for what there is not."""
    asked = _ask(named(what), project, format, filters, files or Files(), created_by, parents, keys, background=True)
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


def named(what: What | str) -> What:
    """What is exported, by its name. Raises Invalid where there is no such thing."""
    if isinstance(what, What):
        return what
    if what not in WHATS:
        raise Invalid(f"There is no export of {what}. What there is: {', '.join(WHATS)}.")
    return WHATS[what]


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
            running = _Running(asked, folder, run, progress)
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


class _Running:
    """One export while this process writes it."""

    def __init__(self, asked: Export, folder: Path, run: jobs.Run, progress: Progress):
        self.asked, self.folder, self.run, self.progress = asked, folder, run, progress
        self.project, self.what = asked.project, named(asked.what).of(asked.format)
        self.filters = parse(asked.what, asked.filters)
        self.files = shards.of(asked.files)
        self.shape = shapes.of(asked.format, getattr(self.filters, "margin", None))
        self.final = folder / "files"

    def tell(self, step: str, done: int, total: int | None = None) -> None:
        """Say how far it is, to whoever looks at the record and to whoever started it."""
        self.run.tell(done=done, total=total, step=step)
        self.progress(step, done, total)

    def clear(self) -> None:
        """Forget what is written so far, here and in the storage."""
        if location := checkpoint.location_in(self.folder):
            stored.remove_folder(location)
        checkpoint.clear(self.folder)

    def write_and_register(self, copy: copies.Copy | None) -> None:
        """Go on from what is written to the end."""
        written = self._begun()
        total = written.state.keys
        splits = written.write(
            lambda done: self.tell(WRITING, done, total),
            lambda done: self.tell(MIXING, done),
        )
        state = written.state
        if not splits:
            raise Invalid(self.what.no_lines(self.asked.format, self.filters, state.tally))
        self.tell(CLOSING, 0)
        made = self._finish(state, splits)
        self.tell(STORING, 0)
        self._store(made, copy)

    def _begun(self) -> writing.Writing:
        """What is written so far, which may be nothing yet."""
        code = f"{manifest.code_version()} {manifest.code_commit()}"
        state = checkpoint.kept(self.folder, code=code)
        if state:
            try:
                return self._writing(state)
            except (OSError, ValueError):
                # Something was taken away; what cannot be gone on from begins again.
                pass
        self.clear()
        families.join_pending(project=self.project, progress=lambda done, total: self.tell(JOINING, done, total))
        with transaction.atomic():
            pairs = self._asked_pairs() or self.what.keys(self.project, self.filters)
            keys = writing.find(self.folder, pairs, lambda count: self.tell(FINDING, count))
        if not keys:
            raise Invalid(self.what.nothing(self.project, self.filters))
        tally = self.what.tally(self.project, self.asked.format, self.filters)
        personal = self.filters.personal
        scan = None if personal == "ignore" else Scan(redact=personal == "redact")
        state = State(code=code, keys=keys, tally=tally, scan=scan)
        checkpoint.keep(self.folder, state)
        return self._writing(state)

    def _writing(self, state: State) -> writing.Writing:
        return writing.Writing(
            what=self.what,
            project=self.project,
            format=self.asked.format,
            filters=self.filters,
            files=self.files,
            folder=self.folder,
            state=state,
        )

    def _asked_pairs(self) -> Iterator[tuple[int, int]] | None:
        """The pairs of its parent that were asked for, where they were."""
        name = self.asked.files.get(ASKED)
        if name is None:
            return None
        with default_storage.open(name) as file:
            wanted = iter(columns.from_bytes(zlib.decompress(file.read())))
        return _only(stored.pairs_of(self.asked.parents.get()), wanted)

    def _finish(self, state: State, splits: dict[str, shards.Split]) -> dict:
        """Give the files their names and write those beside them; the manifest. May be done again after a crash."""
        self.final.mkdir(exist_ok=True)
        listed, by_split = {}, {}
        for name in [name for name in shapes.SPLITS if name in splits]:
            moved = splits[name].move_to(self.final)
            by_split[name] = list(moved)
            listed |= {file: shard.as_json() for file, shard in moved.items()}
        title = f"{self.what.title} of {self.project.name}"
        beside = {
            manifest.CARD: manifest.card(
                title=title, about=self.what.about, format=self.asked.format, shape=self.shape, splits=by_split
            ),
            manifest.SCHEMA: schemas.json_schema(title=f"{self.asked.format}: {title}", shape=self.shape),
        }
        if self.asked.format in self.what.beside:
            beside |= self.what.beside[self.asked.format](by_split)
        for name, data in beside.items():
            (self.final / name).write_bytes(data)
            listed[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        return manifest.make(
            project=self.project,
            what=self.what.name,
            format=self.asked.format,
            says=self.what.says,
            filters=self.filters.as_json(),
            tally=state.tally,
            held_out=state.held_out,
            personal_data=state.scan and state.scan.report(),
            parents=self._parents(),
            files_kind=self.files.kind,
            files=listed,
        )

    def _parents(self) -> list[dict]:
        parents = [
            {"kind": "export", "name": f"{one.what} {one.format}", "export": one.pk, "digest": one.digest}
            for one in self.asked.parents.order_by("pk")
        ]
        return parents + self.what.parents(self.project, self.filters)

    def _store(self, made: dict, copy: copies.Copy | None) -> None:
        """Move the files to the storage and register them. Takes them back where that fails."""
        location = self._location(made["digest"])
        try:
            stored.put(self.final, location, made, self.folder / writing.KEPT)
            if copy:
                copy.fill([*made["files"], manifest.MANIFEST], lambda name: default_storage.open(f"{location}/{name}"))
            self._register(made, location)
        except (jobs.Lost, DatabaseError):
            # It can be gone on with from here, as after a crash.
            raise
        except Exception:
            stored.remove_folder(location)
            if not all((self.final / name).exists() for name in made["files"]):
                # They were moved; what is left here is no longer all of it.
                self.clear()
            raise

    def _location(self, digest: str) -> str:
        """The folder in the storage: one that nobody can guess, and the same when this is done again after a crash."""
        asked = self.asked
        beginning = f"{self.project.slug}/{asked.what}-{asked.format}-{digest[:12]}-"
        location = checkpoint.location_in(self.folder)
        if not location.startswith(beginning):
            location = f"{beginning}{secrets.token_hex(6)}"
            checkpoint.keep_location(self.folder, location)
        return location

    def _register(self, made: dict, location: str) -> None:
        asked = self.asked
        with transaction.atomic():
            if self.what.mark:
                for numbers in Column(self.folder / writing.KEPT).parts():
                    self.what.mark(numbers[1::2])
            asked.parents.add(*(one["export"] for one in made["parents"] if one.get("export")))
            jobs.end(
                asked,
                token=self.run.token,
                state=Export.State.DONE,
                manifest=made,
                digest=made["digest"],
                rows=made["counts"]["rows"],
                location=location,
            )
        # Read back from the database its fields would stand in another order.
        asked.manifest = made


def _only(pairs: Iterable[tuple[int, int]], wanted: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Those of the pairs whose keys are wanted; both come in the same order. Raises Invalid where one is not there."""
    key = next(wanted, None)
    for pair in pairs:
        if pair[1] == key:
            yield pair
            key = next(wanted, None)
    if key is not None:
        raise Invalid("Keys are asked for that are not in the parent, or stand in another order there.")


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
