"""The copy of an export in a folder that somebody names: all of it or nothing."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from annotate.datasets.manifest import MANIFEST
from annotate.errors import Invalid

Open = Callable[[str], BinaryIO]
"""Opens a file of the export by its name."""


class Copy:
    """A folder beside `out` that becomes `out` by being renamed."""

    def __init__(self, out: Path, stage: Path):
        self.out, self.stage = out, stage

    def fill(self, names: list[str], opened: Open) -> None:
        """Copy the files. The manifest has no name yet, so that what a crash leaves does not look whole."""
        for name in names:
            target = self.stage / (f"{MANIFEST}.part" if name == MANIFEST else name)
            with opened(name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 2**20)

    def put_in_place(self) -> None:
        """Let `out` be there, now that the export is registered. Raises OSError."""
        (self.stage / f"{MANIFEST}.part").rename(self.stage / MANIFEST)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.stage, self.out)


def check(out: Path) -> None:
    """Raises Invalid where a copy cannot be put there."""
    try:
        _check(out)
    except OSError as error:
        raise Invalid(f"{out} cannot be written: {error.strerror}.") from None


def _check(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise Invalid(f"{out} is a file; --out names a folder.")
    if out.is_dir() and any(out.iterdir()):
        raise Invalid(f"{out} is not empty; name a new folder.")
    if out.is_mount():
        raise Invalid(f"{out} is where a disk is mounted; name a new folder in it.")
    if not _ancestor(out).is_dir():
        raise Invalid(f"{_ancestor(out)} is a file; --out names a folder.")


@contextmanager
def begun(out: Path | None, *, name: str) -> Iterator[Copy | None]:
    """The copy that is to become `out`, with nothing in it; what is not put in place is removed afterwards.

    `name` is the same when an export is gone on with, so that what a crash left is found. Raises OSError.
    """
    if out is None:
        yield None
        return
    stage = _ancestor(out) / f".{out.name}-{name}"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield Copy(out, stage)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _ancestor(out: Path) -> Path:
    """The nearest folder above that is there: a copy made in it is on the same disk."""
    return next(parent for parent in out.absolute().parents if parent.exists())
