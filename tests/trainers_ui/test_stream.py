"""A reply on its way to the page."""

import json
import re
import threading

import pytest
import redis
from django.db import OperationalError, connection
from django.urls import reverse

from annotate import conversations, streams
from annotate.models import GenerationRequest
from tests import factory
from tests.trainers_ui.conftest import JSON
from trainers_ui import streaming

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

SSE = {"HTTP_ACCEPT": "text/event-stream"}


@pytest.fixture
def asked(trainer, chat) -> GenerationRequest:
    """A reply that a worker is writing."""
    return factory.claimed(conversations.say(assignment=chat, user=trainer, text="Hello"))


@pytest.fixture
def watch(browser, trainer, chat):
    """Opens the stream of the chat."""
    client = browser(trainer)
    opened = []

    def open_stream(**headers):
        opened.append(client.get(reverse("stream", args=[chat.pk]), **SSE, **headers))
        return opened[-1]

    yield open_stream
    for response in opened:
        response.close()


def events_of(response) -> list[tuple[str, dict]]:
    """(id, event) of all messages, to the end of the stream."""
    text = b"".join(response.streaming_content).decode()
    return [(found[1], json.loads(found[2])) for found in re.finditer(r"id: (\S+)\ndata: (.*)\n\n", text)]


def publish(chat, asked, *pieces: str, end: str | None = "done") -> None:
    base = {"request": asked.pk, "index": 0, "attempt": 1}
    events, offset = [{"kind": "reset"} | base], 0
    for piece in pieces:
        events.append({"kind": "text", "offset": offset, "text": piece} | base)
        offset += len(piece)
    if end:
        events.append({"kind": end} | base)
    streams.publish(chat.pk, events)


def test_it_sends_what_is_written(watch, chat, asked):
    publish(chat, asked, "Good ", "day 🥖\n\ndata: x")

    response = watch()
    events = [event for _, event in events_of(response)]

    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "no-store" in response.headers["Cache-Control"]
    assert [event["kind"] for event in events] == ["reset", "text", "text", "done"]
    assert "".join(event.get("text", "") for event in events) == "Good day 🥖\n\ndata: x"


def test_a_second_tab_gets_all_of_it(watch, chat, asked):
    publish(chat, asked, "Good ", "day")

    assert events_of(watch()) == events_of(watch())


def test_it_goes_on_where_it_was_cut(watch, chat, asked):
    publish(chat, asked, "Good ", "day")
    everything = events_of(watch())

    rest = events_of(watch(HTTP_LAST_EVENT_ID=everything[1][0]))

    assert rest == everything[2:]


@pytest.mark.parametrize("last", ["nonsense", "$", "1", "-", "1-x", "١-١", f"{2**64}-0"])
def test_a_broken_last_event_begins_anew(watch, chat, asked, last):
    publish(chat, asked, "Good day")

    assert len(events_of(watch(HTTP_LAST_EVENT_ID=last))) == 3


@pytest.mark.parametrize("end", ["done", "failed", "refused", "stopped"])
def test_it_ends_with_the_reply(watch, chat, asked, end):
    publish(chat, asked, "Good", end=end)

    assert events_of(watch())[-1][1]["kind"] == end


def test_the_end_of_an_earlier_reply_is_not_the_end(watch, chat, asked):
    old = {"kind": "done", "request": asked.pk - 1, "index": 0, "attempt": 1}
    streams.publish(chat.pk, [old])
    publish(chat, asked, "Good day")

    assert [event["kind"] for _, event in events_of(watch())] == ["done", "reset", "text", "done"]


def test_silence_is_filled(watch, chat, asked, monkeypatch):
    monkeypatch.setattr(streaming, "COMMENT_SECONDS", 0)
    policies = {str(chat.iteration.reply_policy_id): {"state": "ready", "reason": ""}}
    streams.client().set(f"{streams.HEARTBEAT}test", json.dumps({"policies": policies}))
    content = iter(watch().streaming_content)

    assert next(content) == b"retry: 1000\n\n"
    assert next(content) == b": \n\n"


def test_a_worker_that_died_is_told(watch, chat, asked, monkeypatch):
    monkeypatch.setattr(streaming, "COMMENT_SECONDS", 0)
    content = iter(watch().streaming_content)

    assert next(content) == b"retry: 1000\n\n"
    assert next(content) == b'event: away\ndata: {"state": "absent"}\n\n'


