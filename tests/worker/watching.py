"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

import psutil

from annotate import streams
from annotate.models import GenerationRequest

OVER = [
    GenerationRequest.State.DONE,
    GenerationRequest.State.FAILED,
    GenerationRequest.State.CANCELLED,
    GenerationRequest.State.REFUSED,
]


def until(true: Callable[[], object], seconds: float = 30):
    """What `true` returns as soon as it is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "It did not come true in time."
        time.sleep(0.02)
    return found


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none where it has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def over(request: GenerationRequest, seconds: float = 30) -> GenerationRequest:
    """The request, once it has ended."""

    def ended() -> bool:
        request.refresh_from_db()
        return request.state in OVER

    until(ended, seconds)
    return request


def events(request: GenerationRequest) -> list[dict]:
    """What was published of a request so far."""
    key = streams.key_of(request.assignment_id)
    found = [streams.json.loads(fields["e"]) for _, fields in streams.client().xrange(key)]
    return [event for event in found if event["request"] == request.pk]


def shown(told: list[dict]) -> str:
    """What a page shows after these events: pieces are put where they belong, a reset or another attempt begins anew,
    and what comes late of an earlier attempt is left out."""
    text, attempt = "", 0
    for event in told:
        if event["attempt"] < attempt:
            continue
        if event["kind"] == "reset" or event["attempt"] > attempt:
            text, attempt = "", event["attempt"]
        if event["kind"] == "text":
            assert event["offset"] <= len(text), "A piece is missing."
            text = text[: event["offset"]] + event["text"]
    return text
