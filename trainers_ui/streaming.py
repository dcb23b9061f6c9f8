"""Texts on their way to one page: server-sent events out of the assignment's stream.

Where more pages watch than have a place, each of the others gets what there is, and comes back for the next piece: the
same events after the same ids, so that a page loses nothing by waiting for a place.
"""

import json
import random
import re
import threading
import time
from collections.abc import Iterator

from django.conf import settings
from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from annotate import policies, streams

COMMENT_SECONDS = 10
"""Pause after which a silent stream says that it lives, and looks whether there is still something to wait for."""

RETRY_MS = 1000
"""How soon a browser that lost the connection comes back."""

CROWDED_RETRY_MS = (2000, 3000)
"""The same for one that had no place: somewhere between these, so that they do not come all at once."""

ENDINGS = ("done", "failed", "refused", "stopped")
"""Events after which nothing more comes of a request."""

GOING_ON = ("waiting", "claimed")

_places = threading.BoundedSemaphore(settings.STREAM_LIMIT)


def response(*, assignment, after: str) -> HttpResponseBase:
    """The stream of all that is being written for an assignment's conversation, from the event `after` on.

    It ends when nothing is being written any more. Where all places of this process are taken it holds what there is,
    says `crowded` and ends at once; the browser comes back for more by itself.
    """
    after = after if re.fullmatch(r"[0-9]{1,18}-[0-9]{1,18}", after) else "0"
    if _places.acquire(blocking=False):
        try:
            answer = StreamingHttpResponse(Events(assignment, after))
        except BaseException:
            _places.release()
            raise
        # A stream lasts as long as a reply: it must not keep a connection that other pages need.
        connections.close_all()
    else:
        answer = HttpResponse(_crowded(assignment, after))
    answer.headers["Content-Type"] = "text/event-stream"
    # Proxies that collect answers before they pass them on would undo the streaming.
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


def _crowded(assignment, after: str) -> bytes:
    found = streams.so_far(assignment.pk, after)
    begin = f"retry: {random.randint(*CROWDED_RETRY_MS)}\n\n".encode() + _named("crowded")  # noqa: S311
    if not found:
        return begin + _sign_of_life(assignment.iteration.reply_policy)
    return begin + b"".join(_event(*one) for one in found)


def _sign_of_life(policy) -> bytes:
    """A comment, or that nothing comes for now: a worker that died leaves half a text, and a model that was put down,
    or a policy that is switched off, leaves what nobody has begun. The page asks which, or says so."""
    state, _ = policies.state(policy)
    return b": \n\n" if state == "ready" else _named("away", {"state": state})


def _named(name: str, details: dict | None = None) -> bytes:
    return f"event: {name}\ndata: {json.dumps(details or {})}\n\n".encode()


def _event(event_id: str, event: dict) -> bytes:
    return f"id: {event_id}\ndata: {json.dumps(event)}\n\n".encode()


def pending(conversation) -> set[int]:
    """The requests of a conversation whose texts may still grow, those included that are being stopped."""
    return set(conversation.requests.filter(state__in=GOING_ON).values_list("pk", flat=True))


class Events:
    """The events as bytes, until all has ended. Its place is given back by `close`, which the server calls also where
    it never began to read."""

    def __init__(self, assignment, after: str):
        self.conversation = assignment.conversation
        self.policy = assignment.iteration.reply_policy
        self.first = min(pending(self.conversation), default=0)
        self.ended: set[int] = set()
        self.source = streams.read(assignment.pk, after)
        self.closed = False
        self.events = self._events()

    def __iter__(self) -> Iterator[bytes]:
        return self.events

    def close(self) -> None:
        """Give the place back, once."""
        self.events.close()
        self.source.close()
        if not self.closed:
            self.closed = True
            _places.release()

    def _events(self) -> Iterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        looked = time.monotonic()
        for found in self.source:
            if found is not None:
                yield _event(*found)
                if self._ends(found[1]) and not self._goes_on():
                    return
            elif time.monotonic() - looked >= COMMENT_SECONDS:
                looked = time.monotonic()
                # The event that ends a request may have been lost; the database knows.
                if not self._goes_on():
                    yield _named("end")
                    return
                yield _sign_of_life(self.policy)

    def _ends(self, event: dict) -> bool:
        """Whether it ends one of those that were being written when the stream began, or one asked for since."""
        if event["kind"] not in ENDINGS or event["request"] < self.first:
            return False
        self.ended.add(event["request"])
        return True

    def _goes_on(self) -> bool:
        try:
            return bool(pending(self.conversation) - self.ended)
        finally:
            connections.close_all()
