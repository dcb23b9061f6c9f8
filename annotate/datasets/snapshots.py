"""Dataset versions: written whole or not at all, kept in the storage of exports, registered, never changed."""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotate.datasets import manifest
from annotate.datasets.comparisons import COMPARISONS
from annotate.datasets.demonstrations import DEMONSTRATIONS
from annotate.datasets.filters import Comparisons, Demonstrations, Filters
from annotate.datasets.what import What
from annotate.errors import Invalid
from annotate.models import Export, Iteration, Project

WHATS = {what.name: what for what in (COMPARISONS, DEMONSTRATIONS)}
"""All that can be exported, by name."""

Progress = Callable[[Iterable[dict], int], Iterable[dict]]
"""Given rows as they come and about how many they will be: the same rows, shown to somebody."""


def export_comparisons(*, project: Project, format: str, filters: Comparisons, **how) -> Export:
    """Write the rankings that count as a new dataset version; see `export`."""
    return export(COMPARISONS, project=project, format=format, filters=filters, **how)


def export_demonstrations(*, project: Project, format: str, filters: Demonstrations, **how) -> Export:
    """Write the conversations that count as a new dataset version; see `export`. None of them is revised any more."""
    return export(DEMONSTRATIONS, project=project, format=format, filters=filters, **how)


def export(
    what: What,
    *,
    project: Project,
    format: str,
    filters: Filters,
    out: Path | None = None,
    progress: Progress = lambda rows, total: rows,
) -> Export:
    """Write what counts as a new dataset version, and a copy of it to the folder `out`.

    Raises Invalid where there is nothing to export, the iteration does not exist, or `out` cannot be written or is
    not empty; nothing is left behind then.
    """
    _check_iteration(project, filters)
    found = what.found(project=project, filters=filters)
    total = found.count()
    if not total:
        raise Invalid(what.nothing(project, filters))
    try:
        out = out and out.resolve()
        with ExitStack() as stack:
            stage = stack.enter_context(_stage(out)) if out else None
            folder = stack.enter_context(_room())
            writing = _Writing(what, project, format, filters, folder)
            made = writing.write(progress(_rows(what, found), total))
            if stage:
                shutil.copytree(folder, stage, dirs_exist_ok=True)
            export = _register(writing, made)
            if stage:
                _put_in_place(stage, out)
            return export
    except OSError as error:
        raise Invalid(f"The export cannot be written: {error.filename or out or folder}: {error.strerror}.") from error


def _check_iteration(project: Project, filters: Filters) -> None:
    if filters.iteration is None:
        return
    numbers = list(Iteration.objects.filter(project=project).order_by("number").values_list("number", flat=True))
    if filters.iteration not in numbers:
        known = ", ".join(map(str, numbers)) or "none yet"
        raise Invalid(f"Project {project.slug} has no iteration {filters.iteration}. Iterations: {known}.")


def _rows(what: What, found: QuerySet) -> Iterator[dict]:
    """The rows through a server-side cursor, which lives as long as the transaction; no network call is made in it."""
    with transaction.atomic():
        yield from what.rows(found)


@contextmanager
def _room() -> Iterator[Path]:
    """A folder to write in. Under the home folder, because a folder for temporary files may be memory."""
    home = settings.BOTHSIDES_HOME / "tmp"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="export-", dir=home) as folder:
        yield Path(folder)


