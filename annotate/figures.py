"""How the site runs: what waits, how fast it is sampled, what failed, who works. Only read, by index, in bounded time.

Two clocks start for a text: when it was asked for (`created_at`, what a person feels) and when a worker claimed it
(what the engine takes). A request that was tried again counts from its first asking, and from its last claim.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import connection
from django.db.models import Count, Min, QuerySet
from django.db.models.functions import MD5
from django.utils import timezone

from annotate import streams
from annotate.jobs import KINDS
from annotate.models import GenerationRequest, Job

PURPOSES = GenerationRequest.Purpose.values
MOST_ENDED = 5_000
"""Requests that the figures of the last hour look at, the newest ones: more would make the page slower."""
MOST_FAILED = 5_000
"""Failed requests, the newest ones, among which those of the last day are looked for."""
MOST_GROUPS = 20
FAILED_HOURS = 24


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for one policy and purpose, and what workers hold: in requests; the age of the oldest in seconds."""

    waiting: int = 0
    claimed: int = 0
    oldest_seconds: float | None = None


WAITING = """
SELECT queue.policy_id, oldest.purpose, queue.waiting, extract(epoch FROM %(now)s - oldest.created_at)::float
FROM (
    SELECT policy_id, urgency, count(*) AS waiting, min(id) AS first
    FROM annotate_generationrequest WHERE state = 'waiting' GROUP BY policy_id, urgency
) queue JOIN annotate_generationrequest oldest ON oldest.id = queue.first
"""
CLAIMED = """
SELECT policy_id, purpose, count(*) FROM annotate_generationrequest
WHERE state = 'claimed' AND lease_until IS NOT NULL GROUP BY policy_id, purpose
"""


def queues() -> dict[tuple[int, str], Queue]:
    """By policy and purpose, where anything waits or is sampled. The one with the lowest number is the oldest."""
    claimed = {(policy, purpose): count for policy, purpose, count in _rows(CLAIMED)}
    found = {key: Queue(claimed=count) for key, count in claimed.items()}
    for policy, purpose, waiting, seconds in _rows(WAITING):
        key = (policy, purpose)
        found[key] = Queue(waiting=waiting, claimed=claimed.get(key, 0), oldest_seconds=max(0.0, seconds))
    return found


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds to the first token of a request, half of them and 99 of 100 under these; None where there was none."""

    median: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Recent:
    """What was sampled for one policy and purpose; texts and waits of an hour, or of as much of it as was looked at."""

    texts: int = 0
    tokens_last_minute: float = 0.0  # a second
    tokens_last_minutes: float = 0.0  # a second, over ten
    asking_minutes: Waits = Waits()  # over ten
    asking_hour: Waits = Waits()
    claim_minutes: Waits = Waits()
    claim_hour: Waits = Waits()


# Texts are looked up request by request, through their own index: the last hour is a small part of all.
RECENT = """
WITH ended AS MATERIALIZED (
    SELECT id, policy_id, purpose, ended_at, extract(epoch FROM claimed_at - created_at)::float AS waited
    FROM annotate_generationrequest
    WHERE ended_at >= %(now)s - interval '1 hour' ORDER BY ended_at DESC LIMIT %(most)s
), looked AS (
    -- How far back it reaches where there was more than is looked at; else an hour.
    SELECT CASE WHEN count(*) < %(most)s THEN 3600
        ELSE greatest(1, extract(epoch FROM %(now)s - min(ended_at))) END::float AS seconds
    FROM ended
), sampled AS (
    SELECT ended.*, text.texts, text.tokens, text.first / 1000.0 AS first,
        greatest(waited, 0) + text.first / 1000.0 AS asked, ended_at >= %(now)s - interval '10 minutes' AS new
    FROM ended CROSS JOIN LATERAL (
        SELECT count(*) AS texts, sum(completion_tokens) AS tokens, min(first_token_ms)::float AS first
        FROM annotate_completion WHERE request_id = ended.id
    ) text
    WHERE text.texts > 0
)
SELECT policy_id, purpose, sum(texts)::bigint,
    coalesce(sum(tokens) FILTER (WHERE ended_at >= %(now)s - interval '1 minute'), 0)::float
        / least(60, (SELECT seconds FROM looked)),
    coalesce(sum(tokens) FILTER (WHERE new), 0)::float / least(600, (SELECT seconds FROM looked)),
    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY asked) FILTER (WHERE new),
    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY asked),
    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY first) FILTER (WHERE new),
    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY first),
    (SELECT seconds FROM looked)
