"""Suggestions through the serving loop: several texts of one request, each told when it begins and when it ends."""

import time
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from annotate import conversations, generation
from annotate.models import Completion, GenerationRequest
from tests import factory, tiny
from tests.worker.watching import events, over, shown, until
from worker import jobs, serving
from worker.engines.base import Chunk
from worker.jobs import Job

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

State = GenerationRequest.State


@pytest.fixture(autouse=True)
def _quick(settings):
    settings.WORKER_POLL_SECONDS = 0.1
    settings.WORKER_DEVICE = "cpu"


def desk(policy, **fields):
    """A slot whose conversation is open; its page is where the texts go."""
    project = factory.project(served_by=policy, **fields)
    return factory.held_piece(project)


def suggest(slot, *, n=3, role="assistant", text="the word"):
    return generation.request_suggestions(
        conversation=slot.conversation,
        assignment=slot,
        role=role,
        position=2,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}],
        hint="",
        n=n,
    )


def ended(request):
    """All that was published of a request, once it has ended."""
    last = {"done", "failed", "refused", "stopped"}
    return until(lambda: (found := events(request)) and found[-1]["kind"] in last and found)


def of(told, index):
    return [event for event in told if event.get("index") == index]


def test_each_text_is_told_when_it_ends_before_the_whole_request(serve, policy):
    slot = desk(policy, max_new_tokens=200)
    serve(policy)
    request = over(suggest(slot))
    assert (request.state, request.attempt) == (State.DONE, 1)
    told = ended(request)
    assert told[-1] == {"kind": "done", "request": request.pk, "attempt": 1, "reason": ""}
    for completion in request.completions.all():
        mine = of(told, completion.index)
        assert shown(mine) == completion.text
        assert [event["kind"] for event in mine] == ["text"] * (len(mine) - 1) + ["finished"]
        assert mine[-1] == {
            "kind": "finished",
            "request": request.pk,
            "attempt": 1,
            "index": completion.index,
            "finish": completion.finish_reason,
        }
    assert request.completions.count() == 3


def test_a_short_text_can_be_taken_while_a_longer_one_is_written(serve, policy):
    slot = desk(policy, max_new_tokens=400)
    serve(policy)
    request = over(suggest(slot))
    told = ended(request)
    ends = {event["index"]: place for place, event in enumerate(told) if event["kind"] == "finished"}
    shortest = min(request.completions.all(), key=lambda one: one.completion_tokens)
    assert any(event["kind"] == "text" for event in told[ends[shortest.index] :])


def test_the_first_words_of_each_text_are_told_at_once(serve, endless, monkeypatch):
    # Nothing but first words and ends is told.
    monkeypatch.setattr(serving, "TELL_SECONDS", 3600)
    slot = desk(endless, max_new_tokens=600)
    loop = serve(endless)
    until(lambda: loop.state == "ready")
    loop._tell_after = time.monotonic() + 3600
    request = suggest(slot)
    begun = until(lambda: {event["index"] for event in events(request)} == {0, 1, 2} and events(request))
    assert all(event["offset"] == 0 for event in begun if event["index"] == begun[-1]["index"])
    request.refresh_from_db()
    assert request.state == State.CLAIMED


def test_one_stopped_halfway_keeps_every_text(serve, endless):
    slot = desk(endless, max_new_tokens=1500)
    serve(endless)
    request = suggest(slot)
    until(lambda: {event["index"] for event in events(request)} == {0, 1, 2})
    asked = time.monotonic()
    generation.stop(request=request)
    assert over(request).state == State.CANCELLED
    assert time.monotonic() - asked < 2
    told = ended(request)
    assert told[-1]["kind"] == "stopped"
    completions = list(request.completions.all())
    assert [(one.index, one.finish_reason) for one in completions] == [(0, "stopped"), (1, "stopped"), (2, "stopped")]
    assert [shown(of(told, one.index)) for one in completions] == [one.text for one in completions]
    assert "finished" not in {event["kind"] for event in told}
    assert slot.conversation.messages.filter(role="assistant").count() == 0


