"""What a worker counts, and tells in its sign of life."""

import json
import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import conversations, streams
from annotate.models import GenerationRequest
from tests import factory, tiny
from tests.worker.watching import over, until
from worker import counters as counters_of
from worker.counters import Counters
from worker.jobs import Job
from worker.process import WorkerProcess

pytestmark = pytest.mark.slow

NOTHING = {
    "tokens_a_second": 0.0,
    "tokens": 0,
    "prompt_tokens": 0,
    "loads": 0,
    "swaps": 0,
    "texts": {},
    "failures": {},
    "first_tokens": {},
}


def job(purpose: str, *, waited: float, first_token_ms: int) -> Job:
    now = timezone.now()
    request = GenerationRequest(purpose=purpose, created_at=now - timedelta(seconds=waited), claimed_at=now, n=2)
    made = Job(request, None)
    made.texts[1].first_token_ms = first_token_ms
    return made


def test_a_new_one_has_counted_nothing():
    assert Counters().read() == NOTHING


def test_times_fall_into_buckets_by_purpose_from_the_claim_and_from_the_asking():
    counters = Counters()
    counters.began(job("reply", waited=0.9, first_token_ms=100))
    counters.began(job("reply", waited=0, first_token_ms=101))
    counters.began(job("alternatives", waited=100, first_token_ms=70_000))
    found = counters.read()["first_tokens"]
    # Up to 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60 and above: a bound belongs to its bucket.
    assert found["reply"]["claim"] == {"buckets": [0, 1, 1] + [0] * 9, "seconds": 0.201}
    assert found["reply"]["asking"] == {"buckets": [0, 0, 1, 0, 0, 1] + [0] * 6, "seconds": 1.101}
    assert found["alternatives"]["claim"] == {"buckets": [0] * 11 + [1], "seconds": 70}
    assert found["alternatives"]["asking"] == {"buckets": [0] * 11 + [1], "seconds": 170}


