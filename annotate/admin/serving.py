"""The page of workers, policies and queues: what runs, how fast, and what failed."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import redis
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.text import Truncator
from django.views.decorators.cache import never_cache

from annotate import access, figures, streams
from annotate.admin.generation import AT_ONCE, try_all_again
from annotate.admin.reading import duration
from annotate.figures import FailedGroup, Failures, Held, Queue, Recent, Waits, Worker
from annotate.jobs import KINDS
from annotate.models import Job, Policy, Role

DASH = "–"
LINKED_CHARACTERS = 300
"""So much of a reason is in the address of its list, which every proxy lets through then."""
SHORT_CHARACTERS = 140
IN_WORDS = {"reply": "Replies", "suggestion": "Suggestions", "alternatives": "Alternatives"}


@never_cache
@admin.site.admin_view
def page(request: HttpRequest) -> HttpResponse:
    """What is to be seen now; a script asks for it again every few seconds."""
    _require_admin(request)
    try:
        workers, beats = figures.workers(), streams.beats()
    except redis.RedisError:
        workers, beats = None, []
    failures = figures.failures()
    recent, looked_seconds = figures.recent()
    policies, others = _policies(workers, recent, failures)
    context = {
        **admin.site.each_context(request),
        "title": "Workers and queues",
        "now": timezone.now(),
        "broker_away": workers is None,
        "beats": beats,
        "workers": [_worker(one) for one in workers or []],
        "policies": policies,
        "others": others,
        "looked": duration(looked_seconds) if looked_seconds < 3600 else "",
        "groups": [_group(one) for one in failures.groups],
        "groups_more": failures.group_count - len(failures.groups),
        "most_failed": "" if failures.whole else f"{figures.MOST_FAILED:,}",
        "failed_hours": figures.FAILED_HOURS,
        "jobs": _jobs(),
        "at_once": f"{AT_ONCE:,}",
        "may_try_again": _may_try_again(request),
    }
    return TemplateResponse(request, "admin/annotate/serving.html", context)


@admin.site.admin_view
def try_again(request: HttpRequest) -> HttpResponse:
    """The button of a group of failures: the oldest AT_ONCE of it wait once more."""
    _require_admin(request)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not _may_try_again(request):
        raise PermissionDenied
    try_all_again(request, figures.failed_in(key=request.POST.get("group", "")))
    return redirect("serving")


def _require_admin(request: HttpRequest) -> None:
    if not access.has_role(request.user, Role.ADMIN):
        raise PermissionDenied


def _may_try_again(request: HttpRequest) -> bool:
    return request.user.has_perm("annotate.change_generationrequest")


def _worker(worker: Worker) -> dict:
    """A row of workers; its policies by name."""
    host, _, number = worker.name.rpartition(":")
    return {
        "host": host,
        "number": number,
        "since": datetime.fromtimestamp(worker.since, UTC) if worker.since else None,
        "sign": duration(max(0.0, timezone.now().timestamp() - worker.at)),
        "jobs": worker.jobs,
        "policies": [_stands(one) for one in sorted(worker.policies, key=lambda one: one.policy)],
    }


def _stands(held: Held) -> dict:
    return {
        "name": held.policy,
        "state": held.state,
        "reason": held.reason,
        "in_flight": held.in_flight,
        "capacity": held.capacity,
    }


def _policies(
    workers: list[Worker] | None, recent: dict[tuple[int, str], Recent], failures: Failures
) -> tuple[list[dict], int]:
    """What is shown of each policy that is active or had something to do, and how many others there are."""
    queues = figures.queues()
    held: dict[int, list[Held]] = {}
    for worker in workers or []:
        for one in worker.policies:
            held.setdefault(one.policy_id, []).append(one)
    busy = {pk for pk, _ in (*queues, *recent)} | set(failures.by_policy)
    found, others = [], 0
    for policy in Policy.objects.order_by("-active", "name"):
        if not (policy.active or policy.pk in busy or policy.pk in held):
            others += 1
            continue
        state, told = _state(policy, held.get(policy.pk, []), broker_away=workers is None)
        purposes = [
            (purpose, queues.get((policy.pk, purpose)), recent.get((policy.pk, purpose))) for purpose in IN_WORDS
        ]
        done = [one for _, _, one in purposes if one]
        found.append(
            {
                "policy": policy,
                "state": state,
                "told": told,
                "reasons": sorted({one.reason for one in held.get(policy.pk, []) if one.reason}),
                "in_flight": sum(one.in_flight for one in held.get(policy.pk, [])),
                "capacity": sum(one.capacity for one in held.get(policy.pk, [])),
                "now": _rate(sum(one.counters.get("tokens_a_second", 0) for one in held.get(policy.pk, []))),
                "last_minute": _rate(sum(one.tokens_last_minute for one in done)),
                "last_minutes": _rate(sum(one.tokens_last_minutes for one in done)),
                "texts": f"{sum(one.texts for one in done):,}",
                "failed": f"{failures.by_policy.get(policy.pk, 0):,}",
                "purposes": [_purpose(*one) for one in purposes],
            }
        )
    return found, others


def _state(policy: Policy, held: list[Held], *, broker_away: bool) -> tuple[str, str]:
    """The best state that a worker has it in, and in words how many have it in which."""
    if broker_away:
        return "unknown", "unknown"
    if not held:
        return ("absent", "no worker has it") if policy.active else ("off", "switched off")
    counted = Counter(one.state for one in held)
    best = next((state for state in streams.BEST_FIRST if counted[state]), held[0].state)
    told = ", ".join(f"{count} {state}" for state, count in counted.most_common()) if len(held) > 1 else best
    return best, told if policy.active else f"{told}, being switched off"


def _purpose(purpose: str, queue: Queue | None, recent: Recent | None) -> dict:
    queue, recent = queue or Queue(), recent or Recent()
    return {
        "name": IN_WORDS[purpose],
        "waiting": f"{queue.waiting:,}",
        "claimed": f"{queue.claimed:,}",
        "oldest": DASH if queue.oldest_seconds is None else duration(queue.oldest_seconds),
        "texts": f"{recent.texts:,}",
        "waits": [
            _waits(one) for one in (recent.asking_minutes, recent.asking_hour, recent.claim_minutes, recent.claim_hour)
        ],
    }


def _waits(waits: Waits) -> str:
    """Median and 99th percentile."""
    if waits.median is None or waits.most is None:
        return DASH
    return f"{_seconds(waits.median)} / {_seconds(waits.most)}"


def _group(group: FailedGroup) -> dict:
    asked = {"state__exact": "failed", "policy__id__exact": group.policy_id}
    whole = len(group.reason) <= LINKED_CHARACTERS
    asked["reason__exact" if whole else "reason__startswith"] = group.reason[:LINKED_CHARACTERS]
    asked["ended_at__gte"] = (timezone.now() - timedelta(hours=figures.FAILED_HOURS)).replace(microsecond=0).isoformat()
    return {
        "key": group.key,
        "policy": group.policy,
        "reason": group.reason,
        "short": Truncator(group.reason).chars(SHORT_CHARACTERS),
        "count": f"{group.count:,}",
        "newest": group.newest,
        "list": f"{reverse('admin:annotate_generationrequest_changelist')}?{urlencode(asked)}",
    }


def _jobs() -> list[dict]:
    """Exports, imports and training runs that are not over."""
    counted = {(one.kind, one.state): one for one in figures.jobs()}
    found = []
    for kind, model in KINDS.items():
        waiting, running = counted.get((kind, "waiting")), counted.get((kind, "running"))
        found.append(
            {
                "name": model._meta.verbose_name_plural.capitalize(),
                "waiting": waiting.count if waiting else 0,
                "running": running.count if running else 0,
                "oldest": duration(waiting.oldest_seconds) if waiting else DASH,
                "list": _list_of(model),
            }
        )
    return found


def _list_of(model: type[Job]) -> str:
    """The address of its list; empty where there is none."""
    there = admin.site.is_registered(model)
    return reverse(f"admin:annotate_{model._meta.model_name}_changelist") if there else ""


def _rate(tokens: float) -> str:
    return f"{tokens:,.0f}" if tokens >= 10 or not tokens else f"{tokens:.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:,.0f}"
