"""What must hold of the lines of exported comparisons, each alone and beside the others."""

import json
import re
from collections.abc import Iterator

from annotate.datasets import said
from annotate.datasets.demonstration_formats import alternates
from annotate.datasets.filters import SELECTIONS
from annotate.datasets.tallies import Tally

KINDS = ("trainer", "imported", "consensus")
MARK = re.compile(r"\n\n(Human|Assistant): ")
ROLE_OF = {"Human": "user", "Assistant": "assistant", "human": "user", "gpt": "assistant"}


class RankedLines(said.Lines):
    """Whole rankings with all that is known of them."""

    group = "group_id"

    def __init__(self, described: dict):
        super().__init__(described)
        self.tally = Tally(format="ranked")
        self.begin_file()

    def begin_file(self) -> None:
        """The first line stands behind none."""
        self.last: tuple[int, int] = (0, 0)

    def said(self, line: dict) -> list[dict]:
        """The messages before the candidates."""
        return line["context"]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next ranking."""
        here = (line["group_id"], line["ranking_id"] or 0)
        if here <= self.last:
            yield "stands before or beside a line of the same or a later group_id and ranking_id"
        self.last = here
        yield from _ranking(line)
        yield from _order(line["completions"], redacted=self.redacted)
        yield from _completions(line["completions"])
        yield from said.context(line["context"])
        self.tally.add([line], [line])

    def counts(self) -> dict:
        """All counts can be told; what was left out is known to the record only."""
        counts = self.tally.as_json()
        del counts["left_out"]
        return counts


def _ranking(line: dict) -> Iterator[str]:
    kind = line["ranking_kind"]
    if kind not in KINDS:
        yield f"{kind} is no ranking_kind"
    if line["group_id"] != line["comparison_id"]:
        yield "group_id is not the comparison_id"
    if (line["ranking_id"] is None) != (kind == "consensus"):
        yield "ranking_id is null in a consensus, and only there"
    if (line["trainer"] is None) != (kind != "trainer"):
        yield "a ranking of a trainer names the trainer, and no other does"
    if line["rankings"] < 1 or (kind != "consensus" and line["rankings"] != 1):
        yield f"is made of {line['rankings']} rankings"
    if (line["agreement"] is None) != (line["rankings"] < 2):
        yield "agreement is there where a line is made of two rankings or more, and only there"
    if line["selection"] not in SELECTIONS:
        yield f"{line['selection']} is no selection"
    elif line["agreement"] is not None and not 0 <= line["agreement"] <= 1:
        yield "agreement is not 0 to 1"
    if line["k"] != len(line["completions"]):
        yield f"k is {line['k']}, completions: {len(line['completions'])}"
    if line["draw"] and not 0 <= line["draw"]["index"] < line["draw"]["size"]:
        yield "draw.index is not below draw.size"


def _order(completions: list[dict], *, redacted: bool) -> Iterator[str]:
    if len(completions) < 2:
        yield "fewer than two completions are no order"
    ranks = sorted({one["rank"] for one in completions})
    if ranks != list(range(len(ranks))):
        yield f"ranks are not dense from 0, the best: {', '.join(map(str, ranks))}"
    texts = set()
    for number, one in enumerate(completions):
        problem = said.answer(one["completion"])
        if problem:
            yield f"completions[{number}] {problem}"
        texts.add(json.dumps(one["completion"]))
    # Once personal data is taken out of them two may be.
    if len(texts) < len(completions) and not redacted:
        yield "two completions are the same"


def _completions(completions: list[dict]) -> Iterator[str]:
    if sum(one["original"] for one in completions) > 1:
        yield "more than one completion is the original"
    if len({one["candidate_id"] for one in completions}) < len(completions):
        yield "a candidate_id is there twice"
    positions = [one["shown_position"] for one in completions if one["shown_position"] is not None]
    if sorted(positions) not in ([], list(range(len(completions)))):
        yield "shown_position does not number the completions from 0"
    for number, one in enumerate(completions):
        if one["rating"] is not None and not 1 <= one["rating"] <= 7:
            yield f"completions[{number}].rating is not 1 to 7"
        if (one["kind"] == "sampled") != (one["policy"] is not None):
            yield f"completions[{number}] is sampled and has a policy, or neither"


class OrderLines(said.Lines):
    """Orders as NeMo RL reads them."""

    group = "group_id"

    def said(self, line: dict) -> list[dict]:
        """The messages before the completions."""
        return line["context"]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next order."""
        yield from _order(line["completions"], redacted=self.redacted)
        yield from said.context(line["context"])


