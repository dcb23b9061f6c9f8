"""Streams and heartbeats in Redis: read from anywhere, lost without harm."""

import itertools
import json
import time

import pytest

from annotate import streams


def take(assignment_id, after="0", count=10):
    found = itertools.takewhile(lambda item: item is not None, streams.read(assignment_id, after, wait=0.02))
    return list(itertools.islice(found, count))


def test_what_is_published_is_read_in_order_from_anywhere():
    events = [{"kind": "text", "offset": number, "text": str(number)} for number in range(3)]
    streams.publish(5, events)
    found = take(5)
    assert [event for _, event in found] == events
    assert [event for _, event in take(5, after=found[0][0])] == events[1:]
    assert take(6) == []
    assert 0 < streams.client().ttl(streams.key_of(5)) <= 600


@pytest.fixture
def no_redis(settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    streams.client.cache_clear()
    yield
    streams.client.cache_clear()


def test_redis_away_is_no_error_and_takes_no_time(no_redis, caplog):
    begun = time.monotonic()
    streams.publish(5, [{"kind": "text"}])
    assert next(streams.read(5, wait=0.01)) is None
    assert streams.policy_state(1) == ("absent", "The message broker does not answer.")
    # By itself the library would try each of them again for seconds.
    assert time.monotonic() - begun < 5
    assert "took nothing" in caplog.text


def beat(name, policies):
    streams.client().set(streams.HEARTBEAT + name, json.dumps({"policies": policies, "at": 0}))


def test_the_state_of_a_policy_is_the_best_that_a_worker_reports():
    assert streams.policy_state(1)[0] == "absent"
    beat("one", {"1": {"state": "failed", "reason": "No such folder."}})
    assert streams.policy_state(1) == ("failed", "No such folder.")
    for better in ("asleep", "waiting"):
        beat("two", {"1": {"state": better}})
        assert streams.policy_state(1) == (better, "")
    beat("two", {"1": {"state": "loading"}})
    assert streams.policy_state(1) == ("loading", "")
    beat("three", {"1": {"state": "ready"}, "2": {"state": "loading"}})
    assert streams.policy_state(1) == ("ready", "")
    assert streams.policy_state(2) == ("loading", "")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{not json",
        "[]",
        "null",
        "{}",
        '{"policies": []}',
        '{"policies": {"1": {}}}',
        '{"policies": {"1": []}}',
        '{"policies": {"one": {"state": "ready"}}}',
        '{"policies": {"1": {"state": "ready", "counters": []}}}',
        '{"policies": {}, "since": null}',
        '{"policies": {}, "at": "noon"}',
    ],
)
def test_what_is_no_sign_of_life_is_left_out(value):
    beat("right", {"1": {"state": "ready"}})
    streams.client().set(f"{streams.HEARTBEAT}wrong", value)
    assert list(streams.heartbeats()) == ["right"]
    assert streams.policy_state(1) == ("ready", "")
