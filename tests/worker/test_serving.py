"""The serving loop, on the tiny model, against the real queue."""

import threading
import time
from datetime import timedelta

import pytest
import redis
import torch
from django.db import connection, transaction
from django.utils import timezone

from annotate import conversations, generation, streams
from annotate.models import Comparison, Completion, GenerationRequest
from tests import factory, tiny
from tests.worker.watching import events, over, shown, until
from worker import serving
from worker.engines.transformers import TransformersEngine
from worker.serving import Serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

State = GenerationRequest.State


@pytest.fixture(autouse=True)
def _quick(settings, monkeypatch):
    settings.WORKER_POLL_SECONDS = 0.1
    settings.WORKER_DEVICE = "cpu"
    monkeypatch.setattr(serving, "LOAD_AGAIN_AT_BELL_SECONDS", 0)
    monkeypatch.setattr(serving, "BACK_OFF_SECONDS", (0.1,))


def chat(policy, **fields):
    project = factory.project(served_by=policy, **fields)
    return factory.held_chat(project, factory.trainer(project))


def say(slot, text="the word"):
    return conversations.say(assignment=slot, user=slot.trainer, text=text)


def finished(policy, **fields):
    """A request for the three alternatives of a finished chat."""
    conversation = factory.finished_chat(factory.project(served_by=policy, **fields))
    return Comparison.objects.get(message__conversation=conversation).requests.get()


def test_a_reply_is_streamed_stored_and_placed(serve, endless):
    slot = chat(endless, max_new_tokens=40)
    serve(endless)
    request = over(say(slot))
    assert (request.state, request.attempt) == (State.DONE, 1)
    completion = request.completions.get()
    message = slot.conversation.messages.last()
    assert (message.text, message.source) == (completion.text, "reply")
    assert (completion.finish_reason, completion.completion_tokens) == ("length", 40)
    assert completion.prompt_tokens > 10
    assert 0 < completion.first_token_ms <= completion.total_ms
    assert completion.seed is None
    told = until(lambda: (found := events(request)) and found[-1]["kind"] == "done" and found)
    assert shown(told) == completion.text
    assert [event["kind"] for event in told] == ["text"] * (len(told) - 2) + ["finished", "done"]
    assert len(told) > 3


def test_alternatives_are_stored_together_and_open_their_comparison(serve, policy):
    request = finished(policy, max_new_tokens=20)
    serve(policy)
    assert over(request).state == State.DONE
    assert [one.index for one in request.completions.all()] == [0, 1, 2]
    request.comparison.refresh_from_db()
    assert request.comparison.state in (Comparison.State.OPEN, Comparison.State.SAMPLING)


def test_what_is_too_long_is_refused_by_how_much(serve, policy):
    slot = chat(policy, max_new_tokens=100)
    serve(policy)
    request = over(say(slot, "x" * tiny.CONTEXT_TOKENS))
    assert request.state == State.REFUSED
    prompt = tiny.CONTEXT_TOKENS - 32 + int(request.reason.split()[2])
    assert f"{prompt} and at least 32 of a reply, where {tiny.CONTEXT_TOKENS} fit" in request.reason
    assert until(lambda: events(request))[-1] == {
        "kind": "refused",
        "request": request.pk,
        "attempt": 1,
        "reason": request.reason,
    }


@pytest.mark.parametrize(("asked", "room", "written"), [(5000, 40, 40), (5000, 32, 32), (8, 8, 8), (8, 20, 8)])
def test_a_reply_is_as_long_as_the_context_leaves_room_for(serve, endless, asked, room, written):
    slot = chat(endless, max_new_tokens=asked)
    loop = serve(endless)
    until(lambda: loop.state == "ready")
    request = over(say(slot, words_that_leave(loop, slot, room)))
    completion = request.completions.get()
    assert (completion.finish_reason, completion.completion_tokens) == ("length", written)
    assert completion.prompt_tokens == tiny.CONTEXT_TOKENS - room
    assert request.sampling["max_new_tokens"] == asked


