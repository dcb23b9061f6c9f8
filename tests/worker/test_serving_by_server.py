"""The serving loop with the engine for servers, against the real queue; servers that are killed in the middle."""

import json
import os
import signal
import threading
import time

import pytest
from django.core import serializers
from django.urls import reverse

from annotate import conversations, generation
from annotate.models import Comparison, GenerationRequest, Policy
from tests import factory
from tests.worker import odd_servers
from tests.worker.odd_servers import CONTEXT_TOKENS, KEY, MODEL, slowly
from tests.worker.watching import events, over, shown, until
from worker import process as processes
from worker import serving
from worker.engines import openai_compatible

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

State = GenerationRequest.State


@pytest.fixture(autouse=True)
def _quick(settings, monkeypatch):
    settings.WORKER_POLL_SECONDS = 0.1
    settings.SERVER_CONNECT_SECONDS = 1
    settings.SERVER_FIRST_TOKEN_SECONDS = 5
    settings.SERVER_NEXT_TOKEN_SECONDS = 5
    settings.SERVER_PAUSE_SECONDS = 0.2
    monkeypatch.setattr(serving, "LOAD_AGAIN_AT_BELL_SECONDS", 0)
    monkeypatch.setattr(openai_compatible, "FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def server():
    with odd_servers.running() as started:
        yield started


def served_by(url, **fields):
    server = {"engine": Policy.Engine.OPENAI_COMPATIBLE, "location": url, "served_as": MODEL, "concurrency": 8}
    return factory.policy(**server | fields)


def chat(policy, **fields):
    project = factory.project(served_by=policy, **fields)
    return factory.held_chat(project, factory.trainer(project))


def say(slot, text="Hi."):
    return conversations.say(assignment=slot, user=slot.trainer, text=text)


def test_a_reply_is_streamed_stored_and_placed(serve, server):
    policy = served_by(server.url)
    slot = chat(policy, max_new_tokens=40)
    serve(policy)
    request = over(say(slot))
    assert (request.state, request.attempt, request.template_hash) == (State.DONE, 1, "")
    completion = request.completions.get()
    assert slot.conversation.messages.last().text == completion.text == "Hello there."
    assert (completion.finish_reason, completion.prompt_tokens, completion.completion_tokens) == ("stop", 12, 34)
    assert completion.seed is None
    assert 0 < completion.first_token_ms <= completion.total_ms
    told = until(lambda: (found := events(request)) and found[-1]["kind"] == "done" and found)
    assert shown(told) == completion.text
    assert server.asked[0]["messages"] == request.messages


def test_each_alternative_is_a_question_of_its_own_with_its_seed(serve, server):
    policy = served_by(server.url, honours_seed=True)
    conversation = factory.finished_chat(factory.project(served_by=policy))
    request = Comparison.objects.get(message__conversation=conversation).requests.get()
    serve(policy)
    assert over(request).state == State.DONE
    seeds = [one.seed for one in request.completions.all()]
    assert len(set(seeds)) == request.n == 3
    assert sorted(asked["seed"] for asked in server.asked[:3]) == sorted(seeds)
    assert all("n" not in asked for asked in server.asked)


def test_what_is_too_long_is_refused_and_goes_back_to_the_box(serve, server):
    message = f"This model's maximum context length is {CONTEXT_TOKENS} tokens."
    server.always = lambda answer: answer.refuse(400, {"error": {"message": message}})
    policy = served_by(server.url)
    slot = chat(policy)
    serve(policy)
    request = over(say(slot, "Far too long"))
    assert (request.state, request.attempt) == (State.REFUSED, 1)
    assert message in request.reason
    slot.refresh_from_db()
    assert slot.draft == {"text": "Far too long"}


def test_a_question_that_the_server_refuses_fails_at_once(serve, server):
    server.always = lambda answer: answer.refuse(400, {"error": {"message": "roles must alternate"}})
    policy = served_by(server.url)
    slot = chat(policy)
    serve(policy)
    request = over(say(slot))
    assert (request.state, request.attempt) == (State.FAILED, 1)
    assert "roles must alternate" in request.reason


def test_a_stopped_reply_keeps_what_was_written_and_hangs_up(serve, server):
    server.always = slowly()
    policy = served_by(server.url)
    slot = chat(policy)
    serve(policy)
    request = say(slot)
    until(lambda: len(events(request)) > 2)
    conversations.stop(assignment=slot, user=slot.trainer)
    assert over(request).state == State.CANCELLED
    completion = request.completions.get()
    assert completion.finish_reason == "stopped"
    assert completion.text.startswith("w0 w1")
    assert completion.completion_tokens > 1
    assert server.gone.wait(5)


def test_a_stream_that_broke_is_begun_anew(serve, server):
    def breaks(answer):
        answer.begin()
        answer.delta(content="Half a ")
        time.sleep(0.2)
        answer.break_off()

    server.scripts = [breaks]
    policy = served_by(server.url)
    slot = chat(policy)
    serve(policy)
    request = over(say(slot))
    assert (request.state, request.attempt) == (State.DONE, 2)
    assert request.completions.get().text == "Hello there."
    told = until(lambda: (found := events(request)) and found[-1]["kind"] == "done" and found)
    assert shown(told) == "Hello there."


def test_nothing_is_claimed_while_the_server_is_away(serve, server):
    policy = served_by(server.url)
    slots = [chat(policy) for _ in range(3)]
    loop = serve(policy)
    until(lambda: loop.state == "ready")
    bad = lambda answer: answer.refuse(500, {"error": {"message": "out of order"}})  # noqa: E731
    server.always = server.greeting = bad
    first = say(slots[0])
    until(lambda: loop.state == "failed")
    assert "out of order" in loop.reason
    later = [say(slot) for slot in slots[1:]]
    asked = len(server.asked)
    greeted = server.greeted
    loop.ring()
    until(lambda: server.greeted >= greeted + 2)
    assert len(server.asked) == asked
    for request in [first, *later]:
        request.refresh_from_db()
    assert [one.state for one in [first, *later]] == [State.WAITING] * 3
    assert [one.attempt for one in [first, *later]] == [1, 0, 0]
    server.always = server.greeting = odd_servers.well
    assert [over(one).state for one in [first, *later]] == [State.DONE] * 3
    assert (loop.state, loop.reason) == ("ready", "")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"location": "http://127.0.0.1:9/v1"}, "does not answer"),
        ({"key_variable": "NO_SUCH_API_KEY"}, "set NO_SUCH_API_KEY"),
        ({"location": "http://"}, "missing"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_on_the_page(serve, server, client, settings, fields, told):
    policy = served_by(
        **{"url": server.url} | ({"url": fields.pop("location")} if "location" in fields else {}), **fields
    )
    slot = chat(policy)
    worker = processes.WorkerProcess()
    settings.WORKER_HEARTBEAT_SECONDS = 0.1
    worker.start()
    try:
        request = say(slot)
        loop = until(lambda: worker._loops.get(policy.pk))
        until(lambda: loop.state == "failed")
        assert told in loop.reason
        client.force_login(slot.trainer, backend="sesame.backends.ModelBackend")
        page = client.get(reverse("work", args=[slot.pk])).content.decode()
        assert "Replies are not available now" in page
        assert client.get("/healthz").status_code == 200
        request.refresh_from_db()
        assert (request.state, request.attempt) == (State.WAITING, 0)
    finally:
        worker.drain(0)
        worker.join(20)


def test_a_server_that_is_killed_in_the_middle_leaves_every_request_one_end(serve, settings):
    child, port = odd_servers.process()
    try:
        policy = served_by(f"http://127.0.0.1:{port}/v1")
        slots = [chat(policy) for _ in range(4)]
        loop = serve(policy)
        requests = [say(slot) for slot in slots]
        until(lambda: all(len(events(request)) > 2 for request in requests))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        until(lambda: loop.state == "failed")
        assert "does not answer" in loop.reason or "broke" in loop.reason
        until(lambda: not loop._jobs)
        late = say(chat(policy))
        time.sleep(0.5)
        for request in [*requests, late]:
            request.refresh_from_db()
        assert [one.state for one in requests] == [State.WAITING] * 4
        # One that was claimed again before the last of the four had broken off was tried twice.
        assert {one.attempt for one in requests} <= {1, 2}
        assert (late.state, late.attempt) == (State.WAITING, 0)
        child, _ = odd_servers.process(port)
        assert [over(request).state for request in [*requests, late]] == [State.DONE] * 5
        for request in requests:
            text = request.completions.get().text
            assert text == "".join(f"w{number} " for number in range(100))
            told = until(lambda request=request: (found := events(request)) and found[-1]["kind"] == "done" and found)
            assert shown(told) == text
            assert [event["kind"] for event in told].count("done") == 1
        assert (loop.state, loop.reason) == ("ready", "")
    finally:
        child.kill()
        child.wait()


def test_the_key_is_in_no_row_event_or_log(serve, server, monkeypatch, caplog, settings):
    settings.GENERATION_ATTEMPTS = 2
    caplog.set_level("DEBUG")
    monkeypatch.setenv("ODD_API_KEY", KEY)
    policy = served_by(server.url, key_variable="ODD_API_KEY")
    loop = serve(policy)
    until(lambda: loop.state == "ready")
    answers = [
        lambda answer: answer.refuse(400, {"error": {"message": f"bad question, {KEY}"}}),
        lambda answer: answer.refuse(401, {"error": {"message": f"bad key {KEY}"}}),
        lambda answer: answer.refuse(500, f"trouble with {KEY}"),
    ]
    requests, told = [], []
    for script in answers:
        server.always = script
        request = say(chat(policy))
        requests.append(request)
        until(lambda request=request: request.refresh_from_db() or request.reason)
        told.append(loop.reason + request.reason)
        over(request)
        until(lambda: loop.state == "ready")
    assert set(server.keys) == {f"Bearer {KEY}"}
    rows = serializers.serialize("json", [*Policy.objects.all(), *GenerationRequest.objects.all()])
    assert KEY not in rows + "".join(told) + caplog.text + json.dumps([events(one) for one in requests])
    assert "[the key]" in rows
    assert KEY not in "".join(thread.name for thread in threading.enumerate())
    assert generation.State.FAILED in {request.state for request in requests}
