"""The files of exports in Django's storage: a folder each, and beside it the keys of what is in it."""

import logging
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage

from annotate.datasets import columns, manifest
from annotate.datasets.manifest import MANIFEST
from annotate.errors import Invalid, Unavailable
from annotate.models import Export

logger = logging.getLogger(__name__)

KEYS = ".keys"
"""The end of the name under which the keys lie, beside the folder, which holds only what `sha256sum` knows."""


class _Moved(File):
    """A file that storage in folders may move instead of copying it."""

    def temporary_file_path(self) -> str:
        """Where it lies (the name is Django's)."""
        return self.file.name


class Gone(Exception):
    """What was moved to the storage is not there any more, so that the export has to begin again."""


@contextmanager
def _storage() -> Iterator[None]:
    """What the storage raises, as one clear word. An OSError stays what it is."""
    try:
        yield
    except (OSError, Gone):
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:500]
        raise Unavailable(f"The storage of exports does not take it: {type(error).__name__}: {told}") from error


def put(folder: Path, location: str, made: dict, keys: Path) -> None:
    """Move the files of the folder to the storage, then the keys and the manifest, which comes last.

    May be called again where it was cut short. Raises Gone, OSError or Unavailable.
    """
    with _storage():
        for name, described in made["files"].items():
            stored, source = f"{location}/{name}", folder / name
            if source.exists():
                default_storage.delete(stored)
                with source.open("rb") as file:
                    default_storage.save(stored, _Moved(file))
            elif not default_storage.exists(stored) or default_storage.size(stored) != described["bytes"]:
                raise Gone(stored)
        save(f"{location}{KEYS}", zlib.compress(keys.read_bytes()))
        save(f"{location}/{MANIFEST}", manifest.as_bytes(made))


def save(name: str, data: bytes) -> None:
    """Keep a small file in place of one that may be there."""
    default_storage.delete(name)
    default_storage.save(name, ContentFile(data))


def remove_folder(location: str) -> None:
    """Remove all that lies there, and the keys beside it. Never raises: what led here is to be told, not this."""
    try:
        for name in default_storage.listdir(location)[1]:
            default_storage.delete(f"{location}/{name}")
        default_storage.delete(location)
    except FileNotFoundError:
        pass
    except Exception as error:
        logger.warning("%s could not be removed from the storage: %s", location, error)
    remove(f"{location}{KEYS}")


def remove(name: str) -> None:
    """Remove a file that may not be there. Never raises."""
    try:
        default_storage.delete(name)
    except Exception as error:
        logger.warning("%s could not be removed from the storage: %s", name, error)


def opened(export: Export, name: str) -> BinaryIO:
    """A file of an export that is done. Raises Unavailable, or OSError where the storage does not have it."""
    with _storage():
        return default_storage.open(f"{export.location}/{name}")


def pairs_of(export: Export) -> Iterator[tuple[int, int]]:
    """Pairs of group and key of what is in an export, in the order of its lines.

    Raises Invalid where it is not done, or was made before keys were kept.
    """
    if not export.location:
        raise Invalid(f"Export {export.pk} is {export.state}; only one that is done has keys.")
    name = f"{export.location}{KEYS}"
    with _storage():
        if not default_storage.exists(name):
            raise Invalid(f"Export {export.pk} was made by an earlier version, which did not keep its keys.")
        unpacked = zlib.decompressobj()
        rest = b""
        with default_storage.open(name) as file:
            while data := file.read(2**18):
                rest += unpacked.decompress(data)
                whole = len(rest) - len(rest) % (2 * columns.SIZE)
                numbers, rest = columns.from_bytes(rest[:whole]), rest[whole:]
                yield from zip(numbers[::2], numbers[1::2], strict=True)


def keys_of(export: Export) -> array:
    """The keys of what is in an export, in the order of its lines: of rankings, conversations or prompts.

    Raises Invalid where it is not done, or was made before keys were kept.
    """
    return array("q", (key for _, key in pairs_of(export)))
