"""Texts on their way to one page: server-sent events out of the assignment's stream."""

import json
import re
import threading
import time
from collections.abc import Iterator

from django.conf import settings
from django.db import connections
from django.http import StreamingHttpResponse

from annotate import policies, streams

COMMENT_SECONDS = 10
"""Pause after which a silent stream says that it lives, and looks whether there is still something to wait for."""

RETRY_MS = 1000
"""How soon a browser that lost the connection comes back."""

ENDINGS = ("done", "failed", "refused", "stopped")
"""Events after which nothing more comes of a request."""

GOING_ON = ("waiting", "claimed")

_places = threading.BoundedSemaphore(settings.STREAM_LIMIT)


def response(*, assignment, after: str) -> StreamingHttpResponse | None:
    """The stream of all that is being written for an assignment's conversation, from the event `after` on.

    It ends when nothing is being written any more. None where all places of this process are taken.
    """
    if not _places.acquire(blocking=False):
        return None
    events = Events(assignment, after if re.fullmatch(r"\d{1,20}-\d{1,20}", after) else "0")
    # A stream lasts as long as a reply: it must not keep a connection that other pages need.
    connections.close_all()
    answer = StreamingHttpResponse(events, content_type="text/event-stream")
    # Proxies that collect answers before they pass them on would undo the streaming.
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


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
                event_id, event = found
                yield f"id: {event_id}\ndata: {json.dumps(event)}\n\n".encode()
                if self._ends(event) and not self._goes_on():
                    return
            elif time.monotonic() - looked >= COMMENT_SECONDS:
                looked = time.monotonic()
                # The event that ends a request may have been lost; the database knows.
                if not self._goes_on():
                    yield b"event: end\ndata: {}\n\n"
                    return
                yield self._sign_of_life()

    def _sign_of_life(self) -> bytes:
        """A comment, or that nothing comes for now: a worker that died leaves half a text, and a model that was put
        down, or a policy that is switched off, leaves what nobody has begun. The page asks which, or says so."""
        state, _ = policies.state(self.policy)
        return b": \n\n" if state == "ready" else b"event: away\ndata: %s\n\n" % json.dumps({"state": state}).encode()

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
