"""What is counted while an export is written, group by group, for its manifest. All are plain and can be pickled,
so that an export can go on where it stopped."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from annotate.datasets import comparison_formats
from annotate.datasets.shapes import PAIRS, SPLITS

CANNOT_HOLD = {"hh": "speaker_marks", "llamafactory": "not_alternating"}
"""Why a format of pairs may hold fewer than were asked for."""


@dataclass
class Tally:
    """Counts over the canonical lines of comparisons, which come sorted by comparison."""

    format: str = "ranked"
    consensus: bool = False
    pairs: str = "all"
    rankings: int = 0
    comparisons: int = 0
    all_bad: int = 0
    rankings_with_ties: int = 0
    tied_pairs: int = 0
    by_kind: Counter = field(default_factory=Counter)
    by_k: Counter = field(default_factory=Counter)
    by_split: dict[str, Counter] = field(default_factory=dict)
    left_out: Counter = field(default_factory=Counter)
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
        orders = lines
        if self.consensus:
            orders = made if self.format == "ranked" else [comparison_formats.agreed(lines)]
        wanted = 0
        for order in orders:
            tiers = Counter(one["rank"] for one in order["completions"])
            tied = sum(count * (count - 1) // 2 for count in tiers.values())
            self.by_kind[order["ranking_kind"]] += 1
            self.all_bad += order["all_bad"]
            self.rankings_with_ties += tied > 0
            self.tied_pairs += tied
            wanted += self._wanted(tiers, tied, order["k"])
            if self.format == "unpaired" and not order["all_bad"]:
                self._unpaired(tiers)
        missing = wanted - len(made)
        if self.format in PAIRS and missing:
            same = sum(comparison_formats.alike(*pair) for order in orders for pair in self._strict_pairs(order))
            self.left_out["same_texts"] += same
            self.left_out[CANNOT_HOLD.get(self.format, "same_texts")] += missing - same
        rankings = sum(order["rankings"] for order in orders)
        self.rankings += rankings
        split = self.by_split.setdefault(first["split"], Counter())
        split.update(rows=len(made), rankings=rankings, comparisons=int(new))
        if first["iteration"] is not None:
            self.iterations.add(first["iteration"])
        self.policies.update(one["policy"] for one in first["completions"] if one["policy"] is not None)

    def _strict_pairs(self, order: dict) -> Iterator[tuple[dict, dict]]:
        return comparison_formats.strict_pairs(order, self.pairs)

    def _wanted(self, tiers: Counter, tied: int, k: int) -> int:
        """How many pairs were asked for, of an order with so many candidates at each rank."""
        if self.format not in PAIRS:
            return 0
        strict = wanted = k * (k - 1) // 2 - tied
        if self.pairs == "adjacent":
            wanted = sum(tiers[rank] * tiers[rank + 1] for rank in tiers)
        elif self.pairs == "best_worst":
            wanted = tiers[0] * tiers[len(tiers) - 1] if len(tiers) > 1 else 0
        if self.pairs != "all":
            self.left_out["other_pairs"] += strict - wanted
        return wanted

    def _unpaired(self, tiers: Counter) -> None:
        if len(tiers) == 1:
            self.left_out["undecided"] += tiers[0]
        else:
            self.left_out["middle"] += tiers.total() - tiers[0] - tiers[len(tiers) - 1]

    def as_json(self) -> dict:
        """The counts of the manifest. Formats of pairs drop tied pairs; of a consensus its own ties are counted."""
        return {
            "rows": sum(split["rows"] for split in self.by_split.values()),
            "rankings": self.rankings,
            "comparisons": self.comparisons,
            "by_kind": _sorted(self.by_kind),
            "all_bad": self.all_bad,
            "rankings_with_ties": self.rankings_with_ties,
            "tied_pairs": self.tied_pairs,
            "dropped_tied_pairs": self.tied_pairs if self.format in PAIRS else 0,
            "comparisons_by_k": {str(k): self.by_k[k] for k in sorted(self.by_k)},
            "by_split": {name: dict(self.by_split[name]) for name in SPLITS if name in self.by_split},
            "left_out": {name: count for name, count in _sorted(self.left_out).items() if count},
        }


@dataclass
class WrittenTally:
    """Counts over whole lines of conversations, as they stand in the files; one group is one conversation."""

    format: str = "messages"
    conversations: int = 0
    by_kind: Counter = field(default_factory=Counter)
    by_set: Counter = field(default_factory=Counter)
    by_source: Counter = field(default_factory=Counter)
    by_review_state: Counter = field(default_factory=Counter)
    by_split: dict[str, Counter] = field(default_factory=dict)
    turns_by_source: defaultdict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    left_out: dict[str, int] = field(default_factory=dict)
    iterations: set[int] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    last: tuple | None = None

    def add(self, lines: list[dict], made: list[dict]) -> None:
        """Count the whole line of one conversation, of which the format made these."""
        if not made:
            self.left_out["other_sources"] = self.left_out.get("other_sources", 0) + 1
        self.last = None
        for line in lines if made and self.format == "openai_sft" else made:
            self.count(line)

    def count(self, line: dict) -> None:
        """Count one line as it stands in a file."""
        new = self._is_new(line)
        self.conversations += new
        self.by_kind[line["kind"]] += 1
        self.by_set[line["source"]] += 1
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

    def _is_new(self, line: dict) -> bool:
        """Whether this is the first line of its conversation. What is mixed in may have no name of its own."""
        if "turn" not in line:
            return True
        here = (line["source"], line["source_id"], line["conversation_id"])
        position = line["turn"]["position"]
        new = self.last is None or self.last[0] != here or position <= self.last[1]
        self.last = (here, position)
        return new

    def as_json(self) -> dict:
        """The counts of the manifest; what was left out is known to the record only."""
        return {
            "rows": sum(split["rows"] for split in self.by_split.values()),
            "conversations": self.conversations,
            "by_kind": _sorted(self.by_kind),
            "by_set": _sorted(self.by_set),
            "by_source": _sorted(self.by_source),
            "by_review_state": _sorted(self.by_review_state),
            "by_split": {name: dict(self.by_split[name]) for name in SPLITS if name in self.by_split},
            "turns_by_source": {role: _sorted(self.turns_by_source[role]) for role in sorted(self.turns_by_source)},
            "left_out": self.left_out,
        }


@dataclass
class TreeTally:
    """Counts over trees of conversations."""

    format: str = "oasst"
    trees: int = 0
    conversations: int = 0
    messages: int = 0
    ranked: int = 0
    by_kind: Counter = field(default_factory=Counter)
    by_split: dict[str, Counter] = field(default_factory=dict)
    left_out: Counter = field(default_factory=Counter)
    iterations: set[int] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)

    def add(self, lines: list[dict], made: list[dict]) -> None:
        """Count conversations with one beginning, of which these trees were made."""
        kept = [line for line in lines if line["left_out"] is None]
        self.left_out.update(line["left_out"] for line in lines if line["left_out"] is not None)
        self.conversations += len(kept)
        self.by_kind.update(line["kind"] for line in kept)
        for line in kept:
            if line["iteration"] is not None:
                self.iterations.add(line["iteration"])
            self.policies.update(line["policies"])
        for tree in made:
            self.count(tree)
        if made:
            split = self.by_split.setdefault(lines[0]["split"], Counter(rows=0, conversations=0))
            split.update(rows=len(made), conversations=len(kept))

    def count(self, tree: dict) -> None:
        """Count one line as it stands in a file."""
        self.trees += 1
        for node in nodes(tree):
            self.messages += 1
            self.ranked += node.get("rank") is not None

    def as_json(self) -> dict:
        """The counts of the manifest."""
        return {
            "rows": self.trees,
            "trees": self.trees,
            "conversations": self.conversations,
            "messages": self.messages,
            "ranked": self.ranked,
            "by_kind": _sorted(self.by_kind),
            "by_split": {name: dict(self.by_split[name]) for name in SPLITS if name in self.by_split},
            "left_out": _sorted(self.left_out),
        }


@dataclass
class PromptTally:
    """Counts over openings."""

    format: str = "prompt_only"
    by_use_case: Counter = field(default_factory=Counter)
    by_split: dict[str, Counter] = field(default_factory=dict)
    iterations: set[int] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)

    def add(self, lines: list[dict], made: list[dict]) -> None:
        """Count one opening."""
        for line in made:
            self.by_use_case[line["use_case"]] += 1
            self.by_split.setdefault(line["split"], Counter()).update(rows=1)

    def as_json(self) -> dict:
        """The counts of the manifest."""
        return {
            "rows": self.by_use_case.total(),
            "by_use_case": _sorted(self.by_use_case),
            "by_split": {name: dict(self.by_split[name]) for name in SPLITS if name in self.by_split},
        }


def nodes(tree: dict) -> Iterator[dict]:
    """All messages of an OASST tree, each before its replies."""
    waiting = [tree["prompt"]]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node["replies"]))


def _turns(line: dict) -> Iterator[tuple[str, dict]]:
    if "turn" in line:
        yield "assistant", line["turn"]
        return
    for message, turn in zip(line["messages"], line["turns"], strict=True):
        yield message["role"], turn


def _sorted(counts: Counter) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}
