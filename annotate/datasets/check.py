"""Whether an exported folder is whole and says what it means. Needs no database and nothing but the files."""

import hashlib
import json
import reprlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from annotate.datasets import contents, schemas, shapes, shards
from annotate.datasets import manifest as manifests
from annotate.errors import Invalid

SHOWN = 50
"""Problems that a report lists; more are only counted."""

SURROGATE = "holds half a character (a lone surrogate)"


@dataclass
class Report:
    """What was found in a folder: its manifest and `file:line: what is wrong`, of which the first ones are kept."""

    manifest: dict
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, where: str, problem: str) -> None:
        """Note one problem."""
        self.count += 1
        if self.count <= SHOWN:
            self.problems.append(f"{where}: {problem}")


Progress = Callable[[Iterable[bytes], str], Iterable[bytes]]
"""Given the lines of a file and its name: the same lines, shown to somebody."""


def check(folder: Path, *, progress: Progress = lambda lines, name: lines) -> Report:
    """Everything about an exported folder that can be checked without the record. Raises Invalid where it is none."""
    report = Report(manifest=read_manifest(folder))
    manifest = report.manifest
    if manifest["what"] == "comparisons" and manifest.get("rank_order") != manifests.RANK_ORDER:
        report.add(manifests.MANIFEST, f"rank_order is not {manifests.RANK_ORDER}")
    if manifest.get("digest") != manifests.digest_of(manifest["files"]):
        report.add(manifests.MANIFEST, "digest is not that of the files listed")
    _names(folder, report)
    lines = _Lines(folder, report, progress)
    for name, described in manifest["files"].items():
        path = folder / name
        try:
            if not path.is_file():
                report.add(name, "is in the manifest and not in the folder")
                continue
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != described["sha256"]:
                    report.add(name, "has another sha256 than in the manifest: it was changed")
            if name == manifests.SCHEMA:
                _schema(path, report)
            elif shards.split_of(name):
                lines.read(name)
        except OSError as error:
            report.add(name, f"cannot be read: {error.strerror}")
    lines.finish()
    report.rows = sum(lines.rows.values())
    return report


def _names(folder: Path, report: Report) -> None:
    """Whether all shards are there, by their names, and no others."""
    files, kind = report.manifest["files"], report.manifest["files_kind"]
    for path in sorted(folder.iterdir()):
        if shards.split_of(path.name) and path.name not in files:
            report.add(path.name, "is not in the manifest")
    if manifests.SCHEMA not in files:
        report.add(manifests.MANIFEST, f"does not list {manifests.SCHEMA}")
    by_split: dict[str, list[str]] = {}
    for name in sorted(files):
        if split := shards.split_of(name):
            by_split.setdefault(split, []).append(name)
    for split, names in by_split.items():
        if names != shards.names(split, len(names), kind):
            report.add(manifests.MANIFEST, f"the shards of {split} are not all of one set, by their names")


def _schema(path: Path, report: Report) -> None:
    """Whether the JSON Schema is that of the format; its title may be any."""
    wanted = json.loads(schemas.json_schema(title="", shape=shapes.of_manifest(report.manifest)))
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        report.add(path.name, "is not JSON")
        return
    if not isinstance(found, dict) or found | {"title": ""} != wanted:
        report.add(path.name, "is not the schema of this format")


