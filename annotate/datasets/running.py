"""One export while a process runs it: from what is written of it so far to the files in the storage and the record."""

import hashlib
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from django.core.files.storage import default_storage
from django.db import DatabaseError, transaction

from annotate import families, jobs
from annotate.datasets import checkpoint, columns, copies, manifest, schemas, shapes, shards, stored, writing
from annotate.datasets.checkpoint import State
from annotate.datasets.columns import Column
from annotate.datasets.filters import parse
from annotate.datasets.personal_data import Scan
from annotate.datasets.whats import named
from annotate.errors import Invalid
from annotate.models import Export

Progress = Callable[[str, int, int | None], None]
"""Told the step that is being done, how much of it is done, and of how much where that is known."""

JOINING, FINDING, WRITING, MIXING = "Joining families", "Finding what counts", "Writing lines", "Mixing in"
CLOSING, STORING = "Closing files", "Storing files"
"""The steps, as they are told."""

ASKED = "asked_keys"
"""Where in `Export.files` it stands under which name keys that were asked for lie in the storage."""


class Running:
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
        written.check_made_from()
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