@pytest.mark.parametrize(("asked", "room"), [(5000, 31), (8, 7)])
def test_no_reply_is_cut_to_next_to_nothing(serve, endless, asked, room):
    slot = chat(endless, max_new_tokens=asked)
    loop = serve(endless)
    until(lambda: loop.state == "ready")
    request = over(say(slot, words_that_leave(loop, slot, room)))
    assert request.state == State.REFUSED
    assert request.reason.startswith("This is 1 tokens too long")


def words_that_leave(loop, slot, room):
    """A first message after which so many tokens of the context are left."""
    before = [{"role": one.role, "content": one.text} for one in slot.conversation.messages.all()]

    def length(letters):
        return len(loop._engine.render([*before, {"role": "user", "content": "?" * letters}]).token_ids)

    return "?" * (1 + tiny.CONTEXT_TOKENS - room - length(1))


def test_a_stopped_reply_keeps_what_was_written(serve, endless):
    slot = chat(endless, max_new_tokens=1500)
    serve(endless)
    request = say(slot)
    until(lambda: len(events(request)) > 3)
    asked = time.monotonic()
    conversations.stop(assignment=slot, user=slot.trainer)
    assert over(request).state == State.CANCELLED
    assert time.monotonic() - asked < 2
    completion = request.completions.get()
    assert (completion.finish_reason, bool(completion.text)) == ("stopped", True)
    assert completion.completion_tokens < 1500
    assert slot.conversation.messages.last().text == completion.text
    told = until(lambda: (found := events(request)) and found[-1]["kind"] == "stopped" and found)
    assert shown(told) == completion.text


def test_a_job_that_was_lost_is_thrown_away(serve, endless):
    slot = chat(endless, max_new_tokens=1500)
    loop = serve(endless)
    request = say(slot)
    until(lambda: len(events(request)) > 1)
    other = "00000000-0000-4000-8000-000000000000"
    GenerationRequest.objects.filter(pk=request.pk).update(claim_token=other, claimed_by="another")
    until(lambda: not loop._jobs)
    request.refresh_from_db()
    assert (request.state, request.claimed_by) == (State.CLAIMED, "another")
    assert not Completion.objects.exists()


def test_a_late_twin_is_discarded(serve, endless, monkeypatch):
    slot = chat(endless, max_new_tokens=30)
    # Its look at the lease comes too late, as when a process was frozen.
    monkeypatch.setattr(Serving, "_renew", lambda self: None)
    complete, late = generation.complete, threading.Event()

    def after_another(**result):
        GenerationRequest.objects.filter(pk=result["request_id"]).update(
            claim_token="00000000-0000-4000-8000-000000000000", claimed_by="another"
        )
        stored = complete(**result)
        late.set()
        return stored

    monkeypatch.setattr(generation, "complete", after_another)
    serve(endless)
    request = say(slot)
    assert late.wait(20)
    request.refresh_from_db()
    assert (request.state, request.claimed_by) == (State.CLAIMED, "another")
    assert not Completion.objects.exists()
    assert "done" not in {event["kind"] for event in events(request)}