def read_manifest(folder: Path) -> dict:
    """The manifest of an exported folder. Raises Invalid where there is none, or one that this version cannot read."""
    path = folder / manifests.MANIFEST
    try:
        found = json.loads(path.read_bytes())
        # What holds half a character can be neither hashed nor shown.
        json.dumps(found, ensure_ascii=False).encode()
        known = found["format"] in shapes.FORMATS.get(found["what"], ())
        # A name with a folder in it would lead out of this one.
        plain = all(Path(name).name == name and described["sha256"] for name, described in found["files"].items())
        counted = all(isinstance(split["rows"], int) for split in found["counts"]["by_split"].values())
        known = known and found.get("files_kind") in shards.KINDS
    except OSError as error:
        raise Invalid(f"{folder} is no exported folder: {path.name}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid(f"{path} is not the manifest of an export.") from None
    if found.get("schema_version") != manifests.SCHEMA_VERSION or not (known and plain and counted):
        raise Invalid(f"{path} describes a kind or version of dataset that this version does not know.")
    return found


class _Lines:
    """Goes through the files of one folder and remembers what must agree between lines."""

    def __init__(self, folder: Path, report: Report, progress: Progress):
        self.folder, self.report, self.progress = folder, report, progress
        self.shape = shapes.of_manifest(report.manifest)
        self.content = contents.of(report.manifest)
        self.rows: dict[str, int] = {}
        """By the name of a file."""
        self.seen: dict[str, array] = {}
        """By what must not be in two splits: digests of its values, each with its split. A dict would not fit."""
        self.last: dict[str, int] = {}

    def read(self, name: str) -> None:
        """Check each line of one file."""
        split = shards.split_of(name)
        self.rows[name] = 0
        self.content.begin_file()
        path = self.folder / name
        if shards.kind_of(name) == "parquet":
            from annotate.datasets import parquet

            if not parquet.fits(path, shape=self.shape):
                self.report.add(name, "is no Parquet file with the columns and types of this format")
                return
        for number, line in self._lines(name, self.progress):
            self.rows[name] += 1
            for problem in self._problems(line, split):
                self.report.add(f"{name}:{number}", problem)

    def _lines(self, name: str, progress: Progress) -> Iterator[tuple[int, bytes]]:
        try:
            with shards.opened(self.folder / name) as lines:
                yield from enumerate(progress(lines, name), 1)
        except ValueError as error:
            self.report.add(name, f"is damaged: {error}")

    def _problems(self, data: bytes, split: str) -> Iterator[str]:
        try:
            text = data.decode()
            line = json.loads(text, parse_constant=_no_number)
            # Only an escape can bring half a character in: as bytes it is no UTF-8.
            if "\\u" in text:
                json.dumps(line, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            yield SURROGATE
            return
        except (ValueError, RecursionError):
            yield "is not JSON"
            return
        misfits = list(shapes.misfits(line, self.shape))
        if misfits:
            yield from misfits
            return
        said = self.content.split(line)
        if said not in (None, split) or split not in manifests.SPLITS:
            yield f"split is {said}, the file's is {split}"
        yield from self.content.problems(line)
        self._see(line, split)

    def _see(self, line: dict, split: str) -> None:
        """Remember what must not be in two splits. Openings are compared without case, white space and punctuation."""
        if split not in manifests.SPLITS:
            return
        for what, value in self.content.apart(line):
            digest = _digest(value) << 2 | manifests.SPLITS.index(split)
            # Lines of one group stand together.
            if self.last.get(what) != digest:
                self.last[what] = digest
                self.seen.setdefault(what, array("q")).append(digest)

    def _leaks(self) -> None:
        """Tell of all lines that share something with those of another split. Reads the files again where any do."""
        leaking = {what: found for what, digests in self.seen.items() if (found := _in_two_splits(digests))}
        if not leaking:
            return
        first: dict[tuple[str, int], str] = {}
        for name in self.rows:
            split = shards.split_of(name)
            for number, data in self._lines(name, lambda lines, name: lines):
                for what, value in self._apart(data):
                    digest = _digest(value)
                    if digest not in leaking.get(what, ()):
                        continue
                    other = first.setdefault((what, digest), split)
                    if other != split:
                        self.report.add(f"{name}:{number}", f"leaks: its {what} is also in the split {other}")

    def _apart(self, data: bytes) -> Iterator[tuple[str, str | int]]:
        """What of a line must not be in two splits; nothing of a line that was no good."""
        try:
            line = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not next(shapes.misfits(line, self.shape), None):
            yield from self.content.apart(line)

    def finish(self) -> None:
        """Hold the counts of the manifest against what was read, and what can be told only at the end."""
        said = self.report.manifest["counts"]
        for name, value in ({"rows": sum(self.rows.values())} | self.content.counts()).items():
            if said.get(name) != value:
                self.report.add(manifests.MANIFEST, f"counts.{name} is {_told(said.get(name))}, the files have {value}")
        by_split = dict.fromkeys(said["by_split"], 0)
        for name, rows in self.rows.items():
            split = shards.split_of(name)
            by_split[split] = by_split.get(split, 0) + rows
            described = self.report.manifest["files"][name].get("rows")
            if rows != described:
                self.report.add(manifests.MANIFEST, f"{name}: rows: {_told(described)}, in the file: {rows}")
        for split, rows in by_split.items():
            counted = said["by_split"].get(split, {}).get("rows")
            if rows != counted:
                self.report.add(manifests.MANIFEST, f"{split}: rows by counts: {_told(counted)}, in its files: {rows}")
        self._leaks()
        for problem in self.content.at_the_end():
            self.report.add(manifests.MANIFEST, problem)


def _no_number(name: str) -> None:
    """Python reads NaN and Infinity; JSON has no such numbers, and other readers refuse them."""
    raise ValueError(name)


def _digest(value: str | int) -> int:
    """61 bits of a value."""
    return int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=8).digest(), "little") >> 3


def _in_two_splits(digests: array) -> set[int]:
    """Those of the digests, each with a split in its lowest two bits, that stand there with more than one split."""
    # Some at a time, so that no set of all is ever in memory.
    parts = [array("q") for _ in range(256)]
    for digest in digests:
        parts[digest >> 2 & 255].append(digest)
    found: set[int] = set()
    for part in parts:
        splits = Counter(digest >> 2 for digest in set(part))
        found.update(digest for digest, count in splits.items() if count > 1)
    return found


def _told(value) -> str:
    """A value of the manifest, cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = 20
    return short.repr(value)
