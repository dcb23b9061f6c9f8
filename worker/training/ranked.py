"""Comparisons as a reward model learns from them: the lines of `ranked` exports, put together by comparison."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Order:
    """One ranking, or the consensus of several."""

    ranks: dict[int, int]
    """By candidate, 0 is best, equal ranks are ties."""
    ratings: dict[int, int]
    """By candidate, of those that were rated."""
    rankings: int
    """How many it is made of."""
    agreement: float | None
    """Of a consensus, how far its rankings agree."""


@dataclass(slots=True)
class Comparison:
    """A context, its completions by candidate, and how they were ordered."""

    pk: int
    context: list[dict]
    iteration: int | None
    at_random: bool
    """Whether it was drawn at random, so that it measures honestly."""
    texts: dict[int, str] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)

    def places(self) -> list[list[int | None]]:
        """The ranks of each order in the sequence of the texts; None for one that it does not rank."""
        return [[order.ranks.get(candidate) for candidate in self.texts] for order in self.orders]


def comparisons(rows: Iterable[dict]) -> list[Comparison]:
    """What the lines of exports say of each comparison. A ranking that two exports hold counts once."""
    found: dict[int, Comparison] = {}
    seen = set()
    for row in rows:
        key = (row["comparison_id"], row["ranking_id"])
        if key in seen:
            continue
        seen.add(key)
        one = found.setdefault(row["comparison_id"], _comparison(row))
        for place in row["completions"]:
            one.texts.setdefault(place["candidate_id"], place["completion"][0]["content"])
        one.orders.append(_order(row))
    return list(found.values())


def _comparison(row: dict) -> Comparison:
    context = [{"role": message["role"], "content": message["content"]} for message in row["context"]]
    return Comparison(pk=row["comparison_id"], context=context, iteration=row["iteration"], at_random=at_random(row))


def at_random(row: dict) -> bool:
    """Whether a line of an export is of a comparison that was drawn at random; those of before pools all were."""
    return row.get("selection", "random") == "random"


def _order(row: dict) -> Order:
    places = row["completions"]
    return Order(
        ranks={place["candidate_id"]: place["rank"] for place in places},
        ratings={place["candidate_id"]: place["rating"] for place in places if place["rating"] is not None},
        rankings=row["rankings"],
        agreement=row["agreement"],
    )


def demonstrations(rows: Iterable[dict]) -> list[tuple[list[dict], str]]:
    """What trainers wrote as the assistant, each with the messages before it, of exports of demonstrations."""
    found = []
    for row in rows:
        if "completion" in row:
            found.append((row["prompt"], row["completion"][0]["content"]))
            continue
        for number, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                found.append((row["messages"][:number], message["content"]))
    return [([{"role": one["role"], "content": one["content"]} for one in before], text) for before, text in found]
