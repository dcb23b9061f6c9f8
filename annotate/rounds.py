"""Figures of a project's rounds: what was collected, how far people agree, what was learnt, what is preferred."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat

from django.db import connection
from django.db.models import Count, QuerySet

from annotate import lineage
from annotate.datasets import comparison_rows
from annotate.datasets.filters import Comparisons
from annotate.lineage import Origin
from annotate.models import (
    Comparison,
    Conversation,
    Export,
    Iteration,
    IterationPolicy,
    Policy,
    Project,
    Ranking,
    TrainingPoint,
    TrainingRun,
)
from annotate.quality import agreement, shares, winning
from annotate.quality.shares import Share
from annotate.quality.winning import Outcome, WinRate

POINTS = 60
"""So many of the measurements of a PPO run are shown."""


@dataclass(slots=True)
class Counts:
    """What a round holds."""

    chats: int = 0
    pieces: int = 0
    """Finished ones, as chats."""
    comparisons: int = 0
    """Those that were opened."""
    chosen: int = 0
    """Of these, those that were not drawn at random, which no figure below is made from."""
    rankings: int = 0
    """Those that count, as exports have it."""


@dataclass(slots=True)
class Round:
    """A round with its figures; agreement and win rates are of comparisons drawn at random and ranked to the end."""

    iteration: Iteration
    policies: list[IterationPolicy]
    lines: dict[int, list[Origin]]
    """Of its policies, by id, where they come from."""
    new: Policy
    """What the round tries out: the policy that it was opened with, else the youngest one."""
    last: Policy | None
    """What the new one is compared with: the nearest of its ancestors in the round, else the next youngest."""
    counts: Counts = field(default_factory=Counts)
    agreement: Share | None = None
    win_rates: dict[int, WinRate] = field(default_factory=dict)
    """Of the new policy over the others, by their ids."""
    runs: list[TrainingRun] = field(default_factory=list)
    """Trained from it: their youngest export is of this round. With their exports, base and reward at hand."""
    curves: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    """Of runs of PPO, by id: KL in nats an answer and reward, as training went on."""

    @property
    def win_rate(self) -> WinRate | None:
        """Of the new policy over the last."""
        return self.win_rates.get(self.last.pk) if self.last else None


def of_project(project: Project, iterations: Sequence[Iteration]) -> list[Round]:
    """These rounds of the project with their figures, in their order. The queries do not grow with them."""
    if not iterations:
        return []
    ids = [iteration.pk for iteration in iterations]
    policies: dict[int, list[IterationPolicy]] = defaultdict(list)
    for row in IterationPolicy.objects.filter(iteration__in=ids).select_related("policy").order_by("policy_id"):
        policies[row.iteration_id].append(row)
    lines = lineage.of_each({row.policy_id for some in policies.values() for row in some})
    counts, outcomes = _counts(project, ids), _outcomes(project, ids)
    runs, curves = _runs(project, iterations)
    found = []
    for iteration in iterations:
        new, last = _compared(iteration, [row.policy for row in policies[iteration.pk]], lines)
        ranked = outcomes[iteration.pk]
        found.append(
            Round(
                iteration=iteration,
                policies=policies[iteration.pk],
                lines={row.policy_id: lines[row.policy_id] for row in policies[iteration.pk]},
                new=new,
                last=last,
                counts=counts[iteration.pk],
                agreement=_agreement(ranked),
                win_rates=winning.over(new.pk, ranked) if last else {},
                runs=runs[iteration.pk],
                curves={run.pk: curves[run.pk] for run in runs[iteration.pk] if run.pk in curves},
            )
        )
    return found


def _compared(
    iteration: Iteration, policies: list[Policy], lines: dict[int, list[Origin]]
) -> tuple[Policy, Policy | None]:
    """What the round tries out, and what that is compared with. `policies` are by age."""
    there = {policy.pk: policy for policy in policies}
    passage = getattr(iteration, "opened_by", None)
    brought = passage.steps.get("open", {}).get("policy") if passage else None
    new = there.get(brought) or (policies[-1] if policies else iteration.reply_policy)
    ancestors = [there[one.policy.pk] for one in lines.get(new.pk, [])[1:] if one.policy.pk in there]
    others = [policy for policy in policies if policy.pk != new.pk]
    return new, (ancestors or others[::-1] or [None])[0]


def _counts(project: Project, ids: list[int]) -> dict[int, Counts]:
    found: dict[int, Counts] = defaultdict(Counts)
    finished = Conversation.objects.filter(iteration__in=ids, state=Conversation.State.FINISHED)
    kinds = {Conversation.Kind.CHAT: "chats", Conversation.Kind.WRITE: "pieces"}
    for iteration, kind, count in _grouped(finished.filter(kind__in=kinds), "iteration_id", "kind"):
        setattr(found[iteration], kinds[kind], count)
    opened = Comparison.objects.filter(iteration__in=ids, opened_at__isnull=False)
    for iteration, selection, count in _grouped(opened, "iteration_id", "selection"):
        found[iteration].comparisons += count
        found[iteration].chosen += count if selection != Comparison.Selection.RANDOM else 0
    for iteration, count in _grouped(_rankings(project, ids), "comparison__iteration_id"):
        found[iteration].rankings = count
    return found


def _grouped(rows: QuerySet, *by: str) -> Iterable[tuple]:
    return rows.order_by().values(*by).annotate(count=Count("id")).values_list(*by, "count")


def _rankings(project: Project, ids: list[int], selection: str | None = None) -> QuerySet[Ranking]:
    found = comparison_rows.rankings(project=project, filters=Comparisons(selection=selection))
    return found.filter(comparison__iteration__in=ids).order_by()


OUTCOMES = """
WITH ranking(id, comparison, iteration) AS MATERIALIZED ({}), placed AS (
    SELECT ranking.*, coalesce(request.policy_id, 0) AS policy, place.candidate_id, place.rank
    FROM ranking
    JOIN annotate_rankedcandidate place ON place.ranking_id = ranking.id
    JOIN annotate_candidate candidate ON candidate.id = place.candidate_id
    JOIN annotate_completion completion ON completion.id = candidate.completion_id
    LEFT JOIN annotate_generationrequest request ON request.id = completion.request_id
), ranked AS (
    SELECT iteration, comparison,
        string_agg(policy::text, ' ' ORDER BY policy, candidate_id) AS policies,
        string_agg(rank::text, ' ' ORDER BY policy, candidate_id) AS ranks
    FROM placed GROUP BY iteration, comparison, id
), outcome AS (
    SELECT iteration, min(policies) AS policies, string_agg(ranks, ';' ORDER BY ranks) AS rankings
    FROM ranked GROUP BY iteration, comparison
)
SELECT iteration, policies, rankings, count(*) FROM outcome GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
"""How the comparisons of rounds came out, and how many alike."""


