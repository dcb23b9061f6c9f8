"""Dataset versions: written whole or not at all, kept in the storage of exports, registered, never changed."""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import transaction

from annotate.datasets import comparisons, manifest
from annotate.datasets.comparisons import Filters
from annotate.errors import Invalid
from annotate.models import Export, Iteration, Project

WHAT = "comparisons"

Progress = Callable[[Iterable[dict], int], Iterable[dict]]
"""Given rows as they come and about how many they will be: the same rows, shown to somebody."""


def export_comparisons(
    *,
    project: Project,
    format: str,
    filters: Filters,
    out: Path | None = None,
    progress: Progress = lambda rows, total: rows,
) -> Export:
    """Write the rankings that count as a new dataset version, and a copy of it to the folder `out`.

    Raises Invalid where there is nothing to export, the iteration does not exist, or `out` cannot be written or is
    not empty; nothing is left behind then.
    """
    _check_iteration(project, filters)
    found = comparisons.rankings(project=project, filters=filters)
    total = found.count()
    if not total:
        raise Invalid(_nothing(filters))
    try:
        out = out and out.resolve()
        with ExitStack() as stack:
            stage = stack.enter_context(_stage(out)) if out else None
            folder = stack.enter_context(_room())
            made = _write(folder, project, format, filters, progress(_rows(found), total))
            if stage:
                shutil.copytree(folder, stage, dirs_exist_ok=True)
            export = _register(project, format, filters, made, folder)
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


def _nothing(filters: Filters) -> str:
    more = [name for name in comparisons.INCLUDE if name not in filters.include]
    hint = f" --include {' '.join(more)} would add those." if more else ""
    states = {"open": "of open comparisons", "surplus": "that came in too late"}
    return f"There is nothing to export: no ranking matches. {_left_out(states, more)}{hint}".strip()


def _left_out(states: dict[str, str], more: list[str]) -> str:
    return f"Rankings {' and '.join(states[name] for name in more)} are left out." if more else ""


def _rows(found) -> Iterator[dict]:
    """The rows through a server-side cursor, which lives as long as the transaction; no network call is made in it."""
    with transaction.atomic():
        yield from comparisons.whole_rows(found).iterator(chunk_size=comparisons.CHUNK)


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


def _write(folder: Path, project: Project, format: str, filters: Filters, rows: Iterable[dict]) -> dict:
    """Write the lines, the card and the manifest; the manifest. Raises Invalid where no line came of the rows."""
    render, make, tally = comparisons.Renderer(project), comparisons.FORMATS[format], manifest.Tally()
    splits: dict[str, _Split] = {}
    with ExitStack() as files:
        for row in rows:
            line = render.ranked(row)
            name = line["split"]
            if filters.split not in (None, name):
                continue
            lines = list(make(line))
            tally.add(line, len(lines))
            if not lines:
                continue
            if name not in splits:
                splits[name] = _Split(folder / f"{name}.jsonl")
                files.enter_context(splits[name].file)
            splits[name].write(lines)
    if not splits:
        raise Invalid(_no_lines(format, filters, tally))
    names = [name for name in manifest.SPLITS if name in splits]
    card = manifest.card(project=project, format=format, splits=names)
    described = {f"{name}.jsonl": splits[name].as_json() for name in names}
    described[manifest.CARD] = {"sha256": hashlib.sha256(card).hexdigest(), "bytes": len(card)}
    made = manifest.make(project=project, what=WHAT, format=format, filters=filters, tally=tally, files=described)
    (folder / manifest.CARD).write_bytes(card)
    (folder / manifest.MANIFEST).write_bytes(manifest.as_bytes(made))
    return made


def _no_lines(format: str, filters: Filters, tally: manifest.Tally) -> str:
    if not tally.rankings:
        return f"There is nothing to export: no ranking belongs to the split {filters.split}."
    where = "the only ranking" if tally.rankings == 1 else f"each of the {tally.rankings:,} rankings"
    return f"There is nothing to export: {format} holds no ties, and in {where} all are tied."


class _Moved(File):
    """A file that storage in folders may move instead of copying it."""

    def temporary_file_path(self) -> str:
        """Where it lies (the name is Django's)."""
        return self.file.name


def _register(project: Project, format: str, filters: Filters, made: dict, folder: Path) -> Export:
    """Move the files to the storage, then make the record of them. Takes the files back where that fails."""
    location = f"{project.slug}/{WHAT}-{format}-{made['digest'][:12]}-{secrets.token_hex(4)}"
    stored: list[str] = []
    try:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                stored.append(default_storage.save(f"{location}/{path.name}", _Moved(file)))
        iteration = Iteration.objects.filter(project=project, number=filters.iteration).first()
        return Export.objects.create(
            project=project,
            iteration=iteration,
            what=WHAT,
            format=format,
            filters=filters.as_json(),
            manifest=made,
            digest=made["digest"],
            rows=made["counts"]["rows"],
            location=location,
        )
    except BaseException:
        for name in stored:
            default_storage.delete(name)
        default_storage.delete(location)
        raise