class PairLines(said.Lines):
    """Strict pairs, in each of the formats that have them."""

    group = "group_id"

    def __init__(self, described: dict):
        super().__init__(described)
        self.pairs = self.filters.get("pairs")
        self.begin_file()

    def begin_file(self) -> None:
        """The first line stands behind none."""
        self.last: tuple[int, int] = (0, 0)
        self.rank_of: dict[str, int] = {}

    def said(self, line: dict) -> list[dict]:
        """The messages before the two sides, so far as they can be told apart."""
        return self._parts(line)[0]

    def _parts(self, line: dict) -> tuple[list[dict], list[dict], list[dict]]:
        """The context, the chosen side and the rejected one."""
        if self.format == "preference":
            return line["prompt"], line["chosen"], line["rejected"]
        if self.format == "openai_dpo":
            return line["input"]["messages"], line["preferred_output"], line["non_preferred_output"]
        if self.format == "llamafactory":
            system = [{"role": "system", "content": line["system"]}] if line["system"] else []
            turns = [_turn(one) for one in line["conversations"]]
            return system + turns, [_turn(line["chosen"])], [_turn(line["rejected"])]
        chosen, rejected = line["chosen"], line["rejected"]
        if self.format == "hh":
            chosen, rejected = parted(chosen), parted(rejected)
        return chosen[:-1], chosen[-1:], rejected[-1:]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next pair."""
        context, chosen, rejected = self._parts(line)
        yield from self._beginnings(line)
        if chosen == rejected:
            yield "chosen and rejected are the same"
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            problem = said.answer(side)
            if problem:
                yield f"{name} {problem}"
        yield from said.context(context)
        if self.format != "openai_dpo":
            yield from self._ranks(line, chosen, rejected)

    def _beginnings(self, line: dict) -> Iterator[str]:
        if self.format == "preference_implicit" and line["chosen"][:-1] != line["rejected"][:-1]:
            yield "chosen and rejected do not begin with the same messages"
        elif self.format == "hh":
            chosen, rejected = parted(line["chosen"]), parted(line["rejected"])
            if not MARK.match(line["chosen"]) or not MARK.match(line["rejected"]):
                yield "a transcript does not begin with the mark of a speaker"
            if chosen[:-1] != rejected[:-1]:
                yield "chosen and rejected do not begin with the same turns"
        elif self.format == "llamafactory":
            turns = [_turn(one) for one in line["conversations"]]
            if not alternates(turns) or len(turns) % 2 == 0:
                yield "human and gpt do not take turns up to the human's"

    def _ranks(self, line: dict, chosen: list[dict], rejected: list[dict]) -> Iterator[str]:
        here = (line["group_id"], line["ranking_id"] or 0)
        if here < self.last:
            yield "stands before or beside a line of the same or a later group_id and ranking_id"
        if here != self.last:
            self.rank_of = {}
        self.last = here
        apart = line["rejected_rank"] - line["chosen_rank"]
        if apart == 0:
            yield "is a tie, which is no pair"
        elif apart < 0:
            yield "the rejected one ranks before the chosen one (0 is best)"
        if line["chosen_rank"] < 0 or line["rejected_rank"] < 0:
            yield "a rank is below 0"
        if self.pairs == "adjacent" and apart > 1:
            yield "its ranks are not adjacent, and only such pairs were wanted"
        if self.pairs == "best_worst" and line["chosen_rank"] != 0:
            yield "the chosen one is not the best, and only such pairs were wanted"
        if line.get("margin", 0.0) < 0:
            yield "margin is below 0"
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            rank = line[f"{name}_rank"]
            # Two answers may be the same once personal data is taken out of them, and keep their ranks.
            if side and not self.redacted and self.rank_of.setdefault(side[0]["content"], rank) != rank:
                yield f"{name} has another rank than in an earlier pair of its ranking"


def parted(transcript: str) -> list[dict]:
    """The turns of a transcript."""
    parts = MARK.split(transcript)
    return [{"role": ROLE_OF[speaker], "content": text} for speaker, text in zip(parts[1::2], parts[2::2], strict=True)]


def _turn(value: dict) -> dict:
    return {"role": ROLE_OF.get(value["from"], value["from"]), "content": value["value"]}


class UnpairedLines(said.Lines):
    """Single answers, good or not."""

    group = "group_id"

    def begin_file(self) -> None:
        """The first line stands behind none."""
        self.here: tuple[int, int | None] | None = None
        self.labels: dict[int, bool] = {}

    def said(self, line: dict) -> list[dict]:
        """The messages before the answer."""
        return line["prompt"]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next answer."""
        problem = said.answer(line["completion"])
        if problem:
            yield f"completion {problem}"
        yield from said.context(line["prompt"])
        here = (line["group_id"], line["ranking_id"])
        if here != self.here:
            self.here, self.labels = here, {}
        if line["rank"] < 0:
            yield "a rank is below 0"
        elif line["label"] and line["rank"] > 0:
            yield "is labelled as good and is not of the best rank"
        if self.labels.setdefault(line["rank"], line["label"]) != line["label"]:
            yield "has another label than an answer of the same rank"
        if not line["label"] and any(label and rank > line["rank"] for rank, label in self.labels.items()):
            yield "is labelled as bad and ranks before one that is good"


class PromptLines(said.Lines):
    """What may be answered: contexts of comparisons, and openings."""

    def __init__(self, described: dict):
        super().__init__(described)
        self.group = "group_id" if described["what"] == "comparisons" else "prompt_id"
        self.last = 0

    def begin_file(self) -> None:
        """The first line stands behind none."""
        self.last = 0

    def said(self, line: dict) -> list[dict]:
        """All messages."""
        return line["prompt"]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next prompt."""
        yield from said.context(line["prompt"])
        here = line[self.group]
        if here is None:
            yield f"has no {self.group}"
        elif here <= self.last:
            yield f"stands before or beside a line of the same or a later {self.group}"
        self.last = here or self.last
