"""A real Celery worker: killed, flushed, ended, woken."""

import signal
import time

import pytest
import redis
from django.conf import settings
from django.db.models import Count

from annotate import bell, conversations, embedded, streams, sweep
from annotate.models import Comparison, Completion, GenerationRequest
from tests import factory
from tests.worker.watching import OVER, events, over, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

State = GenerationRequest.State


def bulk(policy, count, **fields):
    """Requests for three alternatives each."""
    project = factory.project(served_by=policy, **fields)
    for _ in range(count):
        factory.finished_chat(project)
    return GenerationRequest.objects.filter(purpose="alternatives")


def swept_until_over(seconds=120):
    """Sweeps, as beat would, until no request is waited for."""

    def ended():
        sweep.run()
        return not GenerationRequest.objects.exclude(state__in=OVER).exists()

    until(ended, seconds)


def assert_everything_ended_once():
    alternatives = GenerationRequest.objects.filter(purpose="alternatives")
    assert set(alternatives.values_list("state", flat=True)) == {State.DONE}
    stored = dict(alternatives.annotate(stored=Count("completions")).values_list("pk", "stored"))
    assert stored == dict(alternatives.values_list("pk", "n"))
    assert set(Comparison.objects.values_list("state", flat=True)) == {Comparison.State.OPEN}


def test_a_worker_that_is_killed_loses_nothing_and_stores_nothing_twice(launch, endless):
    requests = bulk(endless, 8, max_new_tokens=250)
    # One that is done early, so that there is time in which others are in the middle and some wait.
    early = requests.earliest("pk")
    early.sampling = {**early.sampling, "max_new_tokens": 20}
    early.save(update_fields=["sampling"])
    first = launch(WORKER_CAPACITY="9")

    def amid_its_work():
        """Looks while it is frozen, so that it is killed as it was seen."""
        first.send_signal(signal.SIGSTOP)
        if requests.filter(state=State.DONE).exists() and requests.filter(state=State.CLAIMED).exists():
            return True
        first.send_signal(signal.SIGCONT)
        return False

    until(lambda: requests.filter(state=State.DONE).exists(), 60)
    until(amid_its_work, 60)
    first.kill()
    first.wait()
    assert requests.filter(state=State.CLAIMED).exists()
    before = set(Completion.objects.values_list("pk", flat=True))
    launch()
    swept_until_over()
    assert_everything_ended_once()
    assert requests.filter(attempt=2).exists()
    assert before <= set(Completion.objects.values_list("pk", flat=True))


def test_a_worker_that_lost_its_device_ends_with_a_failure_and_the_next_one_goes_on(launch, endless):
    project = factory.project(served_by=endless, max_new_tokens=20)

    def ask(text):
        slot = factory.held_chat(project, factory.trainer(project))
        return conversations.say(assignment=slot, user=slot.trainer, text=text)

    requests = [ask(text) for text in ("the", "poison", "of")]
    for attempt in (1, 2):
        process = launch(app="tests.worker.lost_device", GENERATION_ATTEMPTS="2")
        assert process.wait(100) == 1
        requests[1].refresh_from_db()
        assert requests[1].attempt == attempt
    launch(GENERATION_ATTEMPTS="2")
    ended = [over(request, 60) for request in requests]
    assert [request.state for request in ended] == [State.DONE, State.FAILED, State.DONE]
    assert ended[1].reason == "The engine broke."


def test_a_flushed_broker_loses_nothing(launch, endless, tmp_path):
    valkey = embedded.start_valkey(tmp_path / "broker")
    try:
        requests = bulk(endless, 8, max_new_tokens=250)
        launch(WORKER_CAPACITY="9", REDIS_URL=valkey.url)
        until(lambda: requests.filter(state=State.DONE).exists(), 60)
        broker = redis.Redis.from_url(valkey.url)
        broker.flushall()
        assert requests.exclude(state=State.DONE).exists()
        swept_until_over()
        assert_everything_ended_once()
        # The sign of life is back too.
        until(lambda: list(broker.scan_iter("bothsides:worker:*")))
        broker.close()
    finally:
        valkey.stop()


def test_a_worker_that_is_to_end_gives_back_what_it_holds(launch, endless):
    project = factory.project(served_by=endless, max_new_tokens=1900)
    slot = factory.held_chat(project, factory.trainer(project))
    process = launch(WORKER_DRAIN_SECONDS="0.2")
    request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    until(lambda: events(request), 60)
    process.terminate()
    assert process.wait(20) == 0
    request.refresh_from_db()
    assert (request.state, request.attempt) == (State.WAITING, 0)


def test_a_worker_that_is_to_end_finishes_what_is_short(launch, endless):
    project = factory.project(served_by=endless, max_new_tokens=400)
    slot = factory.held_chat(project, factory.trainer(project))
    process = launch(WORKER_DRAIN_SECONDS="20")
    request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    until(lambda: events(request), 60)
    process.terminate()
    assert process.wait(30) == 0
    request.refresh_from_db()
    assert request.state == State.DONE


def test_a_bell_wakes_it_at_once(launch, endless):
    # Without a bell it would look once a minute.
    launch(WORKER_POLL_SECONDS="60", SAMPLING_LEASE_SECONDS="600")
    project = factory.project(served_by=endless, max_new_tokens=5)
    slot = factory.held_chat(project, factory.trainer(project))
    warm = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    over(warm, 60)
    for number in range(3):
        if number == 1:
            # The bell rings also after the broker forgot who listens.
            streams.client().flushdb()
        asked = time.monotonic()
        request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
        assert over(request).state == State.DONE
        assert time.monotonic() - asked < 5


def test_bells_that_nobody_hears_do_not_pile_up_and_one_that_comes_takes_them(launch, endless):
    broker = redis.Redis.from_url(settings.REDIS_URL)
    queue = f"bothsides:celery:{bell.queue_of(endless.pk)}"
    for _ in range(30):
        bell.ring_now(endless.pk)
    assert broker.llen(queue) == bell.BELLS_AT_MOST
    launch()
    until(lambda: not broker.llen(queue), 60)
    broker.close()
