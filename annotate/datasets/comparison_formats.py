"""What each format makes of the canonical lines of one comparison, one line a ranking.

`ranked` holds everything; the other formats are made from it. Ranks are dense, 0 is best, equal ranks are ties: a tie
is no pair, and answers that are all bad have no order unless somebody gave them one.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from statistics import median_low

from annotate.datasets.demonstration_formats import alternates
from annotate.datasets.filters import Comparisons
from annotate.quality import agreement, consensus

SPEAKER = re.compile(r"\n\n(?:Human|Assistant):")
"""How a turn begins in a transcript. A text that holds it could not be told from two turns."""

SPEAKERS = {"user": "Human", "assistant": "Assistant"}
SIDES = {"user": "human", "assistant": "gpt"}

Make = Callable[[list[dict], Comparisons], Iterator[dict]]


def agreed(lines: list[dict]) -> dict:
    """The one canonical line that several rankings of a comparison make by their median ranks.

    A rating is the low median of those that were given, a flag is there where more than half of the rankings have it.
    """
    ranks = [{one["candidate_id"]: one["rank"] for one in line["completions"]} for line in lines]
    rank_of = consensus.of_ranks(ranks)
    first = lines[0]
    judged = zip(*(line["completions"] for line in lines), strict=True)
    return first | {
        "ranking_id": None,
        "ranking_kind": "consensus",
        "rankings": len(lines),
        "agreement": agreement.of_ranks(ranks),
        "trainer": None,
        "assignment_state": None,
        "active_seconds": sum(line["active_seconds"] for line in lines),
        "all_bad": consensus.by_majority([line["all_bad"] for line in lines]),
        "completions": [_agreed_place(places, rank_of[places[0]["candidate_id"]]) for places in judged],
    }


def _agreed_place(places: tuple[dict, ...], rank: int) -> dict:
    ratings = [place["rating"] for place in places if place["rating"] is not None]
    flags = Counter(flag for place in places for flag in place["flags"])
    return places[0] | {
        "rank": rank,
        "rating": median_low(ratings) if ratings else None,
        "flags": sorted(flag for flag, count in flags.items() if 2 * count > len(places)),
        "shown_position": None,
    }


def orders(lines: list[dict], filters: Comparisons) -> list[dict]:
    """The orders that are wanted of one comparison: of each trainer, or the one that they make together."""
    return [agreed(lines)] if filters.rankings == "consensus" else lines


def strict_pairs(line: dict, which: str = "all") -> Iterator[tuple[dict, dict]]:
    """Each two completions of a canonical line of which one ranks before the other: (better, worse). Ties are none.

    `which` may narrow it down to "adjacent" ranks, or to "best_worst": the best rank against the worst.
    """
    best_first = sorted(line["completions"], key=lambda one: (one["rank"], one["candidate_id"]))
    worst = best_first[-1]["rank"]
    for better, worse in combinations(best_first, 2):
        apart = worse["rank"] - better["rank"]
        if apart == 0 or (which == "adjacent" and apart > 1) or (which == "best_worst" and apart < worst):
            continue
        yield better, worse


def alike(one: dict, other: dict) -> bool:
    """Whether two candidates say the same, which they may once personal data was taken out of them."""
    return one["completion"] == other["completion"]


def ranked(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """The canonical lines themselves."""
    yield from orders(lines, filters)


def _pairs(side: Callable[[dict, dict, dict], dict | None]) -> Make:
    """A format of pairs: (line, better, worse) to what is special to it, None where it cannot hold the pair."""

    def make(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
        for line in orders(lines, filters):
            group = _group(line)
            for better, worse in strict_pairs(line, filters.pairs):
                made = None if alike(better, worse) else side(line, better, worse)
                if made is None:
                    continue
                made["chosen_rank"], made["rejected_rank"] = better["rank"], worse["rank"]
                made.update(group)
                # In every row of a file or in none: TRL looks at the first one only.
                if filters.margin is not None:
                    made["margin"] = margin(better, worse, filters.margin)
                yield made

    return make


def _group(line: dict) -> dict:
    return {
        "group_id": line["group_id"],
        "ranking_id": line["ranking_id"],
        "agreement": line["agreement"],
        "iteration": line["iteration"],
        "selection": line["selection"],
        "split": line["split"],
        "family": line["family"],
    }


def margin(better: dict, worse: dict, by: str) -> float:
    """By how much more the better one should be worth, by rank or by rating; 0 where not both are rated."""
    if by == "rank":
        return float(worse["rank"] - better["rank"])
    if better["rating"] is None or worse["rating"] is None:
        return 0.0
    # Below 0 it would say that the rejected one is better.
    return max(0.0, float(better["rating"] - worse["rating"]))


def _explicit(line: dict, better: dict, worse: dict) -> dict:
    return {"prompt": line["context"], "chosen": better["completion"], "rejected": worse["completion"]}


def _implicit(line: dict, better: dict, worse: dict) -> dict:
    return {"chosen": line["context"] + better["completion"], "rejected": line["context"] + worse["completion"]}


def _transcripts(line: dict, better: dict, worse: dict) -> dict | None:
    sides = [transcript(line["context"] + one["completion"]) for one in (better, worse)]
    return None if None in sides else {"chosen": sides[0], "rejected": sides[1]}


def transcript(messages: list[dict]) -> str | None:
    """The text of the turns after one another, each after its speaker's mark; None where a text holds such a mark."""
    said = [message for message in messages if message["role"] != "system"]
    if any(SPEAKER.search(message["content"]) for message in said):
        return None
    return "".join(f"\n\n{SPEAKERS[message['role']]}: {message['content']}" for message in said)


