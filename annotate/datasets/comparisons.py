"""Comparisons as training data: which rankings count, and the canonical line of each."""

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, OuterRef, Q, QuerySet
from django.db.models.functions import JSONObject

from annotate import derive
from annotate.datasets import manifest, shapes
from annotate.datasets.comparison_formats import FORMATS
from annotate.datasets.filters import INCLUDE
from annotate.datasets.filters import Comparisons as Filters
from annotate.datasets.tallies import Tally
from annotate.datasets.what import What
from annotate.models import Assignment, Comparison, Message, Policy, Project, RankedCandidate, Ranking

CHUNK = 200
"""Rows that are fetched at once: the memory that an export takes, whatever its length."""


def rankings(*, project: Project, filters: Filters) -> QuerySet[Ranking]:
    """The current rankings that count under these filters; `split` is left to the lines, as it is not stored.

    Imported ones were brought in whole with their comparison; they have no slot.
    """
    comparison_states = [Comparison.State.CLOSED]
    assignment_states = [Assignment.State.SUBMITTED]
    if "open" in filters.include:
        comparison_states.append(Comparison.State.OPEN)
    if "surplus" in filters.include:
        assignment_states.append(Assignment.State.SURPLUS)
    found = Ranking.objects.filter(
        current=True,
        comparison__project=project,
        comparison__state__in=comparison_states,
    ).filter(Q(kind=Ranking.Kind.IMPORTED) | Q(assignment__state__in=assignment_states))
    if filters.origins is not None:
        found = found.filter(kind__in=filters.origins)
    if filters.iteration is not None:
        found = found.filter(comparison__iteration__number=filters.iteration)
    if filters.since is not None:
        found = found.filter(created_at__gte=filters.since)
    return found


def whole_rows(found: QuerySet[Ranking]) -> QuerySet:
    """One row a ranking with all that its line needs, in one statement.

    Sorted by comparison, then ranking, so that the rankings and pairs of one context stand together.
    """
    context = (
        Message.objects.filter(
            conversation=OuterRef("comparison__message__conversation"),
            position__lt=OuterRef("comparison__message__position"),
        )
        .order_by("position")
        .values(turn=JSONObject(role="role", content="text"))
    )
    places = (
        RankedCandidate.objects.filter(ranking=OuterRef("pk"))
        .order_by("candidate_id")
        .values(
            place=JSONObject(
                candidate_id="candidate_id",
                rank="rank",
                rating="rating",
                flags="flags",
                original="candidate__original",
                text="candidate__completion__text",
                finish_reason="candidate__completion__finish_reason",
                prompt_tokens="candidate__completion__prompt_tokens",
                completion_tokens="candidate__completion__completion_tokens",
                kind="candidate__completion__kind",
                model="candidate__completion__model",
                policy_id="candidate__completion__request__policy_id",
                sampling="candidate__completion__request__sampling",
                template_hash="candidate__completion__request__template_hash",
            )
        )
    )
    return found.order_by("comparison_id", "id").values(
        "id",
        "kind",
        "comparison_id",
        "trainer_id",
        "all_bad",
        "active_seconds",
        comparison_state=F("comparison__state"),
        assignment_state=F("assignment__state"),
        shown_order=F("assignment__shown_order"),
        iteration=F("comparison__iteration__number"),
        source_id=F("comparison__source_id"),
        draw_seed=F("comparison__draw_seed"),
        draw_index=F("comparison__draw_index"),
        draw_size=F("comparison__draw_size"),
        conversation_id=F("comparison__message__conversation_id"),
        family=F("comparison__message__conversation__family"),
        use_case=F("comparison__message__conversation__prompt__use_case"),
        context=ArraySubquery(context),
        judged=ArraySubquery(places),
    )


class Renderer:
    """Makes canonical lines of one project's rows; remembers the names of its policies and trainers."""

    def __init__(self, project: Project):
        self.secret = project.secret
        self.policies = dict(Policy.objects.values_list("id", "name"))
        self.pseudonyms: dict[int, str] = {}

    def ranked(self, row: dict) -> dict:
        """The canonical line of a row of `whole_rows`."""
        shown_at = {candidate: position for position, candidate in enumerate(row["shown_order"] or ())}
        draw = {"index": row["draw_index"], "size": row["draw_size"]} if row["draw_seed"] else None
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
            "split": derive.split_of(self.secret, row["family"]),
            "family": row["family"],
            "use_case": row["use_case"] or "",
            "comparison_state": row["comparison_state"],
            "assignment_state": row["assignment_state"],
            "active_seconds": row["active_seconds"],
            "all_bad": row["all_bad"],
            "draw": draw,
            "k": len(row["judged"]),
            "context": row["context"],
            "completions": [self._completion(place, shown_at) for place in row["judged"]],
        }

    def _completion(self, place: dict, shown_at: dict[int, int]) -> dict:
        sampling = place["sampling"]
        return {
            "completion": [{"role": "assistant", "content": place["text"]}],
            "rank": place["rank"],
            "rating": place["rating"],
            "flags": place["flags"],
            "original": place["original"],
            "candidate_id": place["candidate_id"],
            "shown_position": shown_at.get(place["candidate_id"]),
            "kind": place["kind"],
            "policy": None if place["policy_id"] is None else self.policies[place["policy_id"]],
            "model": place["model"] or None,
            "sampling": sampling and {name: sampling.get(name) for name in shapes.SAMPLING},
            "template_hash": place["template_hash"],
            "finish_reason": place["finish_reason"] or None,
            "prompt_tokens": place["prompt_tokens"],
            "completion_tokens": place["completion_tokens"],
        }

    def _pseudonym(self, trainer_id: int | None) -> str | None:
        if trainer_id is None:
            return None
        if trainer_id not in self.pseudonyms:
            self.pseudonyms[trainer_id] = derive.pseudonym(self.secret, trainer_id)
        return self.pseudonyms[trainer_id]


def _nothing(project: Project, filters: Filters) -> str:
    states = {"open": "of open comparisons", "surplus": "that came in too late"}
    more = [name for name in INCLUDE["comparisons"] if name not in filters.include]
    left_out = f"Rankings {' and '.join(states[name] for name in more)} are left out." if more else ""
    hint = f" --include {' '.join(more)} would add those." if more else ""
    return f"There is nothing to export: no ranking matches. {left_out}{hint}".strip()


def _no_lines(format: str, filters: Filters, tally: Tally) -> str:
    if not tally.rankings:
        return f"There is nothing to export: no ranking belongs to the split {filters.split}."
    where = "the only ranking" if tally.rankings == 1 else f"each of the {tally.rankings:,} rankings"
    return f"There is nothing to export: {format} holds no ties, and in {where} all are tied."


COMPARISONS = What(
    name="comparisons",
    title="Comparisons",
    about="Ranks are dense, 0 is best, equal ranks are ties. "
    "`group_id` is the comparison; all lines of one comparison stand together.",
    found=rankings,
    rows=lambda found: whole_rows(found).iterator(chunk_size=CHUNK),
    renderer=lambda project: Renderer(project).ranked,
    group="comparison_id",
    formats=FORMATS,
    tally=lambda project, format, filters: Tally(format=format),
    nothing=_nothing,
    no_lines=_no_lines,
    says={"rank_order": manifest.RANK_ORDER},
)
