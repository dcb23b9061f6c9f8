"""Columns: whole numbers in a file, as many as there are rows in an export, so that they need no memory."""

import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

SIZE = 8
"""Bytes of a number: int64, little-endian on every machine."""

AT_ONCE = 64 * 1024
"""Numbers that are read at once."""


def as_bytes(numbers: array) -> bytes:
    """The numbers as they stand in a file."""
    return _turned(array("q", numbers)).tobytes() if sys.byteorder == "big" else numbers.tobytes()


def from_bytes(data: bytes) -> array:
    """The numbers of such bytes. Raises ValueError where a part of one is missing."""
    numbers = array("q")
    numbers.frombytes(data)
    return _turned(numbers)


def _turned(numbers: array) -> array:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class Column:
    """A file of numbers that is only ever appended to."""

    def __init__(self, path: Path):
        self.path = path
        self.waiting = array("q")

    def append(self, numbers: Iterable[int]) -> None:
        """Add numbers. They are in the file after `flush`."""
        self.waiting.extend(numbers)
        if len(self.waiting) >= AT_ONCE:
            self.flush()

    def flush(self) -> int:
        """Write what waits; how many numbers the file holds then."""
        with self.path.open("ab") as file:
            file.write(as_bytes(self.waiting))
            self.waiting = array("q")
            return file.tell() // SIZE

    def has(self, count: int) -> bool:
        """Whether the file holds so many numbers."""
        return self.path.exists() and self.path.stat().st_size == count * SIZE

    def cut(self, count: int) -> None:
        """Forget all numbers after the first `count`. Raises ValueError where there are fewer."""
        self.waiting = array("q")
        with self.path.open("ab") as file:
            if file.tell() < count * SIZE:
                raise ValueError(f"{self.path} is shorter than it was")
            file.truncate(count * SIZE)

    def parts(self, begin: int = 0) -> Iterator[array]:
        """The numbers of the file from one on, some at a time."""
        with self.path.open("rb") as file:
            file.seek(begin * SIZE)
            while data := file.read(AT_ONCE * SIZE):
                yield from_bytes(data)