FROM sampled GROUP BY policy_id, purpose
"""


def recent() -> tuple[dict[tuple[int, str], Recent], float]:
    """By policy and purpose, of requests that ended in the last hour; and how many seconds back was looked.

    That is an hour, or less where more than MOST_ENDED requests ended in it. The tokens of a text count when its
    request ends.
    """
    found, looked = {}, 3600.0
    for policy, purpose, texts, last_minute, last_minutes, *waits, seconds in _rows(RECENT, most=MOST_ENDED):
        found[policy, purpose] = Recent(texts, last_minute, last_minutes, *(Waits(*one or ()) for one in waits))
        looked = seconds
    return found, looked


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """Requests of a policy that failed for the same reason in the last day. `key` names the group."""

    policy: str
    policy_id: int
    digest: str
    reason: str
    count: int
    newest: object  # datetime

    @property
    def key(self) -> str:
        """Policy and digest of the reason, for `failed_in`."""
        return f"{self.policy_id}-{self.digest}"


@dataclass(frozen=True, slots=True)
class Failures:
    """The newest groups of the last day, how many requests failed by policy, and how many groups there are.

    `whole` is false where more than MOST_FAILED failed, of which the newest ones are counted.
    """

    groups: list[FailedGroup]
    by_policy: dict[int, int]
    group_count: int
    whole: bool


FAILED = """
WITH newest AS MATERIALIZED (
    SELECT policy_id, reason, ended_at FROM annotate_generationrequest
    WHERE state = 'failed' ORDER BY id DESC LIMIT %(most)s
), groups AS (
    SELECT policy_id, md5(reason) AS digest, min(reason) AS reason, count(*) AS count, max(ended_at) AS newest
    FROM newest WHERE ended_at >= %(now)s - make_interval(hours => %(hours)s) GROUP BY policy_id, md5(reason)
)
SELECT policy.name, policy_id, digest, reason, count, newest,
    (sum(count) OVER (PARTITION BY policy_id))::bigint, count(*) OVER (), sum(count) OVER () < %(most)s
FROM groups JOIN annotate_policy policy ON policy.id = policy_id
ORDER BY newest DESC, policy_id, digest
"""


def failures() -> Failures:
    """What failed in the last 24 hours and still stands as failed, by policy and reason, the newest first."""
    rows = _rows(FAILED, most=MOST_FAILED, hours=FAILED_HOURS)
    groups = [FailedGroup(*row[:6]) for row in rows[:MOST_GROUPS]]
    return Failures(groups, {row[1]: row[6] for row in rows}, len(rows), all(row[8] for row in rows))


def failed_in(*, key: str) -> QuerySet[GenerationRequest]:
    """The requests of a FailedGroup, the oldest first; none where the key names none."""
    policy_id, _, digest = key.partition("-")
    if not re.fullmatch(r"[0-9]{1,18}-[0-9a-f]{32}", key):
        return GenerationRequest.objects.none()
    failed = GenerationRequest.objects.filter(
        state=GenerationRequest.State.FAILED,
        policy_id=int(policy_id),
        ended_at__gte=timezone.now() - timedelta(hours=FAILED_HOURS),
    )
    return failed.annotate(digest=MD5("reason")).filter(digest=digest).order_by("id")


@dataclass(frozen=True, slots=True)
class JobCount:
    """Jobs of a kind in one state, and the age of the oldest in seconds where they are not over."""

    kind: str
    state: str
    count: int
    oldest_seconds: float | None


def jobs() -> list[JobCount]:
    """Long work of all kinds (exports, imports, training) by kind and state, where there is any."""
    now, found = timezone.now(), []
    for kind, model in KINDS.items():
        rows = model.objects.order_by("state").values("state").annotate(count=Count("id"), first=Min("created_at"))
        for row in rows:
            oldest = None if row["state"] in Job.ENDED else max(0.0, (now - row["first"]).total_seconds())
            found.append(JobCount(kind, row["state"], row["count"], oldest))
    return found


# Three parts, so that each has its index; the state in it is known, and so not read from the rows.
SLOTS = """
SELECT project.slug, slot.kind, slot.state, sum(slot.count)::bigint
FROM (
    SELECT project_id, kind, 'free' AS state, count(*) AS count FROM annotate_assignment
    WHERE state = 'free' AND reserved_for_id IS NULL GROUP BY project_id, kind
    UNION ALL
    SELECT project_id, kind, 'free', count(*) FROM annotate_assignment
    WHERE state = 'free' AND reserved_for_id IS NOT NULL GROUP BY project_id, kind
    UNION ALL
    SELECT project_id, kind, 'held', count(*) FROM annotate_assignment
    WHERE state = 'held' GROUP BY project_id, kind
) slot JOIN annotate_project project ON project.id = slot.project_id
GROUP BY project.slug, slot.kind, slot.state
"""


def slots() -> dict[tuple[str, str, str], int]:
    """Slots of work that are free or held, by project (its slug), kind and state; where there are any."""
    return {tuple(key): count for *key, count in _rows(SLOTS)}


@dataclass(frozen=True, slots=True)
class Held:
    """A policy as one worker has it. `counters` grow while the worker lives; see worker/counters.py."""

    policy_id: int
    policy: str
    state: str
    reason: str
    in_flight: int
    capacity: int
    counters: dict


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process that showed a sign of life lately; times are Unix seconds."""

    name: str
    since: float
    at: float
    jobs: int
    policies: list[Held] = field(default_factory=list)


def workers() -> list[Worker]:
    """All living workers by name. Raises redis.RedisError where Redis does not answer."""
    return [
        Worker(name, beat.get("since", 0), beat.get("at", 0), beat.get("jobs", 0), list(_held(beat)))
        for name, beat in sorted(streams.heartbeats().items())
    ]


def _held(beat: dict) -> Iterator[Held]:
    # One that runs an earlier version says less.
    for policy_id, told in beat.get("policies", {}).items():
        yield Held(
            int(policy_id),
            told.get("policy", policy_id),
            told["state"],
            told.get("reason", ""),
            told.get("in_flight", 0),
            told.get("capacity", 0),
            told.get("counters", {}),
        )


def _rows(statement: str, **parameters) -> list[tuple]:
    # The clock that wrote most of the times.
    with connection.cursor() as cursor:
        cursor.execute(statement, {"now": timezone.now(), **parameters})
        return cursor.fetchall()
