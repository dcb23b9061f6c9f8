"""The working folder of an export: what is written so far, and how far that is, so that it can be gone on with.

Nothing in it looks like an export: files have no names of their own until all are whole, and there is no manifest.
"""

import fcntl
import logging
import os
import pickle
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from django.conf import settings

from annotate.datasets import shards
from annotate.errors import Conflict

logger = logging.getLogger(__name__)

CHECKPOINT, LOCK, LOCATION = "checkpoint", "lock", "location"

BEGINNING = "export-"

LONGEST_WAIT = 30
"""Seconds that are waited for one that still writes there."""


@dataclass
class State:
    """How far an export is. All of it is plain, so that it can be kept."""

    code: str
    """The version of the program that began it; another one might write other lines."""
    keys: int
    """Pairs of group and key that were found."""
    tally: Any
    scan: Any = None
    """The scan for personal data, where one is wanted."""
    done: int = 0
    """Pairs whose lines are written."""
    more: int = 0
    """Further groups that are written."""
    kept: int = 0
    """Pairs that came into the export."""
    families: int = 0
    """Digests of families that were noted."""
    own: int = 0
    """Groups of the record that are in it."""
    held_out: int = 0
    made_from: tuple[str, ...] = ()
    """What the further groups are from, as it was when the first of them was made."""
    splits: dict[str, shards.Written] = field(default_factory=dict)


def folder_of(pk: int) -> Path:
    """The working folder of an export. Under the home folder, because a folder for temporary files may be memory."""
    return settings.BOTHSIDES_HOME / "tmp" / f"{BEGINNING}{pk}"


@contextmanager
def held(pk: int, token: uuid.UUID) -> Iterator[Path]:
    """The working folder, which nobody else writes in while the block runs. Raises Conflict where somebody does."""
    folder = folder_of(pk)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        # Whoever lost the export hears of it soon, and lets go.
        for _ in range(LONGEST_WAIT):
            if _locked(lock):
                break
            time.sleep(1)
        else:
            raise Conflict(f"Another process still writes export {pk} here; try again in a minute.")
        # By its token a later one can tell that whoever held it died here.
        lock.seek(0)
        lock.truncate()
        lock.write(str(token))
        lock.flush()
        yield folder


def died_here(pk: int, token: uuid.UUID | None) -> bool:
    """Whether whoever holds the export by this token was a process on this machine that is no more."""
    try:
        with (folder_of(pk) / LOCK).open() as lock:
            return _locked(lock) and lock.read() == str(token)
    except OSError:
        return False


def is_free(pk: int) -> bool:
    """Whether no process on this machine writes in the working folder."""
    try:
        with (folder_of(pk) / LOCK).open() as lock:
            return _locked(lock)
    except OSError:
        return True


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def keep(folder: Path, state: State) -> None:
    """Remember how far it is; either whole or not at all."""
    new = folder / f"{CHECKPOINT}.new"
    with new.open("wb") as file:
        pickle.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / CHECKPOINT)


def kept(folder: Path, *, code: str) -> State | None:
    """How far it was when that was last kept; None where it has to begin again."""
    try:
        with (folder / CHECKPOINT).open("rb") as file:
            # From our own folder, in which nobody else writes.
            state = pickle.load(file)  # noqa: S301
        return state if isinstance(state, State) and state.code == code else None
    except FileNotFoundError:
        return None
    except Exception as error:
        logger.warning("The checkpoint in %s cannot be read, so that it begins again: %s", folder, error)
        return None


def keep_location(folder: Path, location: str) -> None:
    """Remember where in the storage its files come to lie."""
    (folder / LOCATION).write_text(location)


def location_in(folder: Path) -> str:
    """Where in the storage some of its files may lie; empty where none do."""
    try:
        return (folder / LOCATION).read_text()
    except FileNotFoundError:
        return ""


def clear(folder: Path) -> None:
    """Remove all that is in the folder but its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def remove(folder: Path) -> None:
    """Remove the folder."""
    shutil.rmtree(folder, ignore_errors=True)


def folders() -> Iterator[tuple[int, Path]]:
    """All working folders that lie here, each with the number of its export."""
    home = settings.BOTHSIDES_HOME / "tmp"
    if home.is_dir():
        for path in sorted(home.glob(f"{BEGINNING}*")):
            if path.name.removeprefix(BEGINNING).isdecimal():
                yield int(path.name.removeprefix(BEGINNING)), path
