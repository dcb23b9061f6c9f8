"""Valkey is killed, and so is the server of a policy, while a real worker samples; two workers share one policy."""

import re
import signal
import time

import pytest
import redis

from annotate import conversations, embedded, streams
from annotate.models import GenerationRequest, Policy
from tests import factory
from tests.worker import ends, odd_servers
from tests.worker.watching import events, shown, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.timeout(600)]

State = GenerationRequest.State


@pytest.fixture
def broker(tmp_path, settings, monkeypatch):
    """Starts a Valkey of the test's own, each time at the same address; pages and workers use it."""
    started = []

    def start() -> embedded.Server:
        with monkeypatch.context() as same:
            if started:
                password, port = re.match(r"redis://:(.*)@127\.0\.0\.1:(\d+)/", started[0].url).groups()
                same.setattr(embedded, "_free_port", lambda: int(port))
                same.setattr(embedded.secrets, "token_urlsafe", lambda length: password)
            started.append(embedded.start_valkey(tmp_path / "broker"))
        return started[-1]

    first = start()
    client = redis.Redis.from_url(first.url, decode_responses=True, **settings.REDIS_OPTIONS)
    monkeypatch.setattr(streams, "client", lambda: client)
    yield first, start
    client.close()
    for server in started:
        server.stop()


def test_valkey_is_killed_while_a_reply_streams(launch, endless, broker):
    valkey, start_again = broker
    slot, comparison = ends.talked(endless, max_new_tokens=1200)
    launch(REDIS_URL=valkey.url)
    ends.wait_for(endless)
    request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    until(lambda: events(request), 60)
    valkey.process.kill()
    valkey.process.wait()

    assert ends.health() == (503, ["broker", "worker"])
    other = factory.held_chat(slot.project, factory.trainer(slot.project))
    assert "Replies are not available now" in ends.page(other.trainer, "work", other.pk)
    assert "The message broker does not answer" in ends.policy_page(endless)
    begun = time.monotonic()
    asked = conversations.say(assignment=other, user=other.trainer, text="the word")
    assert time.monotonic() - begun < 10
    ends.swept_until_over()
    ends.check_comparison(comparison)
    # What was written meanwhile is on the pages, though no stream told of it.
    assert 'class="turn assistant"' in ends.page(other.trainer, "work", other.pk)

    start_again()
    until(lambda: ends.health() == (200, []))
    ends.check_reply(slot, request, told_its_end=False)
    ends.check_reply(other, asked, told_its_end=False)
    later = conversations.say(assignment=other, user=other.trainer, text="the word")
    ends.swept_until_over()
    until(lambda: events(later)[-1:] and events(later)[-1]["kind"] == "done")
    ends.check_reply(other, later)
    assert {one.attempt for one in (request, asked, later)} == {1}


@pytest.fixture
def server_process():
    """Starts the server of a policy in a process of its own."""
    started = []

    def start(port=0):
        started.append(odd_servers.process(port))
        return started[-1]

    yield start
    for child, _ in started:
        child.kill()
        child.wait()


def test_the_server_of_a_policy_is_killed_while_replies_stream(launch, tiny_models, server_process):
    child, port = server_process()
    policy = factory.policy(
        engine=Policy.Engine.OPENAI_COMPATIBLE,
        location=f"http://127.0.0.1:{port}/v1",
        served_as=odd_servers.MODEL,
        concurrency=8,
    )
    project = factory.project(served_by=policy)
    slots = [factory.held_chat(project, factory.trainer(project)) for _ in range(3)]
    quick = {"SERVER_CONNECT_SECONDS": "1", "SERVER_PAUSE_SECONDS": "0.2", "SAMPLING_LEASE_SECONDS": "5"}
    launch(**quick)
    ends.wait_for(policy)
    requests = [conversations.say(assignment=slot, user=slot.trainer, text="the word") for slot in slots]
    until(lambda: all(len(events(request)) > 2 for request in requests), 60)
    child.send_signal(signal.SIGKILL)
    child.wait()

    until(lambda: "failed" in ends.policy_page(policy))
    until(lambda: not GenerationRequest.objects.exclude(state=State.WAITING).exists())
    for slot in slots:
        seen = ends.page(slot.trainer, "work", slot.pk)
        assert "Replies are not available now: the model could not be loaded, or its server does not answer." in seen
        assert "the reply comes as soon as the model is there" in seen
    # The worker is there; only its server is not.
    assert ends.health() == (200, [])

    server_process(port)
    ends.swept_until_over()
    for slot, request in zip(slots, requests, strict=True):
        until(lambda request=request: events(request)[-1]["kind"] == "done")
        assert ends.check_reply(slot, request) == "".join(f"w{number} " for number in range(100))
    ends.wait_for(policy)


def test_two_workers_share_the_requests_of_one_policy(launch, endless):
    project = factory.project(served_by=endless, max_new_tokens=150)
    for _ in range(10):
        factory.finished_chat(project)
    slots = [factory.held_chat(project, factory.trainer(project)) for _ in range(6)]
    # So small that neither can take all that waits.
    workers = [launch(WORKER_CAPACITY="4", SAMPLING_LEASE_SECONDS="20") for _ in range(2)]
    until(lambda: len(streams.heartbeats()) == 2, 60)
    requests = [conversations.say(assignment=slot, user=slot.trainer, text="the word") for slot in slots]
    ends.swept_until_over(120)
    assert all(worker.poll() is None for worker in workers)
    # Not what the factory made up.
    done = GenerationRequest.objects.exclude(claimed_by="test")
    assert set(done.values_list("attempt", flat=True)) == {1}
    assert len(set(done.values_list("claimed_by", flat=True))) == 2
    for slot, request in zip(slots, requests, strict=True):
        until(lambda request=request: events(request)[-1]["kind"] == "done")
        ends.check_reply(slot, request)
        assert shown(events(request))
    for request in done.filter(purpose="alternatives"):
        ends.check_comparison(request.comparison)
