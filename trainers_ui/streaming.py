"""A reply on its way to one page: server-sent events out of the assignment's stream."""

import json
import re
import threading
import time
from collections.abc import Iterator

from django.conf import settings
from django.db import connections
from django.http import StreamingHttpResponse

from annotate import generation, streams

COMMENT_SECONDS = 10
"""Pause after which a silent stream says that it lives, and looks whether there is still something to wait for."""

RETRY_MS = 1000
"""How soon a browser that lost the connection comes back."""

ENDINGS = ("done", "failed", "refused", "stopped")

_places = threading.BoundedSemaphore(settings.STREAM_LIMIT)


def response(*, assignment, request_id: int, after: str) -> StreamingHttpResponse | None:
    """The stream of a pending reply from the event `after` on; None where all places of this process are taken."""
    if not _places.acquire(blocking=False):
        return None
    events = Events(assignment, request_id, after if re.fullmatch(r"\d{1,20}-\d{1,20}", after) else "0")
    # A stream lasts as long as a reply: it must not keep a connection that other pages need.
    connections.close_all()
    answer = StreamingHttpResponse(events, content_type="text/event-stream")
    # Proxies that collect answers before they pass them on would undo the streaming.
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


class Events:
    """The events as bytes, until the reply has ended. Its place is given back by `close`, which the server calls
    also where it never began to read."""

    def __init__(self, assignment, request_id: int, after: str):
        self.conversation = assignment.conversation
        self.policy_id = assignment.iteration.reply_policy_id
        self.request_id = request_id
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
                if event["request"] == self.request_id and event["kind"] in ENDINGS:
                    return
            elif time.monotonic() - looked >= COMMENT_SECONDS:
                looked = time.monotonic()
                # The event that ends the reply may have been lost; the database knows.
                if not self._pending():
                    yield b"event: end\ndata: {}\n\n"
                    return
                # A worker that died leaves half a reply: its page says so until another writes it again.
                ready = streams.policy_state(self.policy_id)[0] == "ready"
                yield b": \n\n" if ready else b"event: away\ndata: {}\n\n"

    def _pending(self) -> bool:
        try:
            pending = generation.pending_reply(self.conversation)
            return pending is not None and pending.pk == self.request_id
        finally:
            connections.close_all()
