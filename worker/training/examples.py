"""The lines of exports, as trainers read them: from a copy whose hashes are those of the manifest."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from annotate.datasets import shards, stored
from annotate.errors import Invalid
from annotate.models import Export


def bring(export: Export, folder: Path) -> Path:
    """Copy an export's files out of the storage into a folder of its own under `folder`, and return that.

    What is there already is not copied again. Raises Invalid where a file is not the one that was registered, OSError
    or Unavailable where it cannot be had.
    """
    place = folder / str(export.pk)
    place.mkdir(parents=True, exist_ok=True)
    for name, described in export.manifest["files"].items():
        if shards.split_of(name) is None:
            continue
        path = place / name
        if not (path.exists() and _digest(path) == described["sha256"]):
            with stored.opened(export, name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            if _digest(path) != described["sha256"]:
                raise Invalid(f"{name} of export {export.pk} is not the file that was registered: its hash differs.")
    return place


def rows(folder: Path, split: str) -> Iterator[dict]:
    """All lines of a split, file by file."""
    for path in sorted(folder.iterdir()):
        if shards.split_of(path.name) == split:
            with shards.opened(path) as lines:
                yield from map(json.loads, lines)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
