"""Claim and submit over HTTP: 32 trainers who act every two seconds, and 32 who never pause."""

import os
import statistics
import threading
import time

from django.db import connections
from rest_framework.authtoken.models import Token

from tests import bulk, factory, site

TRAINERS = 32
SECONDS = float(os.environ.get("BENCH_SECONDS", "20"))
SLOTS = 100_000


def act(api: site.Api, slug: str, pause: float, end: float, claims: list[float], submits: list[float]) -> None:
    """Claim and submit until `end`; times in milliseconds."""
    while (begun := time.perf_counter()) < end:
        status, slot = api.call("POST", f"projects/{slug}/claim/", {"kinds": ["rank"]})
        claimed = time.perf_counter()
        assert status == 200, slot
        status, answer = api.call(
            "POST", f"assignments/{slot['id']}/submit/", {"tiers": [[candidate] for candidate in slot["shown_order"]]}
        )
        assert status == 201, answer
        submits.append((time.perf_counter() - claimed) * 1000)
        claims.append((claimed - begun) * 1000)
        if pause:
            time.sleep(max(0, pause - (time.perf_counter() - begun)))


def load(port: int, slug: str, tokens: list[str], pause: float) -> tuple[list[float], list[float], float]:
    """All trainers at once; the times of claims and of submits, and how long it took in seconds."""
    claims, submits = [], []
    begun = time.perf_counter()
    end = begun + SECONDS
    threads = [
        threading.Thread(target=act, args=(site.Api(port, token), slug, pause, end, claims, submits))
        for token in tokens
    ]
    for thread in threads:
        thread.start()
        # Real people do not act in step.
        time.sleep(pause / len(tokens))
    for thread in threads:
        thread.join()
    return claims, submits, time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    project = factory.project(overlap=1)
    bulk.comparisons(project, SLOTS)
    bulk.analyze()
    tokens = [Token.objects.create(user=factory.trainer(project)).key for _ in range(TRAINERS)]
    connections.close_all()
    print(f"\nOver HTTP, {SLOTS:,} open slots, {TRAINERS} trainers for {SECONDS:.0f} s, in ms")
    print(f"{'':>16} {'claim p50':>10} {'claim p99':>10} {'submit p50':>11} {'submit p99':>11} {'rankings/s':>11}")
    with site.web_server(API_REQUESTS_PER_MINUTE="1000000") as port:
        load(port, project.slug, tokens[:4], 0.5)
        for name, pause in (("every 2 s", 2.0), ("closed loop", 0.0)):
            claims, submits, took = load(port, project.slug, tokens, pause)
            cuts = [statistics.quantiles(times, n=100) for times in (claims, submits)]
            print(
                f"{name:>16} {cuts[0][49]:>10.1f} {cuts[0][98]:>10.1f} {cuts[1][49]:>11.1f} {cuts[1][98]:>11.1f} "
                f"{len(claims) / took:>11.1f}"
            )
