"""Figures for Prometheus at /metrics, computed anew at each scrape: every web process tells the same.

The database tells what waits; workers count in their signs of life what they sampled. Where one of the two is away, the
rest is told, and `bothsides_up` says so.
"""

import time
from collections.abc import Iterator

import redis
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from annotate import access, figures, streams
from annotate.errors import NotFound
from annotate.figures import Held, Worker
from annotate.jobs import KINDS
from annotate.models import Assignment, Iteration, Job, Policy
from annotate.streams import FIRST_TOKEN_BOUNDS

FINISHES = ("stop", "length", "stopped", "refused", "error")
FAILURES = ("request", "load", "engine")
OF_A_POLICY = ["worker", "policy"]


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All figures in Prometheus' text format, for the bearer of METRICS_TOKEN or an admin; 404 for anyone else."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        access.require_watcher(request.user, token.strip() if scheme.lower() == "bearer" else "")
    except NotFound as error:
        raise Http404 from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Site())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class Site:
    """What prometheus_client asks for figures, once."""

    def collect(self) -> Iterator[Metric]:
        """Every metric, whole or without the samples that could not be had."""
        up = GaugeMetricFamily("bothsides_up", "Whether a part of the site is there: 1 or 0.", labels=["part"])
        try:
            recorded, database = list(_of_record()), True
        except DatabaseError:
            recorded, database = [], False
        try:
            workers, beats, broker = figures.workers(), streams.beats(), True
        except redis.RedisError:
            workers, beats, broker = [], [], False
        parts = {"database": database, "broker": broker, "worker": bool(workers), "beat": bool(beats)}
        for part, there in parts.items():
            up.add_metric([part], there)
        yield up
        yield from recorded
        if broker:
            yield from _of_workers(workers)


def _of_record() -> Iterator[Metric]:
    yield from _requests()
    yield _assignments()
    iterations = Iteration.objects.filter(state=Iteration.State.OPEN).count()
    yield GaugeMetricFamily("bothsides_open_iterations", "Iterations that are open.", value=iterations)
    jobs = GaugeMetricFamily("bothsides_jobs", "Exports, imports and training runs by state.", labels=["kind", "state"])
    counted = {(one.kind, one.state): one.count for one in figures.jobs()}
    for kind in KINDS:
        for state in Job.State.values:
            jobs.add_metric([kind, state], counted.get((kind, state), 0))
    yield jobs


def _requests() -> Iterator[Metric]:
    """Of every policy that is active or has something waiting, so that what is empty is 0 and not absent."""
    requests = GaugeMetricFamily(
        "bothsides_requests",
        "Sampling requests that wait for a worker, or that one has claimed.",
        labels=["policy", "purpose", "state"],
    )
    oldest = GaugeMetricFamily(
        "bothsides_oldest_waiting_seconds",
        "Age of the oldest sampling request that waits; 0 where none does.",
        labels=["policy", "purpose"],
    )
    queues = figures.queues()
    busy = {policy_id for policy_id, _ in queues}
    for policy_id, name, active in Policy.objects.values_list("id", "name", "active"):
        if not (active or policy_id in busy):
            continue
        for purpose in figures.PURPOSES:
            queue = queues.get((policy_id, purpose), figures.Queue())
            requests.add_metric([name, purpose, "waiting"], queue.waiting)
            requests.add_metric([name, purpose, "claimed"], queue.claimed)
            oldest.add_metric([name, purpose], queue.oldest_seconds or 0)
    yield from (requests, oldest)


def _assignments() -> Metric:
    """Of projects with an open iteration all kinds, of others such as there are."""
    slots = figures.slots()
    for slug in Iteration.objects.filter(state=Iteration.State.OPEN).values_list("project__slug", flat=True):
        for kind in Assignment.Kind.values:
            for state in ("free", "held"):
                slots.setdefault((slug, kind, state), 0)
    found = GaugeMetricFamily(
        "bothsides_assignments", "Slots of work that are free or held.", labels=["project", "kind", "state"]
    )
    for key, count in sorted(slots.items()):
        found.add_metric(list(key), count)
    return found


