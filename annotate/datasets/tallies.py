"""What is counted while an export is written, group by group, for its manifest. All are plain and can be pickled,
so that an export can go on where it stopped."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from annotate.datasets.shapes import SPLITS


@dataclass
class Tally:
    """Counts over the canonical lines of comparisons, which come sorted by comparison."""

    format: str = "ranked"
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

    def add(self, lines: list[dict], made: list[dict]) -> None:
        """Count the lines of one comparison, of which the format made these."""
        first = lines[0]
        new = first["comparison_id"] != self.last_comparison
        self.last_comparison = first["comparison_id"]
        self.comparisons += new
        if new:
            self.by_k[first["k"]] += 1
        for line in lines:
            ties = Counter(one["rank"] for one in line["completions"]).values()
            tied = sum(count * (count - 1) // 2 for count in ties)
            self.rankings += 1
            self.all_bad += line["all_bad"]
            self.rankings_with_ties += tied > 0
            self.tied_pairs += tied
        split = self.by_split.setdefault(first["split"], Counter())
        split.update(rows=len(made), rankings=len(lines), comparisons=int(new))
        if first["iteration"] is not None:
            self.iterations.add(first["iteration"])
        self.policies.update(one["policy"] for one in first["completions"] if one["policy"] is not None)

    def as_json(self) -> dict:
        """The counts of the manifest. Tied pairs are dropped by every format but `ranked`, which keeps the order."""
        return {
            "rows": sum(split["rows"] for split in self.by_split.values()),
            "rankings": self.rankings,
            "comparisons": self.comparisons,
            "all_bad": self.all_bad,
            "rankings_with_ties": self.rankings_with_ties,
            "tied_pairs": self.tied_pairs,
            "dropped_tied_pairs": 0 if self.format == "ranked" else self.tied_pairs,
            "comparisons_by_k": {str(k): self.by_k[k] for k in sorted(self.by_k)},
            "by_split": {name: dict(self.by_split[name]) for name in SPLITS if name in self.by_split},
        }


@dataclass
class WrittenTally:
    """Counts over lines of demonstrations that come sorted by conversation, as they stand in the files."""

    format: str = "messages"
    conversations: int = 0
    by_source: Counter = field(default_factory=Counter)
    by_review_state: Counter = field(default_factory=Counter)
    by_split: dict[str, Counter] = field(default_factory=dict)
    turns_by_source: defaultdict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    left_out: dict[str, int] = field(default_factory=dict)
    iterations: set[int] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    last_conversation: int | None = None

    def add(self, lines: list[dict], made: list[dict]) -> None:
        """Count the lines of one conversation, of which the format made these."""
        if not made:
            self.left_out["other_sources"] += 1
        for line in made:
            self.count(line)

    def count(self, line: dict) -> None:
        """Count one line as it stands in a file."""
        new = line["conversation_id"] != self.last_conversation
        self.last_conversation = line["conversation_id"]
        self.conversations += new
        self.by_review_state[line["review_state"]] += 1
        split = self.by_split.get(line["split"])
        if split is None:
            split = self.by_split[line["split"]] = Counter(rows=0, conversations=0)
        split["rows"] += 1
        split["conversations"] += new
        if line["iteration"] is not None:
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

    def as_json(self) -> dict:
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