def test_another_attempt_resets_every_text(serve, endless):
    slot = desk(endless, max_new_tokens=800)
    serve(endless)
    request = suggest(slot)
    until(lambda: len(events(request)) > 3)
    # In one transaction, or the loop would renew it between the two.
    with transaction.atomic():
        GenerationRequest.objects.filter(pk=request.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        generation.expire_leases()
    assert (over(request).state, request.attempt) == (State.DONE, 2)
    told = ended(request)
    assert [event["index"] for event in told if event["kind"] == "reset"] == [0, 1, 2]
    for completion in request.completions.all():
        assert shown(of(told, completion.index)) == completion.text


def test_one_text_that_fails_makes_all_of_its_request_begin_again(serve, endless, settings):
    settings.GENERATION_ATTEMPTS = 2
    slot = desk(endless, max_new_tokens=60)
    loop = serve(endless)
    until(lambda: loop.state == "ready")
    submit = loop._engine.submit

    def submit_the_second_wrongly(key, rendered, sampling, *, urgent):
        if key[2] == 1:
            rendered = type(rendered)([10**6], rendered.template_hash)
        submit(key, rendered, sampling, urgent=urgent)

    loop._engine.submit = submit_the_second_wrongly
    request = over(suggest(slot))
    assert (request.state, request.attempt) == (State.FAILED, 2)
    assert ended(request)[-1]["reason"] == "The model does not know these tokens."
    assert not Completion.objects.filter(request=request).exists()
    assert not loop._jobs


def test_what_is_too_long_is_refused_and_nothing_else_changes(serve, policy):
    slot = desk(policy)
    before = list(slot.conversation.messages.values_list("text", flat=True))
    serve(policy)
    request = over(suggest(slot, text="x" * tiny.CONTEXT_TOKENS))
    assert request.state == State.REFUSED
    assert ended(request) == [{"kind": "refused", "request": request.pk, "attempt": 1, "reason": request.reason}]
    assert list(slot.conversation.messages.values_list("text", flat=True)) == before


def test_texts_without_a_word_are_asked_for_again(serve, policy, settings, monkeypatch):
    settings.GENERATION_ATTEMPTS = 2
    slot = desk(policy)
    loop = serve(policy)
    until(lambda: loop.state == "ready")
    end = min(loop._engine._ends)
    monkeypatch.setattr(
        "worker.engines.transformers.pick", lambda logits, _: logits.new_full((len(logits),), end).long()
    )
    request = over(suggest(slot))
    assert (request.state, request.attempt) == (State.FAILED, 2)
    told = ended(request)
    assert [(event["index"], event["attempt"]) for event in told if event["kind"] == "finished"] == [
        (index, attempt) for attempt in (1, 2) for index in range(3)
    ]


def test_a_user_turn_is_suggested_too(serve, policy):
    slot = desk(policy, max_new_tokens=20)
    serve(policy)
    request = over(suggest(slot, role="user"))
    assert (request.state, request.completions.count()) == (State.DONE, 3)
    assert request.messages[-1] == {"role": "user", "content": ""}


def test_replies_are_claimed_first_then_suggestions_then_bulk(endless):
    project = factory.project(served_by=endless)
    factory.finished_chat(project)
    wanted = suggest(factory.held_chat(project, factory.trainer(project)))
    slot = factory.held_chat(project, factory.trainer(project))
    reply = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    claimed = generation.claim(policy_id=endless.pk, worker="worker", limit=64, bulk_limit=32)
    assert [one.purpose for one in claimed] == ["reply", "suggestion", "alternatives"]
    assert [one.pk for one in claimed[:2]] == [reply.pk, wanted.pk]
    assert [Job(one, one.claim_token).bulk for one in claimed] == [False, False, True]


def test_bulk_leaves_room_for_suggestions(serve, endless, settings):
    settings.WORKER_CAPACITY, settings.WORKER_BULK_SHARE = 8, 0.5
    for _ in range(2):
        factory.finished_chat(factory.project(served_by=endless, max_new_tokens=800))
    slot = desk(endless, max_new_tokens=20)
    loop = serve(endless)
    until(lambda: loop._jobs)
    assert over(suggest(slot)).state == State.DONE
    assert GenerationRequest.objects.filter(purpose="alternatives", state=State.DONE).count() == 0


def job_of_three(endless):
    request = factory.claimed(suggest(desk(endless)))
    return Job(request, request.claim_token)


def piece(job, index, text, finish=None):
    return job.take(Chunk((job.request.pk, job.token, index), text, finish))


def test_the_whole_text_is_told_again_with_its_end(endless, monkeypatch):
    job = job_of_three(endless)
    piece(job, 0, "All of it", "stop")
    piece(job, 1, "Some")
    first = job.news()
    assert [(event["kind"], event["index"]) for event in first] == [("text", 0), ("finished", 0), ("text", 1)]
    assert job.news() == []
    monkeypatch.setattr(jobs, "WHOLE_SECONDS", 0)
    again = job.news()
    assert [(event["kind"], event["index"]) for event in again] == [("text", 0), ("finished", 0), ("text", 1)]
    assert [event["whole"] for event in again if event["kind"] == "text"] == [True, True]


def test_half_a_character_is_no_first_word(endless):
    job = job_of_three(endless)
    assert not piece(job, 2, "")
    assert job.texts[2].first_token_ms is not None
    assert piece(job, 2, "é")
    assert not piece(job, 2, "t")
    assert piece(job, 2, "é", "length")


def test_the_page_is_shown_no_nul_as_the_record_keeps_none(endless):
    job = job_of_three(endless)
    assert not piece(job, 0, "\x00")
    piece(job, 0, "a\x00b", "stop")
    assert shown([event for event in job.news() if event["index"] == 0]) == "ab"
    assert job.texts[0].text == "ab"
