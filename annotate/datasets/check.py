"""Whether an exported folder is whole and says what it means. Needs no database and nothing but the files."""

import hashlib
import json
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from annotate import derive
from annotate.datasets import manifest as manifests
from annotate.datasets import shapes
from annotate.errors import Invalid

SHOWN = 50
"""Problems that a report lists; more are only counted."""

SURROGATE = "holds half a character (a lone surrogate)"

ROLES = ("system", "user", "assistant")


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
    if report.manifest.get("rank_order") != manifests.RANK_ORDER:
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
    lines.compare_counts()
    report.rows = sum(lines.rows.values())
    return report


def read_manifest(folder: Path) -> dict:
    """The manifest of an exported folder. Raises Invalid where there is none, or one that this version cannot read."""
    path = folder / manifests.MANIFEST
    try:
        found = json.loads(path.read_bytes())
        # What holds half a character can be neither hashed nor shown.
        json.dumps(found, ensure_ascii=False).encode()
        known = found["what"] == "comparisons" and found["format"] in shapes.SHAPES
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
        self.format = report.manifest["format"]
        self.shape = shapes.SHAPES[self.format]
        self.tally = manifests.Tally()
        self.rows: dict[str, int] = {}
        self.split_of: dict[tuple[str, str | int], str] = {}
        self.last = (0, 0)
        self.rank_of: dict[str, int] = {}

    def read(self, name: str, lines: Iterable[bytes]):
        """Check each line of one file; its digest."""
        digest, split = hashlib.sha256(), name.removesuffix(".jsonl")
        self.rows[split], self.last = 0, (0, 0)
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
        yield from self._place(line, split)
        if self.format == "ranked":
            yield from _ranked(line)
            self.tally.add(line, 1)
            context = line["context"]
        else:
            context = line["prompt"] if "prompt" in line else line["chosen"][:-1]
            yield from self._pair(line)
        yield from _context(context)
        yield from self._leaks(line, context, split)

    def _place(self, line: dict, split: str) -> Iterator[str]:
        if line["split"] != split or split not in manifests.SPLITS:
            yield f"split is {line['split']}, the file's is {split}"
        here = (line["group_id"], line["ranking_id"])
        if here < self.last or (here == self.last and self.format == "ranked"):
            yield "stands before or beside a line of the same or a later group_id and ranking_id"
        if here != self.last:
            self.rank_of = {}
        self.last = here

    def _pair(self, line: dict) -> Iterator[str]:
        chosen, rejected = line["chosen"], line["rejected"]
        if self.format == "preference_implicit":
            if chosen[:-1] != rejected[:-1]:
                yield "chosen and rejected do not begin with the same messages"
            chosen, rejected = chosen[-1:], rejected[-1:]
        if line["chosen_rank"] == line["rejected_rank"]:
            yield "is a tie, which is no pair"
        elif line["chosen_rank"] > line["rejected_rank"]:
            yield "the rejected one ranks before the chosen one (0 is best)"
        if line["chosen_rank"] < 0 or line["rejected_rank"] < 0:
            yield "a rank is below 0"
        if chosen == rejected:
            yield "chosen and rejected are the same"
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            problem = _answer(side)
            if problem:
                yield f"{name} {problem}"
            elif self.rank_of.setdefault(side[0]["content"], line[f"{name}_rank"]) != line[f"{name}_rank"]:
                yield f"{name} has another rank than in an earlier pair of its ranking"

    def _leaks(self, line: dict, context: list[dict], split: str) -> Iterator[str]:
        """What is in two splits. Openings are compared without case, white space and punctuation."""
        opening = next((turn["content"] for turn in context if turn["role"] == "user"), "")
        for what, value in (
            ("group_id", line["group_id"]),
            ("family", line["family"]),
            ("opening", derive.family_of(opening)),
        ):
            other = self.split_of.setdefault((what, value), split)
            if other != split:
                yield f"leaks: its {what} is also in the split {other}"

    def compare_counts(self) -> None:
        """Hold the counts of the manifest against what was read."""
        said = self.report.manifest["counts"]
        found = {"rows": sum(self.rows.values())}
        if self.format == "ranked":
            found = self.tally.as_json(self.format)
        for name, value in found.items():
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


def _told(value) -> str:
    """A value of the manifest, cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = 20
    return short.repr(value)


def _ranked(line: dict) -> Iterator[str]:
    completions = line["completions"]
    ranks = sorted({one["rank"] for one in completions})
    if line["group_id"] != line["comparison_id"]:
        yield "group_id is not the comparison_id"
    if len(completions) < 2 or line["k"] != len(completions):
        yield f"k is {line['k']}, completions: {len(completions)}"
    if ranks != list(range(len(ranks))):
        yield f"ranks are not dense from 0, the best: {', '.join(map(str, ranks))}"
    if not 0 <= line["draw"]["index"] < line["draw"]["size"]:
        yield "draw.index is not below draw.size"
    if sum(one["original"] for one in completions) > 1:
        yield "more than one completion is the original"
    if len({one["candidate_id"] for one in completions}) < len(completions):
        yield "a candidate_id is there twice"
    positions = [one["shown_position"] for one in completions if one["shown_position"] is not None]
    if sorted(positions) not in ([], list(range(len(completions)))):
        yield "shown_position does not number the completions from 0"
    texts = set()
    for number, one in enumerate(completions):
        problem = _answer(one["completion"])
        if problem:
            yield f"completions[{number}] {problem}"
        if one["rating"] is not None and not 1 <= one["rating"] <= 7:
            yield f"completions[{number}].rating is not 1 to 7"
        texts.add(json.dumps(one["completion"]))
    if len(texts) < len(completions):
        yield "two completions are the same"


def _answer(messages: list[dict]) -> str | None:
    """What is wrong with a candidate's side, if anything is: it is one message of the assistant with a text."""
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        return "is not one message of the assistant"
    return None if messages[0]["content"].strip() else "is empty"


def _context(messages: list[dict]) -> Iterator[str]:
    if not messages or messages[-1]["role"] != "user":
        yield "the context does not end with a message of the user"
    for message in messages:
        if message["role"] not in ROLES:
            yield f"{message['role']} is no role"
        elif not message["content"].strip():
            yield f"a message of the {message['role']} is empty"
