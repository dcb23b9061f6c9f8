"""What each format makes of the canonical lines of one comparison.

`ranked` holds everything; the other formats are made from it. Ranks are dense, 0 is best, equal ranks are ties.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

from annotate.datasets.filters import Comparisons


def strict_pairs(line: dict) -> Iterator[tuple[dict, dict]]:
    """Each two completions of a canonical line of which one ranks before the other: (better, worse). Ties are none."""
    best_first = sorted(line["completions"], key=lambda one: (one["rank"], one["candidate_id"]))
    for better, worse in combinations(best_first, 2):
        if better["rank"] < worse["rank"]:
            yield better, worse


def ranked(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """The canonical lines themselves."""
    yield from lines


def preference(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """Strict pairs as TRL's explicit preference: prompt, chosen and rejected are lists of messages."""
    for line in lines:
        for better, worse in strict_pairs(line):
            yield {
                "prompt": line["context"],
                "chosen": better["completion"],
                "rejected": worse["completion"],
                **_provenance(line, better, worse),
            }


def preference_implicit(lines: list[dict], filters: Comparisons) -> Iterator[dict]:
    """Strict pairs as TRL's implicit preference: chosen and rejected both begin with the context."""
    for line in lines:
        for better, worse in strict_pairs(line):
            yield {
                "chosen": line["context"] + better["completion"],
                "rejected": line["context"] + worse["completion"],
                **_provenance(line, better, worse),
            }


def _provenance(line: dict, better: dict, worse: dict) -> dict:
    return {
        "chosen_rank": better["rank"],
        "rejected_rank": worse["rank"],
        "group_id": line["group_id"],
        "ranking_id": line["ranking_id"],
        "iteration": line["iteration"],
        "split": line["split"],
        "family": line["family"],
    }


FORMATS: dict[str, Callable[[list[dict], Comparisons], Iterator[dict]]] = {
    "ranked": ranked,
    "preference": preference,
    "preference_implicit": preference_implicit,
}
"""The formats by name: what each makes of the lines of one comparison, which may be no line at all."""