def test_tokens_a_second_are_those_of_the_last_moments(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(counters_of.time, "monotonic", lambda: now)
    counters = Counters()
    told = []
    # Read every five seconds, as the heartbeat does: 300 tokens in the first five, none afterwards.
    for written in (300, 0, 0, 0, 0):
        counters.wrote(prompt_tokens=9, tokens=written)
        now += 5
        told.append(counters.read()["tokens_a_second"])
    assert told == [60, 30, 20, 0, 0]


def test_what_was_read_does_not_change_afterwards():
    counters = Counters()
    counters.began(job("reply", waited=0, first_token_ms=10))
    before = counters.read()
    kept = json.loads(json.dumps(before))
    counters.began(job("reply", waited=0, first_token_ms=10))
    counters.ended("stop")
    assert before == kept


def test_nothing_is_lost_between_threads():
    counters = Counters()

    def count():
        for _ in range(2000):
            counters.wrote(prompt_tokens=2, tokens=1)
            counters.ended("stop")
            counters.read()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = counters.read()
    assert (found["tokens"], found["prompt_tokens"], found["texts"]) == (8000, 16_000, {"stop": 8000})


def told_of(policy) -> dict:
    """What the one worker says of a policy."""
    beats = list(streams.heartbeats().values())
    return beats[0]["policies"].get(str(policy.pk), {}) if beats else {}


@pytest.mark.django_db(transaction=True)
def test_a_worker_tells_what_it_did(settings, tiny_models, endless):
    settings.WORKER_HEARTBEAT_SECONDS, settings.WORKER_POLL_SECONDS = 0.1, 0.1
    settings.WORKER_DEVICE = "cpu"
    project = factory.project(served_by=endless, max_new_tokens=40)
    slot = factory.held_chat(project, factory.trainer(project))
    process = WorkerProcess()
    process.start()
    try:
        until(lambda: told_of(endless).get("state") == "ready")
        assert told_of(endless)["capacity"] == settings.WORKER_CAPACITY
        done = over(conversations.say(assignment=slot, user=slot.trainer, text="the word"))
        text = done.completions.get()
        until(lambda: told_of(endless)["counters"]["texts"] == {"length": 1})
        counted = told_of(endless)["counters"]
        assert (counted["tokens"], counted["prompt_tokens"]) == (40, text.prompt_tokens)
        assert (counted["loads"], counted["failures"]) == (1, {})
        assert {start: sum(one["buckets"]) for start, one in counted["first_tokens"]["reply"].items()} == {
            "claim": 1,
            "asking": 1,
        }
        assert counted["first_tokens"]["reply"]["claim"]["seconds"] == text.first_token_ms / 1000

        other = factory.held_chat(project, factory.trainer(project))
        over(conversations.say(assignment=other, user=other.trainer, text="x" * tiny.CONTEXT_TOKENS))
        until(lambda: told_of(endless)["counters"]["texts"] == {"length": 1, "refused": 1})
        beat = next(iter(streams.heartbeats().values()))
        assert beat["jobs"] == 0
        assert 0 <= beat["at"] - beat["since"] < 60

        # A loop that is begun again counts on.
        endless.active = False
        endless.save()
        until(lambda: not told_of(endless))
        endless.active = True
        endless.save()
        until(lambda: told_of(endless).get("state") == "ready")
        again = told_of(endless)["counters"]
        assert (again["tokens"], again["loads"]) == (40, 2)
    finally:
        process.drain(0)
        process.join(20)


@pytest.mark.django_db(transaction=True)
def test_a_model_that_cannot_be_loaded_is_counted(serve):
    loop = serve(factory.policy(location="/nowhere"))
    until(lambda: loop.state == "failed")
    assert loop.told()["counters"] == NOTHING | {"failures": {"load": 1}}
    assert loop.told()["capacity"] == 0


@pytest.mark.django_db(transaction=True)
def test_a_model_that_makes_room_for_another_is_counted(settings, policy):
    settings.WORKER_HEARTBEAT_SECONDS, settings.WORKER_POLL_SECONDS = 0.1, 0.1
    settings.WORKER_DEVICE = "cpu"
    settings.WORKER_MEMORY_GIGABYTES = 1e-6
    other = factory.policy(location="tiny")
    process = WorkerProcess()
    process.start()
    try:
        for one in (policy, other):
            project = factory.project(served_by=one, max_new_tokens=5)
            slot = factory.held_chat(project, factory.trainer(project))
            over(conversations.say(assignment=slot, user=slot.trainer, text="the word"))
        until(lambda: told_of(policy)["counters"]["swaps"] >= 1)
        # Each was brought in as often as it was put down, but for the one that is there now.
        there = [told_of(one)["counters"]["loads"] - told_of(one)["counters"]["swaps"] for one in (policy, other)]
        assert there == [0, 1]
    finally:
        process.drain(0)
        process.join(20)


@pytest.mark.django_db(transaction=True)
def test_what_is_stopped_and_what_fails_is_counted(settings, serve, endless, monkeypatch):
    settings.WORKER_POLL_SECONDS, settings.WORKER_DEVICE, settings.GENERATION_ATTEMPTS = 0.1, "cpu", 1
    project = factory.project(served_by=endless, max_new_tokens=1500)
    slot, other = (factory.held_chat(project, factory.trainer(project)) for _ in range(2))
    loop = serve(endless)
    request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    until(lambda: loop.told()["counters"]["tokens"] > 2)
    assert loop.told()["in_flight"] == 1
    conversations.stop(assignment=slot, user=slot.trainer)
    assert over(request).state == "cancelled"
    assert loop.told()["counters"]["texts"] == {"stopped": 1}
    until(lambda: loop.told()["in_flight"] == 0)

    monkeypatch.setattr("worker.engines.transformers.pick", lambda logits, samplings: 1 / 0)
    assert over(conversations.say(assignment=other, user=other.trainer, text="the word")).state == "failed"
    until(lambda: loop.told()["counters"]["failures"].get("request") == 1)


@pytest.mark.django_db(transaction=True)
def test_a_reply_without_a_word_is_counted_among_what_failed(settings, serve, endless, monkeypatch):
    settings.WORKER_POLL_SECONDS, settings.WORKER_DEVICE, settings.GENERATION_ATTEMPTS = 0.1, "cpu", 2
    project = factory.project(served_by=endless, max_new_tokens=3)
    slot = factory.held_chat(project, factory.trainer(project))
    monkeypatch.setattr("worker.jobs.Job.sampled", lambda job: factory.sampled(" "))
    loop = serve(endless)
    assert over(conversations.say(assignment=slot, user=slot.trainer, text="the word")).state == "failed"
    until(lambda: loop.told()["counters"]["failures"] == {"request": 2})