def _of_workers(workers: list[Worker]) -> Iterator[Metric]:
    yield GaugeMetricFamily("bothsides_workers", "Worker processes that show signs of life.", value=len(workers))
    started = GaugeMetricFamily(
        "bothsides_worker_start_time_seconds", "When the worker started, as Unix time.", labels=["worker"]
    )
    age = GaugeMetricFamily(
        "bothsides_worker_heartbeat_age_seconds", "Time since the worker's last sign of life.", labels=["worker"]
    )
    jobs = GaugeMetricFamily(
        "bothsides_worker_jobs", "Exports, imports and training runs that the worker runs now.", labels=["worker"]
    )
    for worker in workers:
        started.add_metric([worker.name], worker.since)
        age.add_metric([worker.name], max(0, time.time() - worker.at))
        jobs.add_metric([worker.name], worker.jobs)
    yield from (started, age, jobs)
    held = [([worker.name, one.policy], one) for worker in workers for one in worker.policies]
    yield from _states(held)
    yield from _counted(held)
    for start, name, meaning in (
        ("claim", "bothsides_claim_to_first_token_seconds", "From a worker's claim of a request to its first token."),
        ("asking", "bothsides_asking_to_first_token_seconds", "From asking for a text to its first token."),
    ):
        yield _histogram(held, start, name, meaning)


def _states(held: list[tuple[list[str], Held]]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "bothsides_policy_state",
        "1 for the state in which the worker has the policy: ready, loading, failed and the like.",
        labels=[*OF_A_POLICY, "state"],
    )
    in_flight = GaugeMetricFamily("bothsides_texts_in_flight", "Texts being sampled now.", labels=OF_A_POLICY)
    capacity = GaugeMetricFamily(
        "bothsides_texts_capacity", "Texts that can be sampled at once; 0 without a model.", labels=OF_A_POLICY
    )
    for labels, one in held:
        state.add_metric([*labels, one.state], 1)
        in_flight.add_metric(labels, one.in_flight)
        capacity.add_metric(labels, one.capacity)
    yield from (state, in_flight, capacity)


def _counted(held: list[tuple[list[str], Held]]) -> Iterator[Metric]:
    for key, name, meaning in (
        ("tokens", "bothsides_tokens", "Tokens written since the worker started."),
        ("prompt_tokens", "bothsides_prompt_tokens", "Tokens of prompts of the texts that were begun."),
        ("loads", "bothsides_model_loads", "Models loaded, or servers reached, by the worker."),
        ("swaps", "bothsides_model_swaps", "Times that the policy's model was put down to make room for another one."),
    ):
        found = CounterMetricFamily(name, meaning, labels=OF_A_POLICY)
        for labels, one in held:
            found.add_metric(labels, one.counters.get(key, 0))
        yield found
    for key, name, label, values, meaning in (
        ("texts", "bothsides_texts", "finish", FINISHES, "Texts that ended, by how."),
        (
            "failures",
            "bothsides_failures",
            "kind",
            FAILURES,
            "Attempts of requests that failed, models that could not be loaded, engines that broke.",
        ),
    ):
        found = CounterMetricFamily(name, meaning, labels=[*OF_A_POLICY, label])
        for labels, one in held:
            counted = one.counters.get(key, {})
            for value in values:
                found.add_metric([*labels, value], counted.get(value, 0))
        yield found


def _histogram(held: list[tuple[list[str], Held]], start: str, name: str, meaning: str) -> Metric:
    found = HistogramMetricFamily(name, meaning, labels=[*OF_A_POLICY, "purpose"])
    ends = [*map(str, map(float, FIRST_TOKEN_BOUNDS)), "+Inf"]
    for labels, one in held:
        for purpose, kept in one.counters.get("first_tokens", {}).items():
            # A worker of another version may count in other buckets.
            if len(kept.get(start, {}).get("buckets", ())) != len(ends):
                continue
            below, buckets = 0, []
            for end, count in zip(ends, kept[start]["buckets"], strict=True):
                below += count
                buckets.append((end, below))
            found.add_metric([*labels, purpose], buckets, kept[start]["seconds"])
    return found
