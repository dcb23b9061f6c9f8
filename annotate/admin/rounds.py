"""The page of a project's rounds: in a row, each with its policies, figures, and what was learnt from it."""

from dataclasses import dataclass

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count, Model
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache

from annotate import access, rounds
from annotate.models import Iteration, Passage, Policy, Project, Role, TrainingRun
from annotate.quality.shares import Share
from annotate.quality.winning import WinRate
from annotate.rounds import Round

ON_A_PAGE = 10
WIDTH, HEIGHT = 160, 56
"""Of a curve, in the units of its drawing."""


@never_cache
@admin.site.admin_view
def projects(request: HttpRequest) -> HttpResponse:
    """Whose rounds there are."""
    _require_admin(request)
    found = Project.objects.annotate(rounds=Count("iterations")).order_by("name", "id")
    context = {**admin.site.each_context(request), "title": "Rounds", "projects": found}
    return TemplateResponse(request, "admin/annotate/rounds_projects.html", context)


@never_cache
@admin.site.admin_view
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """The rounds of a project, the newest first."""
    _require_admin(request)
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise Http404
    rows = Iteration.objects.filter(project=project).order_by("-number")
    rows = rows.select_related("reply_policy", "passage", "opened_by__iteration")
    turned = Paginator(rows, ON_A_PAGE).get_page(request.GET.get("page"))
    found = rounds.of_project(project, list(turned))
    context = {
        **admin.site.each_context(request),
        "title": f"Rounds of {project}",
        "project": project,
        "rounds": [_round(one) for one in found],
        "turned": turned,
    }
    return TemplateResponse(request, "admin/annotate/rounds.html", context)


def _require_admin(request: HttpRequest) -> None:
    if not access.has_role(request.user, Role.ADMIN):
        raise PermissionDenied


@dataclass(frozen=True, slots=True)
class Link:
    """A thing by name, with the address of its page."""

    name: str
    address: str


def _link(row: Model, name: str = "") -> Link:
    return Link(name or str(row), reverse(f"admin:annotate_{row._meta.model_name}_change", args=[row.pk]))


def _round(one: Round) -> dict:
    iteration, counts = one.iteration, one.counts
    passage = getattr(iteration, "passage", None)
    on_its_way = passage is not None and passage.state != Passage.State.DONE
    ended = "on to the next round by" if on_its_way else "ended by"
    passages = {"opened by": getattr(iteration, "opened_by", None), ended: passage}
    return {
        "iteration": iteration,
        "link": _link(iteration, f"Round {iteration.number}"),
        "policies": [
            {
                "link": _link(row.policy),
                "new": row.policy_id == one.new.pk and one.last is not None,
                "weight": row.weight,
                "replies": row.policy_id == iteration.reply_policy_id,
                "way": [_step(step.policy, step.run) for step in one.lines[row.policy_id] if step.run],
                "from": _link(one.lines[row.policy_id][-1].policy),
            }
            for row in reversed(one.policies)
        ],
        "counts": [
            (f"{count:,}", name if count == 1 else f"{name}s")
            for count, name in (
                (counts.chats, "chat"),
                (counts.pieces, "piece"),
                (counts.comparisons, "comparison"),
                (counts.rankings, "ranking"),
            )
        ],
        "chosen": f"{counts.chosen:,} comparison{' was' if counts.chosen == 1 else 's were'} chosen"
        if counts.chosen
        else "",
        "agreement": _share(one.agreement),
        "agreement_on": f"{one.agreement.clusters:,}" if one.agreement else "",
        "rates": [_rate(one, row.policy) for row in reversed(one.policies) if row.policy_id in one.win_rates],
        "no_rate": _why_no_rate(one),
        "runs": [_run(run, one.curves.get(run.pk)) for run in one.runs],
        "passages": [(told, _link(row, f"passage {row.pk}")) for told, row in passages.items() if row],
        "on_its_way": on_its_way and {"state": passage.state, "step": passage.step},
    }


def _step(policy: Policy, run: TrainingRun) -> dict:
    """A policy that was trained, with all that its training learnt from."""
    return {
        "policy": _link(policy),
        "run": _link(run, f"{run.kind} run {run.pk}"),
        "exports": _exports(run),
        "reward": run.reward and _link(run.reward, f"reward run {run.reward_id}"),
        "reward_exports": _exports(run.reward) if run.reward else [],
    }


