"""What a dataset version says about itself: its counts, its manifest and its card. No time of day is in them,
so that the same query over the same record gives the same bytes."""

import hashlib
import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata

from django.conf import settings

from annotate import derive
from annotate.datasets import shapes
from annotate.models import Iteration, Policy, Project

SCHEMA_VERSION = 1
RANK_ORDER = "0=best"
SPLITS = [name for name, _ in derive.SPLITS]
MANIFEST, CARD = "manifest.json", "README.md"


@dataclass
class Tally:
    """Counts over canonical lines that come sorted by comparison."""

    rankings: int = 0
    comparisons: int = 0
    all_bad: int = 0
    rankings_with_ties: int = 0
    tied_pairs: int = 0
    by_k: Counter = field(default_factory=Counter)
    by_split: dict[str, Counter] = field(default_factory=dict)
    iterations: set[int] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    last_comparison: int | None = None

    def add(self, line: dict, rows: int) -> None:
        """Count one ranking, of which the format made so many rows."""
        ties = Counter(one["rank"] for one in line["completions"]).values()
        tied = sum(count * (count - 1) // 2 for count in ties)
        new = line["comparison_id"] != self.last_comparison
        self.last_comparison = line["comparison_id"]
        self.rankings += 1
        self.comparisons += new
        self.all_bad += line["all_bad"]
        self.rankings_with_ties += tied > 0
        self.tied_pairs += tied
        if new:
            self.by_k[line["k"]] += 1
        self.by_split.setdefault(line["split"], Counter()).update(rows=rows, rankings=1, comparisons=int(new))
        self.iterations.add(line["iteration"])
        self.policies.update(one["policy"] for one in line["completions"])

    def as_json(self, format: str) -> dict:
        """The counts of the manifest. Tied pairs are dropped by every format but `ranked`, which keeps the order."""
        return {
            "rows": sum(split["rows"] for split in self.by_split.values()),
            "rankings": self.rankings,
            "comparisons": self.comparisons,
            "all_bad": self.all_bad,
            "rankings_with_ties": self.rankings_with_ties,
            "tied_pairs": self.tied_pairs,
            "dropped_tied_pairs": 0 if format == "ranked" else self.tied_pairs,
            "comparisons_by_k": {str(k): self.by_k[k] for k in sorted(self.by_k)},
            "by_split": {name: dict(self.by_split[name]) for name in SPLITS if name in self.by_split},
        }


@dataclass
class WrittenTally:
    """Counts over lines of demonstrations that come sorted by conversation, as they stand in the files."""

    conversations: int = 0
    by_source: Counter = field(default_factory=Counter)
    by_review_state: Counter = field(default_factory=Counter)
    by_split: dict[str, Counter] = field(default_factory=dict)
    turns_by_source: defaultdict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    left_out: dict[str, int] = field(default_factory=dict)
    iterations: set[int] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    last_conversation: int | None = None

    def add(self, line: dict) -> None:
        """Count one line of either format."""
        new = line["conversation_id"] != self.last_conversation
        self.last_conversation = line["conversation_id"]
        self.conversations += new
        self.by_review_state[line["review_state"]] += 1
        split = self.by_split.get(line["split"])
        if split is None:
            split = self.by_split[line["split"]] = Counter(rows=0, conversations=0)
        split["rows"] += 1
        split["conversations"] += new
        self.iterations.add(line["iteration"])
        answered = set()
        for role, turn in _turns(line):
            source = turn["source"]
            if role == "assistant":
                answered.add(source)
            if role != "system":
                self.turns_by_source[role][source] += 1
            if turn["policy"] is not None:
                self.policies.add(turn["policy"])
        for source in answered:
            self.by_source[source] += 1

    def as_json(self, format: str) -> dict:
        """The counts of the manifest; what was left out is known to the record only."""
        return {
            "rows": sum(split["rows"] for split in self.by_split.values()),
            "conversations": self.conversations,
            "by_source": _sorted(self.by_source),
            "by_review_state": _sorted(self.by_review_state),
            "by_split": {name: dict(self.by_split[name]) for name in SPLITS if name in self.by_split},
            "turns_by_source": {role: _sorted(self.turns_by_source[role]) for role in sorted(self.turns_by_source)},
            "left_out": self.left_out,
        }


def _turns(line: dict) -> Iterator[tuple[str, dict]]:
    if "turn" in line:
        yield "assistant", line["turn"]
        return
    for message, turn in zip(line["messages"], line["turns"], strict=True):
        yield message["role"], turn


def _sorted(counts: Counter) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}


def make(
    *, project: Project, what: str, format: str, says: dict, filters: dict, tally: Tally | WrittenTally, files: dict
) -> dict:
    """The manifest of written files, given as `{name: {"sha256", "bytes", "rows"}}`; `says` is what holds of all."""
    return {
        "schema_version": SCHEMA_VERSION,
        "bothsides_version": code_version(),
        "project": project.slug,
        "what": what,
        "format": format,
        **says,
        "filters": filters,
        "counts": tally.as_json(format),
        "iterations": [
            {
                "number": iteration.number,
                "k": iteration.k,
                "overlap": iteration.overlap,
                "guidelines": iteration.guidelines.number if iteration.guidelines else None,
                "form_version": iteration.form_version,
            }
            for iteration in Iteration.objects.filter(project=project, number__in=tally.iterations)
            .select_related("guidelines")
            .order_by("number")
        ],
        "policies": [
            {"name": policy.name, "engine": policy.engine, "location": policy.location, "revision": policy.revision}
            for policy in Policy.objects.filter(name__in=tally.policies).order_by("name")
        ],
        "digest": digest_of(files),
        "files": files,
    }


def digest_of(files: dict[str, dict]) -> str:
    """The digest of a dataset version: what `sha256sum *.jsonl | sha256sum` prints in its folder."""
    listing = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files) if name.endswith(".jsonl"))
    return hashlib.sha256(listing.encode()).hexdigest()


def as_bytes(manifest: dict) -> bytes:
    """The manifest as it stands in its file."""
    return (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode()


def code_version() -> str:
    """The version of this program: of the installed package, else of the checkout."""
    try:
        return metadata.version("bothsides")
    except metadata.PackageNotFoundError:
        return tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]["version"]


def card(*, title: str, about: str, format: str, splits: list[str]) -> bytes:
    """The dataset card: with it `datasets.load_dataset(FOLDER)` finds the splits and knows every type.

    Without it a column that is null or empty in all of one split would have another type there.
    """
    files = [{"split": name, "path": f"{name}.jsonl"} for name in splits]
    head = {
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": shapes.features(shapes.SHAPES[format])},
    }
    # JSON is YAML too.
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    return (
        f"---\n{yaml}\n---\n\n# {title}\n\n"
        f"Format `{format}`: one JSON object a line. {about}\n"
        f"Counts, filters and digests are in `{MANIFEST}`.\n\n"
        '```python\nfrom datasets import load_dataset\n\ndataset = load_dataset("path/to/this/folder")\n```\n'
    ).encode()
