"""What must hold of the lines of exported comparisons, each alone and beside the others."""

import json
from collections.abc import Iterator

from annotate.datasets import said
from annotate.datasets.tallies import Tally


class RankingLines:
    """Goes through the lines of one export of comparisons, in each of its formats."""

    group = "group_id"
    """Lines that share it belong together, in one split."""

    def __init__(self, described: dict):
        self.format = described["format"]
        self.tally = Tally(format=self.format)
        self.begin_file()

    def begin_file(self) -> None:
        """Forget what is compared only with the line before."""
        self.last: tuple[int, int] = (0, 0)
        self.rank_of: dict[str, int] = {}

    def said(self, line: dict) -> list[dict]:
        """The messages before the candidates."""
        if self.format == "ranked":
            return line["context"]
        return line["prompt"] if "prompt" in line else line["chosen"][:-1]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next line, a phrase each."""
        here = (line["group_id"], line["ranking_id"])
        if here < self.last or (here == self.last and self.format == "ranked"):
            yield "stands before or beside a line of the same or a later group_id and ranking_id"
        if here != self.last:
            self.rank_of = {}
        self.last = here
        if self.format == "ranked":
            yield from _ranked(line)
            self.tally.add([line], [line])
        else:
            yield from self._pair(line)
        context = self.said(line)
        if not context or context[-1]["role"] != "user":
            yield "the context does not end with a message of the user"
        yield from said.each(context)

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
            problem = said.answer(side)
            if problem:
                yield f"{name} {problem}"
            elif self.rank_of.setdefault(side[0]["content"], line[f"{name}_rank"]) != line[f"{name}_rank"]:
                yield f"{name} has another rank than in an earlier pair of its ranking"

    def counts(self) -> dict:
        """What the manifest must count. Pairs do not tell of ties."""
        return self.tally.as_json() if self.format == "ranked" else {}

    def at_the_end(self) -> Iterator[str]:
        """Nothing more can be told of comparisons."""
        return iter(())


def _ranked(line: dict) -> Iterator[str]:
    completions = line["completions"]
    ranks = sorted({one["rank"] for one in completions})
    if line["group_id"] != line["comparison_id"]:
        yield "group_id is not the comparison_id"
    if len(completions) < 2 or line["k"] != len(completions):
        yield f"k is {line['k']}, completions: {len(completions)}"
    if ranks != list(range(len(ranks))):
        yield f"ranks are not dense from 0, the best: {', '.join(map(str, ranks))}"
    if line["draw"] and not 0 <= line["draw"]["index"] < line["draw"]["size"]:
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
        problem = said.answer(one["completion"])
        if problem:
            yield f"completions[{number}] {problem}"
        if one["rating"] is not None and not 1 <= one["rating"] <= 7:
            yield f"completions[{number}].rating is not 1 to 7"
        texts.add(json.dumps(one["completion"]))
    if len(texts) < len(completions):
        yield "two completions are the same"
