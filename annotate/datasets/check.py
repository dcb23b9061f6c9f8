"""Whether an exported folder is whole and says what it means. Needs no database and nothing but the files."""

import hashlib
import json
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from annotate.datasets import contents, shapes
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
    files = report.manifest["files"]
    if report.manifest["what"] == "comparisons" and report.manifest.get("rank_order") != manifests.RANK_ORDER:
        report.add(manifests.MANIFEST, f"rank_order is not {manifests.RANK_ORDER}")
    if report.manifest.get("digest") != manifests.digest_of(files):
        report.add(manifests.MANIFEST, "digest is not that of the files listed")
    for path in sorted(folder.glob("*.jsonl")):
        if path.name not in files:
            report.add(path.name, "is not in the manifest")
    lines = _Lines(report)
    for name, described in files.items():
        path = folder / name
        try:
            if not path.is_file():
                report.add(name, "is in the manifest and not in the folder")
                continue
            with path.open("rb") as file:
                if name.endswith(".jsonl"):
                    digest = lines.read(name, progress(file, name))
                else:
                    digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            report.add(name, f"cannot be read: {error.strerror}")
            continue
        if digest.hexdigest() != described["sha256"]:
            report.add(name, "has another sha256 than in the manifest: it was changed")
    lines.finish()
    report.rows = sum(lines.rows.values())
    return report


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
    except OSError as error:
        raise Invalid(f"{folder} is no exported folder: {path.name}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid(f"{path} is not the manifest of an export.") from None
    if found.get("schema_version") != manifests.SCHEMA_VERSION or not (known and plain and counted):
        raise Invalid(f"{path} describes a kind or version of dataset that this version does not know.")
    return found


class _Lines:
    """Goes through the files of one folder and remembers what must agree between lines."""

    def __init__(self, report: Report):
        self.report = report
        self.shape = shapes.of_manifest(report.manifest)
        self.content = contents.of(report.manifest)
        self.rows: dict[str, int] = {}
        self.split_of: dict[tuple[str, str | int], str] = {}

    def read(self, name: str, lines: Iterable[bytes]):
        """Check each line of one file; its digest."""
        digest, split = hashlib.sha256(), name.removesuffix(".jsonl")
        self.rows[split] = 0
        self.content.begin_file()
        for number, data in enumerate(lines, 1):
            digest.update(data)
            self.rows[split] += 1
            for problem in self._problems(data, split):
                self.report.add(f"{name}:{number}", problem)
        return digest

    def _problems(self, data: bytes, split: str) -> Iterator[str]:
        try:
            text = data.decode()
            line = json.loads(text)
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
        yield from self._leaks(line, split)

    def _leaks(self, line: dict, split: str) -> Iterator[str]:
        """What is in two splits. Openings are compared without case, white space and punctuation."""
        for what, value in self.content.apart(line):
            other = self.split_of.setdefault((what, value), split)
            if other != split:
                yield f"leaks: its {what} is also in the split {other}"

    def finish(self) -> None:
        """Hold the counts of the manifest against what was read, and what can be told only at the end."""
        said = self.report.manifest["counts"]
        for name, value in ({"rows": sum(self.rows.values())} | self.content.counts()).items():
            if said.get(name) != value:
                self.report.add(manifests.MANIFEST, f"counts.{name} is {_told(said.get(name))}, the files have {value}")
        for split, rows in self.rows.items():
            described = self.report.manifest["files"][f"{split}.jsonl"].get("rows")
            counted = said["by_split"].get(split, {}).get("rows")
            if not rows == described == counted:
                self.report.add(
                    manifests.MANIFEST,
                    f"{split}: rows by counts: {_told(counted)}, by files: {_told(described)}, in the file: {rows}",
                )
        for problem in self.content.at_the_end():
            self.report.add(manifests.MANIFEST, problem)


def _told(value) -> str:
    """A value of the manifest, cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = 20
    return short.repr(value)
