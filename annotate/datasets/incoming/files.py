"""Files opened as a stream of JSON values: plain or compressed, lines, lists or tables, in the memory of one value."""

import codecs
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from annotate.datasets.incoming import jsons
from annotate.datasets.incoming.items import Bad
from annotate.errors import Invalid

LONGEST = 16 * 1024 * 1024
"""Bytes that one line, or one item of a list, may have."""

CHUNK = 256 * 1024
"""Bytes that are read at once."""

PEEKED = 8 * 1024 * 1024
"""Bytes of a file that are looked at, at most, to recognise its format."""

SHOWN = 3
"""Bad values that are named where none at the beginning of a file is good."""

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
"""How such files begin: uploads and pipes may have no suffix."""

TOO_LONG = f"it is longer than {LONGEST // 1024**2} MiB"


def lines_of(source: str | Path | BinaryIO, *, name: str) -> "Rows":
    """The values of a file, a binary file that is open, or, for `-`, of standard input.

    JSON lines, a JSON list, or Parquet; `.gz` and `.zst` are uncompressed. `name` is what messages call it, and its
    suffix counts where an open file is given. Raises Invalid where it cannot be opened; see Rows for the rest.
    """
    suffix = PurePath(name if hasattr(source, "read") else source).suffix.lower()
    counted = _opened(source, name)
    buffered = io.BufferedReader(counted, CHUNK)
    return Rows(name=name, source=counted, values=_values(buffered, counted, suffix, name))


class Rows:
    """The values of a file with their numbers, from 1: of the line, or of the item of a list or table.

    Iterate once. A value that cannot be read is a Bad in its place. Raises Invalid where the file itself is damaged
    or cut off. `read` of `size` bytes are behind; the size of a pipe is None.
    """

    def __init__(self, *, name: str, source: "_Counted", values: Iterator[tuple[int, object]]):
        self.name = name
        self._source = source
        self._values = values
        self._peeked: list[tuple[int, object]] = []
        self._yielded = 0

    @property
    def read(self) -> int:
        source = self._source
        return source.count if source.share is None else int(source.size * source.share)

    @property
    def size(self) -> int | None:
        return self._source.size

    def first(self, count: int = 100) -> list:
        """The first good values; they still come when the file is iterated.

        Raises Invalid where the file is empty, or none of its first values can be read.
        """
        good = []
        begun = self.read
        # One value that is too long may be more than is looked at; what follows it still tells.
        while len(good) < count and (self.read - begun <= PEEKED or (not good and len(self._peeked) < count)):
            numbered = self._next()
            if numbered is None:
                break
            self._peeked.append(numbered)
            if not isinstance(numbered[1], Bad):
                good.append(numbered[1])
        if not self._peeked:
            raise Invalid(f"{self.name} is empty.")
        if not good:
            bad = "; ".join(f"line {number}: {value}" for number, value in self._peeked[:SHOWN])
            raise Invalid(f"{self.name} cannot be read as JSON or Parquet: {bad}.")
        return good

    def __iter__(self) -> Iterator[tuple[int, object]]:
        while self._peeked:
            yield self._peeked.pop(0)
        while (numbered := self._next()) is not None:
            yield numbered

    def _next(self) -> tuple[int, object] | None:
        try:
            numbered = next(self._values, None)
        except _damages() as error:
            raise Invalid(
                f"{self.name} is damaged or cut off: {_reason(error)}. Read before that: {self._yielded:,}."
            ) from None
        self._yielded += numbered is not None
        return numbered

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Counted(io.RawIOBase):
    """A binary file that counts what is read of it."""

    def __init__(self, file: BinaryIO, size: int | None, *, ours: bool):
        self._file = file
        self._ours = ours
        self.size = size
        self.count = 0
        self.share: float | None = None
        """Which share of it is behind, where it is not read from its beginning to its end."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.size is not None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, into) -> int:
        data = self._file.read(len(into))
        into[: len(data)] = data
        self.count += len(data)
        return len(data)

    def close(self) -> None:
        if self._ours and not self.closed:
            self._file.close()
        super().close()


def _opened(source: str | Path | BinaryIO, name: str) -> _Counted:
    if hasattr(source, "read"):
        return _Counted(source, _size(source), ours=False)
    if str(source) == "-":
        if sys.stdin is None:
            raise Invalid("Standard input is closed.")
        return _Counted(sys.stdin.buffer, None, ours=False)
    try:
        file = open(source, "rb", buffering=0)  # noqa: SIM115 (Rows closes it)
        return _Counted(file, _size(file), ours=True)
    except (OSError, ValueError) as error:
        raise Invalid(f"{name} cannot be read: {_reason(error)}.") from None


def _size(file: BinaryIO) -> int | None:
    """Its bytes, of which none is read yet; None for a pipe, which cannot go back either."""
    try:
        if not file.seekable():
            return None
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return size
    except (AttributeError, OSError):
        return None


def _damages() -> tuple[type[Exception], ...]:
    """What says that a file is damaged. pyarrow is loaded only where a file needs it: it takes 40 MB."""
    arrow = sys.modules.get("pyarrow")
    return (jsons.Damaged, OSError, EOFError, zlib.error, *([arrow.ArrowException] if arrow else []))


def _values(file: io.BufferedReader, counted: _Counted, suffix: str, name: str) -> Iterator[tuple[int, object]]:
    head = file.peek(4)
    if suffix == ".parquet" or head.startswith(PARQUET):
        yield from _table(counted, name)
        return
    if suffix == ".gz" or head.startswith(GZIP):
        file = io.BufferedReader(gzip.GzipFile(fileobj=file), CHUNK)
    elif suffix in (".zst", ".zstd") or head.startswith(ZSTD):
        import pyarrow

        file = io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd"), CHUNK)
    yield from _json(file, name)


def _table(counted: _Counted, name: str) -> Iterator[tuple[int, object]]:
    if counted.size is None:
        raise Invalid(f"{name} is Parquet, which cannot be read from a pipe; give the file's name.")
    counted.seek(0)
    from annotate.datasets.incoming import tables

    yield from tables.rows(counted, lambda share: setattr(counted, "share", share))


def _json(file: io.BufferedReader, name: str) -> Iterator[tuple[int, object]]:
    number, first = _begun(file)
    if first == b"[":
        file.read(1)
        yield from enumerate(jsons.listed(lambda: file.read1(CHUNK), longest=LONGEST, too_long=TOO_LONG), 1)
        return
    while line := file.readline(LONGEST + 1):
        number += 1
        if line.isspace():
            continue
        if len(line) > LONGEST and not line.endswith(b"\n"):
            # Or two of them would be in memory while the next one is read.
            line = b""
            _to_its_end(file)
            value = Bad(TOO_LONG)
        else:
            value = jsons.decoded(line)
        if first == b"{" and isinstance(value, Bad) and line.rstrip().endswith((b"{", b"[", b",")):
            raise Invalid(f"{name} is one JSON object over several lines; one object a line, or a list, is read.")
        first = b""
        yield number, value


def _begun(file: io.BufferedReader) -> tuple[int, bytes]:
    """The first byte that is not blank, which comes next, and how many lines are behind."""
    if file.peek(3).startswith(codecs.BOM_UTF8):
        # The mark that some editors put there.
        file.read(3)
    lines = 0
    while head := file.peek(1):
        blank = len(head) - len(head.lstrip())
        lines += file.read(blank).count(b"\n")
        if blank < len(head):
            return lines, head[blank : blank + 1]
    return lines, b""


def _to_its_end(file: io.BufferedReader) -> None:
    while (more := file.readline(CHUNK)) and not more.endswith(b"\n"):
        pass


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
