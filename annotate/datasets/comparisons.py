"""Comparisons as training data: which rankings count, and the canonical line of each."""

from annotate import derive
from annotate.datasets import comparison_rows, manifest, shapes
from annotate.datasets.comparison_formats import BESIDE, FORMATS
from annotate.datasets.filters import INCLUDE
from annotate.datasets.filters import Comparisons as Filters
from annotate.datasets.splits import Splitter
from annotate.datasets.tallies import Tally
from annotate.datasets.what import What
from annotate.models import Policy, Project


class Renderer:
    """Makes canonical lines of one project's rows; remembers the names of its policies and trainers."""

    def __init__(self, project: Project):
        self.secret = project.secret
        self.split_of = Splitter(project).of
        self.policies = dict(Policy.objects.values_list("id", "name"))
        self.pseudonyms: dict[int, str] = {}
        self.last_sampling = self.sampling = None

    def ranked(self, row: dict) -> dict:
        """The canonical line of a row of `comparison_rows.rows`."""
        shown_at = {candidate: position for position, candidate in enumerate(row["shown_order"] or ())}
        draw = {"index": row["draw_index"], "size": row["draw_size"]} if row["draw_seed"] else None
        completions = self._completions(row["candidates"], row["places"], shown_at)
        return {
            "group_id": row["comparison_id"],
            "comparison_id": row["comparison_id"],
            "ranking_id": row["id"],
            "ranking_kind": row["kind"],
            "rankings": 1,
            "agreement": None,
            "conversation_id": row["conversation_id"],
            "source_id": row["source_id"],
            "trainer": self._pseudonym(row["trainer_id"]),
            "iteration": row["iteration"],
            "split": self.split_of(row["family"], row["author_id"], row["family_author_id"]),
            "family": row["family"],
            "use_case": row["use_case"] or "",
            "comparison_state": row["comparison_state"],
            "assignment_state": row["assignment_state"],
            "active_seconds": row["active_seconds"],
            "all_bad": row["all_bad"],
            "selection": row["selection"],
            "draw": draw,
            "k": len(completions),
            "context": row["context"],
            "completions": completions,
        }

    def _completions(self, candidates: list[dict], places: dict[int, list], shown_at: dict[int, int]) -> list[dict]:
        return [
            {
                "completion": [{"role": "assistant", "content": one["text"]}],
                "rank": place[0],
                "rating": place[1],
                "flags": place[2],
                "original": one["original"],
                "candidate_id": pk,
                "shown_position": shown_at.get(pk),
                "kind": one["kind"],
                "policy": self.policies.get(one["policy_id"]),
                "model": one["model"] or None,
                "sampling": self._sampling(one["sampling"]),
                "template_hash": one["template_hash"],
                "finish_reason": one["finish_reason"] or None,
                "prompt_tokens": one["prompt_tokens"],
                "completion_tokens": one["completion_tokens"],
                "reasoning": one["reasoning"] or None,
            }
            for one in candidates
            if (place := places.get(pk := one["candidate_id"]))
        ]

    def _sampling(self, sampling: dict | None) -> dict | None:
        # Most are the same as the one before.
        if sampling != self.last_sampling:
            self.last_sampling = sampling
            self.sampling = sampling and {name: sampling.get(name) for name in shapes.SAMPLING}
        return self.sampling

    def _pseudonym(self, trainer_id: int | None) -> str | None:
        if trainer_id is None:
            return None
        if trainer_id not in self.pseudonyms:
            self.pseudonyms[trainer_id] = derive.pseudonym(self.secret, trainer_id)
        return self.pseudonyms[trainer_id]


def _tally(project: Project, format: str, filters: Filters) -> Tally:
    return Tally(format=format, consensus=filters.rankings == "consensus", pairs=filters.pairs)


def _nothing(project: Project, filters: Filters) -> str:
    states = {"open": "of open comparisons", "surplus": "that came in too late"}
    more = [name for name in INCLUDE["comparisons"] if name not in filters.include]
    left_out = f"Rankings {' and '.join(states[name] for name in more)} are left out." if more else ""
    hint = f" --include {' '.join(more)} would add those." if more else ""
    return f"There is nothing to export: no ranking matches. {left_out}{hint}".strip()


def _no_lines(format: str, filters: Filters, tally: Tally) -> str:
    if not tally.rankings:
        return f"There is nothing to export: no ranking belongs to the split {filters.split}."
    told = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in tally.left_out.items() if count)
    if told:
        return f"There is nothing to export: {format} can hold none of it. Left out: {told}."
    where = "the only ranking" if tally.rankings == 1 else f"each of the {tally.rankings:,} rankings"
    return f"There is nothing to export: {format} holds no ties, and in {where} all are tied."


COMPARISONS = What(
    name="comparisons",
    title="Comparisons",
    about="Ranks are dense, 0 is best, equal ranks are ties. "
    "All lines of one comparison stand together; where there is a `group_id`, it is the comparison.",
    keys=comparison_rows.keys,
    rows=comparison_rows.rows,
    renderer=lambda project, filters: Renderer(project).ranked,
    formats=FORMATS,
    tally=_tally,
    nothing=_nothing,
    no_lines=_no_lines,
    made_by=comparison_rows.made_by,
    says={"rank_order": manifest.RANK_ORDER},
    beside=BESIDE,
)