@contextmanager
def _stage(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` by being renamed. Raises Invalid where that would not work."""
    if out.exists() and not out.is_dir():
        raise Invalid(f"{out} is a file; --out names a folder.")
    if out.is_dir() and any(out.iterdir()):
        raise Invalid(f"{out} is not empty; name a new folder.")
    if out.is_mount():
        raise Invalid(f"{out} is where a disk is mounted; name a new folder in it.")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise Invalid(f"{parent} is a file; --out names a folder.")
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=parent))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _put_in_place(stage: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp lets nobody else in; the copy is as readable as other files of this user.
    umask = os.umask(0)
    os.umask(umask)
    stage.chmod(0o777 & ~umask)
    os.replace(stage, out)


encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


class _Split:
    """One file of lines and what is known of it so far."""

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.sha256, self.bytes, self.rows = hashlib.sha256(), 0, 0

    def write(self, lines: list[dict]) -> None:
        data = "".join(f"{encode(line)}\n" for line in lines).encode()
        self.file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)
        self.rows += len(lines)

    def as_json(self) -> dict:
        return {"sha256": self.sha256.hexdigest(), "bytes": self.bytes, "rows": self.rows}


class _Writing:
    """One dataset version on its way to a folder."""

    def __init__(self, what: What, project: Project, format: str, filters: Filters, folder: Path):
        self.what, self.project, self.format, self.filters, self.folder = what, project, format, filters, folder
        self.conversations = array("q")
        """Ids of the conversations in it, in the order of the lines; only where they are marked."""

    def write(self, rows: Iterable[dict]) -> dict:
        """Write the lines, the card and the manifest; the manifest. Raises Invalid where no line came of the rows."""
        what = self.what
        tally = what.tally(self.project, self.format, self.filters)
        splits = self._lines(rows, tally)
        if not splits:
            raise Invalid(what.no_lines(self.format, self.filters, tally))
        names = [name for name in manifest.SPLITS if name in splits]
        title = f"{what.title} of {self.project.name}"
        card = manifest.card(title=title, about=what.about, format=self.format, splits=names)
        files = {f"{name}.jsonl": splits[name].as_json() for name in names}
        files[manifest.CARD] = {"sha256": hashlib.sha256(card).hexdigest(), "bytes": len(card)}
        made = manifest.make(
            project=self.project,
            what=what.name,
            format=self.format,
            says=what.says,
            filters=self.filters.as_json(),
            tally=tally,
            files=files,
        )
        (self.folder / manifest.CARD).write_bytes(card)
        (self.folder / manifest.MANIFEST).write_bytes(manifest.as_bytes(made))
        return made

    def _lines(self, rows: Iterable[dict], tally) -> dict[str, "_Split"]:
        what, wanted = self.what, self.filters.split
        render, make = what.renderer(self.project), what.formats[self.format]
        splits: dict[str, _Split] = {}
        with ExitStack() as files:
            for _, group in groupby(map(render, rows), itemgetter(what.group)):
                whole = list(group)
                name = whole[0]["split"]
                if wanted not in (None, name):
                    continue
                lines = list(make(whole, self.filters))
                tally.add(whole, lines)
                if not lines:
                    continue
                if what.mark:
                    self.conversations.extend(line["conversation_id"] for line in whole)
                if name not in splits:
                    splits[name] = _Split(self.folder / f"{name}.jsonl")
                    files.enter_context(splits[name].file)
                splits[name].write(lines)
        return splits


class _Moved(File):
    """A file that storage in folders may move instead of copying it."""

    def temporary_file_path(self) -> str:
        """Where it lies (the name is Django's)."""
        return self.file.name


def _register(writing: _Writing, made: dict) -> Export:
    """Move the files to the storage, then make the record of them. Takes the files back where that fails."""
    what, project, format, filters = writing.what, writing.project, writing.format, writing.filters
    location = f"{project.slug}/{what.name}-{format}-{made['digest'][:12]}-{secrets.token_hex(4)}"
    stored: list[str] = []
    try:
        for path in sorted(writing.folder.iterdir()):
            with path.open("rb") as file:
                stored.append(default_storage.save(f"{location}/{path.name}", _Moved(file)))
        with transaction.atomic():
            if what.mark:
                what.mark(writing.conversations)
            return Export.objects.create(
                project=project,
                iteration=Iteration.objects.filter(project=project, number=filters.iteration).first(),
                what=what.name,
                format=format,
                filters=filters.as_json(),
                manifest=made,
                digest=made["digest"],
                rows=made["counts"]["rows"],
                location=location,
                state=Export.State.DONE,
                ended_at=timezone.now(),
            )
    except BaseException:
        for name in stored:
            default_storage.delete(name)
        default_storage.delete(location)
        raise
