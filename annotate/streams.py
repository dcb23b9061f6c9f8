"""What is being generated, as it comes: one Redis stream an assignment. Nothing here is the record.

An event is a JSON object: `kind` (reset, thinking, text, finished, done, stopped, failed, refused), `request`, `index`,
`attempt`; a text event also has `offset` in characters, `text`, and `whole` where it holds all so far. `thinking`
says that a model thinks before its first word; `finished` ends one text, with `finish` saying how; the last four end
the request.
"""

import json
import logging
import time
from collections.abc import Iterator
from functools import cache

import redis
from django.conf import settings

logger = logging.getLogger(__name__)

LONGEST = 5000
"""Events kept of one assignment: many times those of the longest reply."""


@cache
def client() -> redis.Redis:
    """The connection pool of this process; each call waits two seconds at most."""
    return redis.Redis.from_url(settings.REDIS_URL, decode_responses=True, **settings.REDIS_OPTIONS)


def key_of(assignment_id: int) -> str:
    """The key of an assignment's stream."""
    return f"bothsides:stream:{assignment_id}"


def publish(assignment_id: int, events: list[dict]) -> None:
    """Append events. Best effort: a failure is logged, because the final text is in the database."""
    try:
        with client().pipeline(transaction=False) as pipe:
            for event in events:
                pipe.xadd(key_of(assignment_id), {"e": json.dumps(event)}, maxlen=LONGEST, approximate=True)
            pipe.expire(key_of(assignment_id), settings.STREAM_TTL_SECONDS)
            pipe.execute()
    except redis.RedisError as error:
        logger.warning("The stream of assignment %s took nothing: %s", assignment_id, error)


def read(assignment_id: int, after: str = "0", *, wait: float = 1.0) -> Iterator[tuple[str, dict] | None]:
    """Events after an id (`0`: from the first one kept), for ever; None whenever `wait` seconds (up to
    1.5) brought nothing, so that the caller can look up, send a sign of life or stop.

    While Redis is away it yields None at the same pace.
    """
    last = after
    while True:
        try:
            found = client().xread({key_of(assignment_id): last}, block=max(1, int(wait * 1000)), count=500)
        except redis.RedisError as error:
            logger.warning("The stream of assignment %s cannot be read: %s", assignment_id, error)
            time.sleep(wait)
            found = []
        if not found:
            yield None
            continue
        for event_id, fields in found[0][1]:
            last = event_id
            yield event_id, json.loads(fields["e"])


def so_far(assignment_id: int, after: str = "0") -> list[tuple[str, dict]]:
    """The events after an id (`0`: from the first one kept) that are there now; none while Redis is away."""
    try:
        found = client().xrange(key_of(assignment_id), min=f"({after}" if after != "0" else "-")
    except redis.RedisError as error:
        logger.warning("The stream of assignment %s cannot be read: %s", assignment_id, error)
        return []
    return [(event_id, json.loads(fields["e"])) for event_id, fields in found]


FIRST_TOKEN_BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60)
"""Upper ends, in seconds, of the buckets in which workers count times to the first token; a last one has no end."""

HEARTBEAT = "bothsides:worker:"
"""The beginning of the key under which each worker says what it holds; the key expires."""


def heartbeats() -> dict[str, dict]:
    """What each living worker last said, by its name (host:process): `{"policies", "jobs", "since", "at"}`.

    `policies` is by id: `state`, `reason`, `in_flight` and `capacity` in texts, and `counters`, which grow while
    the worker lives (worker/counters.py). `jobs` is how many exports and imports it runs; times are Unix seconds.
    What is none is left out: one stray key must not take pages and metrics away. Raises redis.RedisError where Redis
    does not answer.
    """
    keys = list(client().scan_iter(match=f"{HEARTBEAT}*", count=100))
    values = client().mget(keys) if keys else []
    told = {key.removeprefix(HEARTBEAT): _heartbeat(value) for key, value in zip(keys, values, strict=True) if value}
    return {name: beat for name, beat in told.items() if beat is not None}


def _heartbeat(value: str) -> dict | None:
    try:
        said = json.loads(value)
        held = [(int(policy_id), one["state"], one.get("counters", {})) for policy_id, one in said["policies"].items()]
        right = all(isinstance(state, str) and isinstance(counters, dict) for _, state, counters in held)
        right = right and all(isinstance(said.get(name, 0), int | float) for name in ("jobs", "since", "at"))
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        logger.warning("This is no worker's sign of life: %.200s", value)
    return said if right else None


TICK = "bothsides:beat:"
"""The beginning of the key that a beat writes each time that it has rung for the sweep; the key expires."""


def tick_seconds() -> float:
    """After how many seconds without a tick a beat is thought to be dead."""
    return 3 * settings.SWEEP_SECONDS + 30


def tick(host: str) -> None:
    """Say that the beat of a host lives. Best effort, as with the heartbeats of workers."""
    try:
        client().set(f"{TICK}{host}", "", px=round(tick_seconds() * 1000))
    except redis.RedisError as error:
        logger.warning("The beat could not show that it lives: %s", error)


def ticks(host: str) -> bool:
    """Whether the beat of a host lives. Raises redis.RedisError where Redis does not answer."""
    return bool(client().exists(f"{TICK}{host}"))


def beats() -> list[str]:
    """The hosts whose beat lives. Raises redis.RedisError where Redis does not answer."""
    return sorted(key.removeprefix(TICK) for key in client().scan_iter(match=f"{TICK}*", count=100))


BEST_FIRST = ("ready", "loading", "waiting", "asleep", "failed")
"""The states in which a worker can have a policy; of several workers the best one counts."""


def policy_state(policy_id: int) -> tuple[str, str]:
    """How replies of a policy stand at the best of its workers, and the reason where one is known.

    `ready`, `loading`, `waiting` (its model's turn comes), `asleep` (its model rests, and comes when it is asked),
    `failed` or `absent`.
    """
    try:
        said = [beat["policies"].get(str(policy_id)) for beat in heartbeats().values()]
    except redis.RedisError:
        return "absent", "The message broker does not answer."
    held = [state for state in said if state]
    for wanted in BEST_FIRST:
        for state in held:
            if state["state"] == wanted:
                return wanted, state.get("reason", "")
    return "absent", "No worker is running for this policy."