def _outcomes(project: Project, ids: list[int]) -> dict[int, list[Outcome]]:
    drawn = _rankings(project, ids, selection=Comparison.Selection.RANDOM)
    statement, given = drawn.values_list("id", "comparison_id", "comparison__iteration_id").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(OUTCOMES.format(statement), given)
        rows = cursor.fetchall()
    found: dict[int, list[Outcome]] = defaultdict(list)
    for iteration, policies, rankings, times in rows:
        by = tuple(int(policy) or None for policy in policies.split())
        orders = tuple(tuple(map(int, ranks.split())) for ranks in rankings.split(";"))
        found[iteration].append(Outcome(by, orders, times))
    return found


def _agreement(outcomes: list[Outcome]) -> Share | None:
    """Between trainers who ranked the same; None where none did."""
    twice = [one for one in outcomes if len(one.rankings) > 1]
    pairs = (agreement.of_pairs([dict(enumerate(ranks)) for ranks in one.rankings]) for one in twice)
    return shares.of(chain.from_iterable(map(repeat, pairs, (one.times for one in twice))))


def _runs(
    project: Project, iterations: Sequence[Iteration]
) -> tuple[dict[int, list[TrainingRun]], dict[int, list[tuple[float, float]]]]:
    """By round the runs that were trained from it; by run of PPO how reward and KL went."""
    rows = TrainingRun.objects.filter(project=project).select_related("base", "reward", "policy")
    rounds = list(Iteration.objects.filter(project=project).order_by("number"))
    wanted = {iteration.pk for iteration in iterations}
    found: dict[int, list[TrainingRun]] = defaultdict(list)
    for run in rows.prefetch_related("exports").order_by("id"):
        learnt = max((_place_of(export, rounds) for export in run.exports.all()), default=-1)
        if learnt >= 0 and rounds[learnt].pk in wanted:
            found[rounds[learnt].pk].append(run)
    by_ppo = [run.pk for some in found.values() for run in some if run.kind == TrainingRun.Kind.PPO]
    measured = TrainingPoint.objects.filter(run__in=by_ppo).order_by("run_id", "step")
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for run, reward, kl in measured.values_list("run_id", "values__reward", "values__kl"):
        if reward is not None and kl is not None:
            points[run].append((kl, reward))
    return found, {run: _thinned(some) for run, some in points.items()}


def _place_of(export: Export, rounds: list[Iteration]) -> int:
    """The place of the youngest round that an export has lines of; -1 where it is older than all."""
    return max(
        (
            place
            for place, one in enumerate(rounds)
            if (one.pk == export.iteration_id if export.iteration_id else one.opened_at <= export.created_at)
        ),
        default=-1,
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = -(-len(points) // POINTS)
    return [*points[:-1:step], points[-1]]
