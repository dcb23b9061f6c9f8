"""The files of an export: each split in shards of lines, as JSON, JSON under Zstandard, or Parquet.

A shard is first written as lines of JSON, and turned into its kind when it is full. So that the same lines give the
same bytes, whether the export was interrupted or not.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import zstandard

from annotate.errors import Invalid

KINDS = ("jsonl", "jsonl.zst", "parquet")
"""Kinds of files; each is the end of their names."""

MOST_ROWS = 100_000_000

ZSTD_LEVEL = 3

BUFFER = 2**20


@dataclass(frozen=True, slots=True)
class Files:
    """How an export is written: the kind of its files, and the most rows in one. A group of lines is never parted."""

    kind: str = "jsonl"
    shard_rows: int = 100_000

    def as_json(self) -> dict:
        """As the record keeps it; `parse` reads it back."""
        return asdict(self)


def parse(given: dict) -> Files:
    """How files are to be written, as a person gave it or as it was kept. Raises Invalid that names what it may be."""
    if unknown := sorted(given.keys() - {"kind", "shard_rows"}):
        raise Invalid(f"files: {unknown[0]} is not known; there are kind and shard_rows.")
    files = Files(**given)
    if files.kind not in KINDS:
        raise Invalid(f"files: {files.kind!r} is none of {', '.join(KINDS)}.")
    rows = files.shard_rows
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= MOST_ROWS:
        raise Invalid(f"shard_rows: {rows!r} is no whole number from 1 to {MOST_ROWS:,}.")
    return files


def of(kept: dict) -> Files:
    """How the files of an export of the record are written."""
    return parse({name: kept[name] for name in ("kind", "shard_rows") if name in kept})


@dataclass
class Shard:
    """A full shard."""

    sha256: str
    bytes: int
    rows: int

    def as_json(self) -> dict:
        """As the manifest lists it."""
        return asdict(self)


@dataclass
class Written:
    """How far a split is written. Plain, so that it can be kept and gone on from."""

    full: list[Shard] = field(default_factory=list)
    rows: int = 0
    """Rows of the shard that is being written."""
    bytes: int = 0
    """Bytes of its lines."""


class Split:
    """One split on its way into shards in a folder."""

    def __init__(self, *, folder: Path, name: str, files: Files, shape: dict, written: Written | None = None):
        """Go on after what was written already. Raises ValueError where it is not there any more."""
        self.folder, self.name, self.files, self.shape = folder, name, files, shape
        self.written = written or Written()
        self.spent: list[Path] = []
        """Lines that were turned into their kind; they can go once that is sure to be remembered."""
        self.file = None
        if self.written.bytes:
            self.file = self._lines(len(self.written.full)).open("r+b", buffering=BUFFER)
            if self.file.seek(0, 2) < self.written.bytes:
                raise ValueError(f"{self.file.name} is shorter than it was")
            self.file.truncate(self.written.bytes)
            self.file.seek(self.written.bytes)

    def _lines(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number:05}.lines"

    def _shard(self, number: int) -> Path:
        # Lines of JSON are as they should be already.
        return self._lines(number) if self.files.kind == "jsonl" else self.folder / f"{self.name}-{number:05}.shard"

    def write(self, lines: bytes, rows: int) -> None:
        """Add the lines of a group; they come into one shard."""
        written = self.written
        if written.rows and written.rows + rows > self.files.shard_rows:
            self.close_shard()
        if self.file is None:
            self.file = self._lines(len(written.full)).open("wb", buffering=BUFFER)
        self.file.write(lines)
        written.rows += rows
        written.bytes += len(lines)

    def flush(self) -> None:
        """Let what was written survive the end of this process."""
        if self.file is not None:
            self.file.flush()

    def forget_spent(self) -> None:
        """Remove the lines of full shards. Called when it is kept that these are full."""
        for path in self.spent:
            path.unlink(missing_ok=True)
        self.spent.clear()

    def close_shard(self) -> None:
        """Turn the lines written since the last full shard into a full one."""
        if self.file is None:
            return
        number = len(self.written.full)
        self.file.close()
        self.file = None
        lines, shard = self._lines(number), self._shard(number)
        if self.files.kind == "jsonl.zst":
            _compress(lines, shard)
        elif self.files.kind == "parquet":
            from annotate.datasets import parquet

            parquet.write(lines, shard, shape=self.shape)
        if shard != lines:
            self.spent.append(lines)
        with shard.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.written.full.append(Shard(sha256=digest, bytes=shard.stat().st_size, rows=self.written.rows))
        self.written.rows = self.written.bytes = 0

    def close(self) -> None:
        """Let go of the file, whatever is in it."""
        if self.file is not None:
            with closing(self.file):
                self.file = None

    def move_to(self, folder: Path) -> dict[str, Shard]:
        """Move all shards, now that their number is known, under their names; may be called again after a crash."""
        named = {}
        for number, (shard, name) in enumerate(
            zip(self.written.full, names(self.name, len(self.written.full), self.files.kind), strict=True)
        ):
            if self._shard(number).exists():
                self._shard(number).replace(folder / name)
            named[name] = shard
        return named


def names(split: str, shards: int, kind: str) -> list[str]:
    """The names of so many shards of a split: without a number where there is one."""
    if shards == 1:
        return [f"{split}.{kind}"]
    return [f"{split}-{number:05}-of-{shards:05}.{kind}" for number in range(shards)]


def split_of(name: str) -> str | None:
    """The split that the file of this name belongs to; None where it is no shard."""
    for kind in KINDS:
        if name.endswith(f".{kind}"):
            return name.removesuffix(f".{kind}").partition("-")[0]
    return None


def kind_of(name: str) -> str:
    """The kind of a shard by its name."""
    return next(kind for kind in KINDS if name.endswith(f".{kind}"))


def _compress(lines: Path, path: Path) -> None:
    # One frame: some readers stop at the end of the first one.
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
    with lines.open("rb") as source, path.open("wb") as target:
        compressor.copy_stream(source, target, size=lines.stat().st_size, read_size=BUFFER, write_size=BUFFER)


@contextmanager
def opened(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a shard of any kind, read as they are asked for.

    Raises OSError where it cannot be read, ValueError (while it is read) where it is damaged.
    """
    kind = kind_of(path.name)
    if kind == "parquet":
        from annotate.datasets import parquet

        yield parquet.rows(path)
        return
    with path.open("rb") as file:
        yield _decompressed(file) if kind == "jsonl.zst" else file


def _decompressed(file) -> Iterator[bytes]:
    rest = b""
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    try:
        while data := reader.read(BUFFER):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line + b"\n"
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
    if rest:
        yield rest