def _sharegpt(line: dict, better: dict, worse: dict) -> dict | None:
    context = line["context"]
    said = [message for message in context if message["role"] != "system"]
    if not alternates(said) or len(said) % 2 == 0:
        return None
    return {
        "conversations": [_value(message) for message in said],
        "chosen": _value(better["completion"][0]),
        "rejected": _value(worse["completion"][0]),
        "system": next((message["content"] for message in context if message["role"] == "system"), ""),
    }


def _value(message: dict) -> dict:
    return {"from": SIDES[message["role"]], "value": message["content"]}


def openai_dpo(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """Strict pairs with exactly the keys that OpenAI's fine-tuning by preference takes."""
    for line in orders(lines, filters):
        for better, worse in strict_pairs(line, filters.pairs):
            if alike(better, worse):
                continue
            yield {
                "input": {"messages": line["context"]},
                "preferred_output": better["completion"],
                "non_preferred_output": worse["completion"],
            }


def unpaired(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """Single answers that are good or not: those of the best rank, and those of the worst.

    What lies between is neither. Where all are tied nothing is known, unless they are all bad.
    """
    for line in orders(lines, filters):
        worst = max(one["rank"] for one in line["completions"])
        for one in sorted(line["completions"], key=lambda one: (one["rank"], one["candidate_id"])):
            if line["all_bad"] or (worst > 0 and one["rank"] in (0, worst)):
                yield {
                    "prompt": line["context"],
                    "completion": one["completion"],
                    "label": not line["all_bad"] and one["rank"] == 0,
                    "rank": one["rank"],
                    **_group(line),
                }


def prompt_only(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """What came before the candidates, once a comparison."""
    line = lines[0]
    yield {
        "prompt": line["context"],
        "source": "comparisons",
        "use_case": line["use_case"],
        "group_id": line["group_id"],
        "conversation_id": line["conversation_id"],
        "prompt_id": None,
        "iteration": line["iteration"],
        "split": line["split"],
        "family": line["family"],
    }


def nemo_rl(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """Whole orders as NeMo RL's rank loader reads them."""
    for line in orders(lines, filters):
        yield {
            "context": line["context"],
            "completions": [{"rank": one["rank"], "completion": one["completion"]} for one in line["completions"]],
            "group_id": line["group_id"],
        }


def dataset_info(splits: dict[str, list[str]]) -> dict[str, bytes]:
    """The file by which LlamaFactory finds the others; one dataset a file, as it takes no patterns."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system"}
    described = {
        name.partition(".")[0]: {"file_name": name, "formatting": "sharegpt", "ranking": True, "columns": columns}
        for names in splits.values()
        for name in names
    }
    return {"dataset_info.json": (json.dumps(described, indent=2) + "\n").encode()}


FORMATS: dict[str, Make] = {
    "ranked": ranked,
    "preference": _pairs(_explicit),
    "preference_implicit": _pairs(_implicit),
    "unpaired": unpaired,
    "prompt_only": prompt_only,
    "nemo_rl": nemo_rl,
    "hh": _pairs(_transcripts),
    "openai_dpo": openai_dpo,
    "llamafactory": _pairs(_sharegpt),
}
"""The formats by name: what each makes of the lines of one comparison, which may be no line at all."""

BESIDE = {"llamafactory": dataset_info}
"""By format: further files."""