def test_flushed_redis_ends_it_where_the_reply_is_there(watch, chat, asked, monkeypatch):
    monkeypatch.setattr(streaming, "COMMENT_SECONDS", 0)
    publish(chat, asked, "Half", end=None)
    content = iter(watch().streaming_content)
    assert next(content) == b"retry: 1000\n\n"
    streams.client().flushdb()
    GenerationRequest.objects.filter(pk=asked.pk).update(
        state="failed", claim_token=None, lease_until=None, ended_at=asked.claimed_at
    )

    rest = b"".join(content)

    assert rest.endswith(b"event: end\ndata: {}\n\n")


def test_it_holds_no_database_connection(watch, chat, asked, monkeypatch):
    monkeypatch.setattr(streaming, "COMMENT_SECONDS", 0)
    content = iter(watch().streaming_content)

    next(content)
    assert connection.connection is None
    next(content)
    assert connection.connection is None


def test_nothing_to_watch(watch):
    response = watch()

    assert response.status_code == 204


def test_a_ranking_has_none(browser, trainer, ranking):
    assert browser(trainer).get(reverse("stream", args=[ranking.pk]), **SSE).status_code == 404


@pytest.fixture
def places(monkeypatch) -> int:
    """How many streams there is room for."""
    monkeypatch.setattr(streaming, "_places", threading.BoundedSemaphore(2))
    return 2


CROWDED = re.compile(rb"retry: [23]\d\d\d\n\nevent: crowded\ndata: {}\n\n")


def is_crowded(response) -> bool:
    return not response.streaming and bool(CROWDED.match(response.content))


def pieces_of(response) -> list[tuple[str, dict]]:
    return [
        (one[1], json.loads(one[2])) for one in re.finditer(r"id: (\S+)\ndata: (.*)\n\n", response.content.decode())
    ]


def test_a_page_without_a_place_gets_what_there_is_and_comes_back_for_the_rest(watch, places, chat, asked):
    held = [watch() for _ in range(places)]
    publish(chat, asked, "Good ", end=None)
    first = watch()
    base = {"request": asked.pk, "index": 0, "attempt": 1}
    streams.publish(chat.pk, [{"kind": "text", "offset": 5, "text": "day"} | base, {"kind": "done"} | base])
    second = watch(HTTP_LAST_EVENT_ID=pieces_of(first)[-1][0])

    assert is_crowded(first)
    assert is_crowded(second)
    assert first.headers["Content-Type"] == second.headers["Content-Type"] == "text/event-stream"
    pieces = [event for _, event in pieces_of(first) + pieces_of(second)]
    assert [piece["kind"] for piece in pieces] == ["reset", "text", "text", "done"]
    assert "".join(piece.get("text", "") for piece in pieces) == "Good day"
    assert pieces == [event for _, event in events_of(held[0])]


def test_a_place_that_was_never_read_is_given_back(watch, places, chat, asked):
    held = [watch() for _ in range(places)]
    assert is_crowded(watch())

    held[0].close()

    assert watch().streaming


def test_a_place_is_given_back_once(watch, places, chat, asked):
    first = watch()
    first.close()
    first.close()

    held = [watch() for _ in range(places)]

    assert all(response.streaming for response in held)
    assert is_crowded(watch())


def test_a_place_is_given_back_where_the_database_went_away(watch, places, chat, asked, monkeypatch):
    def breaks(conversation):
        raise OperationalError("away")

    real = streaming.pending
    for _ in range(places):
        # The view has asked once already.
        monkeypatch.setattr(streaming, "pending", iter_of(real, breaks))
        with pytest.raises(OperationalError):
            watch()

    monkeypatch.setattr(streaming, "pending", real)
    assert watch().streaming


def iter_of(*calls):
    """A function that is another one at each call."""
    following = iter(calls)
    return lambda *arguments: next(following)(*arguments)


def test_a_page_without_a_place_is_told_that_the_worker_died(watch, places, chat, asked):
    held = [watch() for _ in range(places)]
    assert is_crowded(silent := watch())
    policies = {str(chat.iteration.reply_policy_id): {"state": "ready", "reason": ""}}
    streams.client().set(f"{streams.HEARTBEAT}test", json.dumps({"policies": policies}))

    assert silent.content.endswith(b'event: away\ndata: {"state": "absent"}\n\n')
    assert b"away" not in watch().content
    assert len(held) == places


def test_a_page_without_a_place_is_answered_without_redis(watch, places, chat, asked, monkeypatch):
    held = [watch() for _ in range(places)]
    away = redis.Redis(port=1, socket_connect_timeout=1)
    monkeypatch.setattr(streams, "client", lambda: away)

    assert is_crowded(watch())
    assert len(held) == places


def test_a_stranger(browser, stranger, chat, asked):
    assert browser(stranger).get(reverse("stream", args=[chat.pk]), **JSON).status_code == 404


def test_signed_out(browser, chat, asked):
    assert browser().get(reverse("stream", args=[chat.pk]), **SSE).status_code == 401