def _exports(run: TrainingRun) -> list[Link]:
    return [_link(export, f"export {export.pk}") for export in sorted(run.exports.all(), key=lambda one: one.pk)]


def _share(share: Share | None) -> str:
    if share is None:
        return ""
    error = "" if share.error is None else f" ± {100 * share.error:.1f}"
    return f"{100 * share.value:.1f}{error} %"


def _rate(one: Round, over: Policy) -> dict:
    rate: WinRate = one.win_rates[over.pk]
    return {
        "over": over,
        "is_last": over == one.last,
        "value": f"{min(99, max(1, 100 * rate.value)):.0f} %",
        # What is drawn never reaches the ends, and must not be told so by rounding.
        "low": "under 1" if rate.low < 0.005 else f"{100 * rate.low:.0f}",
        "high": "over 99" if rate.high > 0.995 else f"{100 * rate.high:.0f}",
        # Of the bar that shows it; 100 units wide.
        "from": round(100 * rate.low, 1),
        "width": round(100 * (rate.high - rate.low), 1),
        "at": round(100 * rate.value, 1),
        "pairs": f"{rate.better:,} better, {rate.tied:,} tied, {rate.worse:,} worse",
        "comparisons": rate.comparisons,
    }


def _why_no_rate(one: Round) -> str:
    """In a sentence, where the new policy has no win rate over the last one."""
    if one.win_rate:
        return ""
    if one.last is None:
        return "One policy alone: there is nothing to compare it with."
    if not one.counts.rankings:
        return "No comparison has all its rankings yet."
    return f"No comparison drawn at random has candidates of both {one.new} and {one.last} yet."


def _run(run: TrainingRun, curve: list[tuple[float, float]] | None) -> dict:
    policy = getattr(run, "policy", None)
    metrics = run.metrics
    found = {
        "link": _link(run, f"{run.kind} run {run.pk}"),
        "state": run.state,
        "exports": _exports(run),
        "base": _link(run.base),
        "reward": run.reward and _link(run.reward, f"reward run {run.reward_id}"),
        "policy": policy and _link(policy),
        "figures": [],
        "curve": _drawn(curve) if curve and len(curve) > 1 else None,
    }
    if run.kind == TrainingRun.Kind.REWARD and metrics.get("unseen_accuracy") is not None:
        error = metrics.get("unseen_accuracy_error")
        told = f"{100 * metrics['unseen_accuracy']:.1f}{'' if error is None else f' ± {100 * error:.1f}'} %"
        count = metrics.get("splits", {}).get("unseen", {}).get("comparisons")
        of = "" if count is None else f", in {count:,} comparison{'' if count == 1 else 's'}"
        found["figures"].append((told, f"of unseen pairs foretold{of}"))
    if run.kind == TrainingRun.Kind.PPO and metrics.get("reward_gain") is not None:
        error = metrics.get("reward_gain_error")
        found["figures"].append(
            (f"{metrics['reward_gain']:+.2f}{'' if error is None else f' ± {error:.2f}'}", "reward gained")
        )
        if (kl := metrics.get("after", {}).get("kl")) is not None:
            found["figures"].append((_hundredths(kl), "nats an answer from its beginning"))
    return found


def _drawn(curve: list[tuple[float, float]]) -> dict:
    """A line of reward over KL in a box of WIDTH by HEIGHT, with the ends of both axes."""
    least, most = [min(axis) for axis in zip(*curve, strict=True)], [max(axis) for axis in zip(*curve, strict=True)]
    across, up = (high - low or 1 for low, high in zip(least, most, strict=True))
    points = [
        (round(WIDTH * (kl - least[0]) / across, 1), round(HEIGHT - HEIGHT * (reward - least[1]) / up, 1))
        for kl, reward in curve
    ]
    return {
        "points": " ".join(f"{x},{y}" for x, y in points),
        "last": points[-1],
        "kl": [_hundredths(value) for value in (least[0], most[0])],
        "reward": [_hundredths(value) for value in (least[1], most[1])],
    }


def _hundredths(value: float) -> str:
    """To two places, where a little less than nothing is nothing."""
    return f"{round(value, 2) + 0:.2f}"