def test_another_attempt_resets_the_page(serve, endless):
    slot = chat(endless, max_new_tokens=800)
    serve(endless)
    request = say(slot)
    until(lambda: len(events(request)) > 1)
    # In one transaction, or the loop would renew it between the two.
    with transaction.atomic():
        GenerationRequest.objects.filter(pk=request.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        generation.expire_leases()
    assert (over(request).state, request.attempt) == (State.DONE, 2)
    told = until(lambda: (found := events(request)) and found[-1]["kind"] == "done" and found)
    resets = [event for event in told if event["kind"] == "reset"]
    assert [(event["attempt"], event["index"]) for event in resets] == [(2, 0)]
    assert shown(told) == request.completions.get().text


def test_an_engine_that_broke_is_made_anew(serve, endless):
    slot = chat(endless, max_new_tokens=60)
    loop = serve(endless)
    until(lambda: loop.state == "ready")
    broken = loop._engine

    def explode(texts, logits):
        raise RuntimeError("out of order")

    broken._write = explode
    request = over(say(slot))
    assert (request.state, request.attempt) == (State.DONE, 2)
    assert loop.state == "ready"
    assert loop._engine is not broken


def test_a_request_fails_when_its_attempts_are_used_up(serve, endless, settings, monkeypatch):
    settings.GENERATION_ATTEMPTS = 2
    monkeypatch.setattr("worker.engines.transformers.TransformersEngine._write", lambda self, texts, tokens: 1 / 0)
    slot = chat(endless)
    serve(endless)
    request = over(say(slot))
    assert (request.state, request.attempt, request.reason) == (State.FAILED, 2, "The engine broke.")
    assert until(lambda: [event for event in events(request) if event["kind"] == "failed"])[0]["reason"]


def test_what_was_in_flight_when_an_engine_broke_is_tried_again_by_itself(serve, endless, monkeypatch):
    write = TransformersEngine._write
    together = []

    def breaks_at_poison(self, texts, tokens):
        if len(self._seats.texts()) not in together[-1:]:
            together.append(len(self._seats.texts()))
        if any("poison" in self._tokenizer.decode(text.ids[: text.prompt_tokens]) for text in texts):
            raise RuntimeError("out of order")
        write(self, texts, tokens)

    monkeypatch.setattr(TransformersEngine, "_write", breaks_at_poison)
    asked = ["the", "of", "poison", "and"]
    requests = [say(chat(endless, max_new_tokens=60), text) for text in asked]
    serve(endless)
    ended = [over(request, 60) for request in requests]
    assert [request.state for request in ended] == [State.DONE, State.DONE, State.FAILED, State.DONE]
    # Only the first time were others in the engine with it.
    assert [request.attempt for request in ended] == [2, 2, 3, 2]
    assert set(together[together.index(4) + 1 :]) == {1}
    # Afterwards many are sampled at once again.
    together.clear()
    fine = [say(chat(endless, max_new_tokens=60), text) for text in ("the", "of", "and")]
    assert [over(request).state for request in fine] == [State.DONE] * 3
    assert max(together) > 1


def test_a_new_request_waits_while_one_that_was_tried_before_is_alone(serve, endless):
    first = say(chat(endless, max_new_tokens=800))
    loop = serve(endless)
    until(lambda: events(first))
    with transaction.atomic():
        GenerationRequest.objects.filter(pk=first.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        generation.expire_leases()
    until(lambda: any(job.apart and job.begun for job in loop._jobs.values()))
    second = say(chat(endless, max_new_tokens=5))
    assert over(second).claimed_at >= over(first).ended_at
    assert first.attempt == 2


def test_a_lost_device_ends_the_loop_and_gives_back_what_was_in_flight(serve, endless):
    slot = chat(endless, max_new_tokens=60)
    loop = serve(endless)
    until(lambda: loop.state == "ready")

    def lost(first, tokens, starts):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    loop._engine._forward = lost
    request = say(slot)
    loop.join(20)
    assert (loop.is_alive(), loop.device_lost, loop.state) == (False, True, "failed")
    request.refresh_from_db()
    # Counted, or a request that does this would end one worker after another.
    assert (request.state, request.attempt) == (State.WAITING, 1)


def test_one_text_that_fails_takes_no_other_with_it(serve, endless):
    good, bad = chat(endless, max_new_tokens=100), chat(endless, max_new_tokens=100)
    loop = serve(endless)
    until(lambda: loop.state == "ready")
    engine = loop._engine
    submit = engine.submit

    def submit_one_wrongly(key, rendered, sampling, *, urgent):
        if "poison" in engine._tokenizer.decode(rendered.token_ids):
            rendered = type(rendered)([10**6], rendered.template_hash)
        submit(key, rendered, sampling, urgent=urgent)

    engine.submit = submit_one_wrongly
    fine, poisoned = say(good), say(bad, "poison")
    assert over(poisoned).state == State.FAILED
    assert (over(fine).state, fine.attempt) == (State.DONE, 1)


def test_requests_wait_while_the_model_cannot_be_loaded(serve, tiny_models):
    absent = factory.policy(location="later")
    slot = chat(absent, max_new_tokens=10)
    loop = serve(absent)
    request = say(slot)
    until(lambda: loop.state == "failed")
    assert "later" in loop.reason
    request.refresh_from_db()
    assert (request.state, request.attempt) == (State.WAITING, 0)
    tiny.build(tiny_models / "later", stops=False)
    loop.ring()
    assert over(request).state == State.DONE
    assert (loop.state, loop.reason) == ("ready", "")


def test_a_conversation_that_the_template_refuses_fails_at_once(serve, tmp_path):
    folder = tiny.build(tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system message here') }}")
    strict = factory.policy(location=str(folder))
    slot = chat(strict)
    serve(strict)
    request = over(say(slot))
    assert (request.state, request.attempt) == (State.FAILED, 1)
    assert "no system message here" in request.reason


def test_bulk_leaves_room_for_replies(serve, endless, settings):
    settings.WORKER_CAPACITY, settings.WORKER_BULK_SHARE = 8, 0.5
    bulk = [finished(endless, max_new_tokens=500) for _ in range(3)]
    slot = chat(endless, max_new_tokens=20)
    loop = serve(endless)
    until(lambda: loop._jobs)
    assert over(say(slot)).state == State.DONE
    for request in bulk:
        request.refresh_from_db()
    # One request of three texts is all that fits half of eight.
    assert [request.state for request in bulk] == [State.CLAIMED, State.WAITING, State.WAITING]
    assert [over(request, 60).state for request in bulk] == [State.DONE] * 3


def test_a_request_larger_than_the_capacity_is_sampled_too(serve, policy, settings):
    settings.WORKER_CAPACITY, settings.WORKER_BULK_SHARE = 1, 0.5
    request = finished(policy, max_new_tokens=10)
    serve(policy)
    assert over(request).state == State.DONE


def test_draining_finishes_what_is_short(serve, endless):
    slot = chat(endless, max_new_tokens=200)
    loop = serve(endless)
    request = say(slot)
    until(lambda: events(request))
    loop.drain(20)
    loop.join(25)
    request.refresh_from_db()
    assert (request.state, loop.is_alive()) == (State.DONE, False)


def test_draining_gives_back_what_is_long(serve, endless):
    slot = chat(endless, max_new_tokens=1900)
    loop = serve(endless)
    request = say(slot)
    until(lambda: events(request))
    loop.drain(0.1)
    loop.join(5)
    request.refresh_from_db()
    assert (request.state, request.attempt, request.claim_token) == (State.WAITING, 0, None)
    assert not loop.is_alive()
    assert shown(events(request)) == ""


def test_a_database_that_was_away_gets_its_result_later(serve, endless):
    slot = chat(endless, max_new_tokens=600)
    serve(endless)
    request = say(slot)
    until(lambda: events(request))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert (over(request).state, request.attempt) == (State.DONE, 1)


@pytest.mark.parametrize("slow", [60, 0], ids=["refuses", "hangs"])
def test_without_redis_the_text_still_reaches_the_record(serve, endless, settings, monkeypatch, slow):
    monkeypatch.setattr(serving, "SLOW_REDIS_SECONDS", slow)
    slot = chat(endless, max_new_tokens=30)
    serve(endless)
    away = redis.Redis(port=1, **settings.REDIS_OPTIONS)
    monkeypatch.setattr(streams, "client", lambda: away)
    assert over(say(slot)).state == State.DONE


def test_a_result_that_cannot_be_stored_fails_alone(serve, endless, monkeypatch):
    good, bad = chat(endless, max_new_tokens=30), chat(endless, max_new_tokens=30)
    complete = generation.complete
    unlucky = say(bad)

    def complete_all_but_one(*, request_id, **more):
        if request_id == unlucky.pk:
            raise ValueError("no such letter")
        return complete(request_id=request_id, **more)

    monkeypatch.setattr(generation, "complete", complete_all_but_one)
    serve(endless)
    assert over(say(good)).state == State.DONE
    assert over(unlucky).state == State.FAILED
    assert "no such letter" in unlucky.reason


def test_every_two_seconds_the_whole_text_is_told(serve, endless, monkeypatch):
    from worker import jobs

    monkeypatch.setattr(jobs, "WHOLE_SECONDS", 0.1)
    slot = chat(endless, max_new_tokens=500)
    serve(endless)
    request = over(say(slot))
    told = events(request)
    wholes = [number for number, event in enumerate(told) if event.get("whole")]
    assert len(wholes) >= 2
    # One who came late has all of it from there on.
    assert shown(told[wholes[-1] :]) == request.completions.get().text
