"""Many people in front of one site: pages that watch replies as a browser does, and readers of other pages.

The watchers share one thread, so that what is measured is the site and not its clients.
"""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tests.site import Site

CSRF = "c" * 32
ENDS = ("done", "failed", "refused", "stopped")

PREPARE = """
import json, sys
from django.test import Client
from annotate import assignments, families
from tests import factory

def session(user):
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value

policy = factory.policy(location=LOCATION)
project = factory.project(served_by=policy, max_new_tokens=TOKENS, authors_rank_own=True)
watchers = []
for _ in range(WATCHERS):
    slot = factory.held_chat(project, factory.trainer(project))
    watchers.append([slot.pk, session(slot.trainer)])
readers = []
for _ in range(READERS):
    other = factory.project(authors_rank_own=True)
    user = factory.trainer(other)
    for _ in range(5):
        factory.open_comparison(other, user, turns=3)
    ranking = assignments.claim(user=user, project=other, kinds=["rank"])
    paths = ["/", "/history/", f"/projects/{other.slug}/guidelines/", f"/work/{ranking.pk}/"]
    readers.append([paths, session(user)])
from annotate.models import Policy
Policy.objects.exclude(pk=policy.pk).update(active=False)
print("PREPARED", json.dumps({"watchers": watchers, "readers": readers, "policy": policy.pk}))
"""

READY = "from annotate import streams; print('READY', *streams.policy_state({policy}))"

STORED = """
import json
from annotate.models import GenerationRequest
found = GenerationRequest.objects.filter(purpose="reply").order_by("id")
stored = {}
for request in found:
    message = request.conversation.messages.filter(position=request.position).first()
    texts = list(request.completions.values_list("text", flat=True))
    stored.setdefault(request.assignment_id, []).append([request.state, texts, message and message.text])
print("STORED", json.dumps(stored))
"""


def shell(site: Site, script: str, marker: str, **values) -> str:
    """What a script printed after the marker, run by the site's own Django."""
    set_first = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    printed = site.manage("shell", "-v", "0", "-c", set_first + script)
    return next(line for line in printed.splitlines() if line.startswith(marker)).removeprefix(marker).strip()


def stored(site: Site) -> dict[int, list[list]]:
    """By assignment, for each reply asked for: its state, its texts, and the message that stands there."""
    return {int(slot): found for slot, found in json.loads(shell(site, STORED, "STORED")).items()}


@dataclass
class Watcher:
    """One page of a chat: it sends a message and puts the reply together from the events, strictly.

    `crowded` counts the times that the server had no place for it; `pieces` the events of text.
    """

    port: int
    slot: int
    session: str
    text: str = ""
    ended: str = ""
    sent_at: float = 0
    first_text: float | None = None  # seconds after the message was sent
    took: float | None = None
    connections: int = 0
    crowded: int = 0
    pieces: int = 0
    longest_silence: float = 0
    _last_piece: float = 0
    _attempt: int = 0
    _last_id: str = ""
    _retry: float = 1.0
    _length: int | None = None  # of an answer that is not chunked

    def right(self, stored: list[list]) -> bool:
        """Whether there was one reply, which has one end and says what was seen of it.

        Where the page was told that all is over instead of the end itself, it asks for the text: it has seen a part.
        """
        ((state, texts, message),) = stored
        seen = message == self.text if self.ended == "done" else message.startswith(self.text)
        return state == "done" and texts == [message] and seen

    async def watch(self, message: str) -> None:
        """Send the message and watch its reply until it has ended. Raises AssertionError where a piece is missing."""
        self.sent_at = self._last_piece = time.monotonic()
        status, reader, writer = await self._ask("POST", "say/", urlencode({"text": message}))
        await _body(reader, writer)
        assert status in (200, 302), status
        while not self.ended:
            self.connections += 1
            status, reader, writer = await self._ask("GET", "stream")
            if status == 204:
                await _body(reader, writer)
                self.ended = "gone"
                break
            assert status == 200, status
            try:
                await self._read(reader)
            finally:
                writer.close()
            if not self.ended:
                await asyncio.sleep(self._retry)
        self.took = time.monotonic() - self.sent_at

    async def _read(self, reader) -> None:
        kind, data = "", ""
        async for line in _lines(reader, self._length):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "retry":
                self._retry = int(value) / 1000
            elif name == "id":
                self._last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not line:
                if kind == "end":
                    self.ended = "end"
                elif kind == "crowded":
                    self.crowded += 1
                elif data and not kind:
                    self._take(json.loads(data))
                if self.ended:
                    return
                kind = data = ""

    def _take(self, event: dict) -> None:
        if event["attempt"] < self._attempt:
            return
        if event["kind"] == "reset" or event["attempt"] > self._attempt:
            self.text, self._attempt = "", event["attempt"]
        if event["kind"] in ENDS:
            self.ended = event["kind"]
        elif event["kind"] == "text":
            now = time.monotonic()
            if self.first_text is None:
                self.first_text = now - self.sent_at
            else:
                self.longest_silence = max(self.longest_silence, now - self._last_piece)
            self._last_piece = now
            self.pieces += 1
            offset, piece = event["offset"], event["text"]
            assert offset <= len(self.text), "a piece is missing"
            known = self.text[offset : offset + len(piece)]
            assert piece.startswith(known), "a piece says something else than one before"
            self.text = self.text[:offset] + piece + self.text[offset + len(piece) :]

    async def _ask(self, method: str, what: str, body: str = ""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": f"http://127.0.0.1:{self.port}",
            "Cookie": f"sessionid={self.session}; csrftoken={CSRF}",
            "Connection": "close",
        }
        if method == "POST":
            lines |= {
                "X-CSRFToken": CSRF,
                "Content-Type": "application/x-www-form-urlencoded",
                "Content-Length": str(len(body)),
            }
        elif what == "stream":
            lines |= {"Accept": "text/event-stream"}
            if self._last_id:
                lines["Last-Event-ID"] = self._last_id
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} /work/{self.slot}/{what} HTTP/1.1\r\n{head}\r\n{body}".encode())
        status = int((await reader.readline()).split()[1])
        self._length = None
        while line := (await reader.readline()).strip().lower():
            if line.startswith(b"content-length:"):
                self._length = int(line.split(b":")[1])
        return status, reader, writer


async def _body(reader, writer) -> bytes:
    try:
        return await reader.read()
    finally:
        writer.close()


async def _lines(reader, length: int | None):
    """The lines of an answer as they come; without a length it is chunked."""
    if length is not None:
        for line in (await reader.readexactly(length)).split(b"\n"):
            yield line.decode()
        return
    rest = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *whole, rest = rest.split(b"\n")
        for line in whole:
            yield line.decode()


@dataclass
class Reader:
    """Somebody who looks at other pages, one after another with a pause; times in milliseconds by page."""

    port: int
    paths: list[str]
    session: str
    pause: float = 0.2
    times: dict[str, list[float]] = field(default_factory=dict)

    def read_until(self, over: threading.Event) -> None:
        """Read the pages in turn until told that it is over; each has to answer 200."""
        while not over.is_set():
            for path in self.paths:
                begun = time.perf_counter()
                link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                link.request("GET", path, headers={"Cookie": f"sessionid={self.session}"})
                answer = link.getresponse()
                answer.read()
                link.close()
                assert answer.status == 200, (path, answer.status)
                self.times.setdefault(path, []).append((time.perf_counter() - begun) * 1000)
                if over.wait(self.pause):
                    return

    def all(self) -> list[float]:
        """All times."""
        return [one for times in self.times.values() for one in times]


def reading(readers: list[Reader], act) -> list[float]:
    """Act while the readers read; how long each of their pages took, in milliseconds. Raises what went wrong."""
    over, broken = threading.Event(), []

    def keep_on(reader: Reader) -> None:
        try:
            reader.read_until(over)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=keep_on, args=[reader]) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        act()
    finally:
        over.set()
        for thread in threads:
            thread.join(90)
    if broken:
        raise broken[0]
    return [one for reader in readers for one in reader.all()]


def watch_all(
    watchers: list[Watcher], messages: Sequence[str] = ("Tell me a long story.",), apart: float = 0.1
) -> None:
    """All send their message, each so many seconds after the one before, and watch to the end."""

    async def all_of_them() -> None:
        async def later(number: int, watcher: Watcher) -> None:
            await asyncio.sleep(number * apart)
            await watcher.watch(messages[number % len(messages)])

        await asyncio.gather(*(later(number, watcher) for number, watcher in enumerate(watchers)))

    asyncio.run(all_of_them())


def numbers(values: list[float]) -> Iterator[float]:
    """Median, 99th percentile and most."""
    ordered = sorted(values)
    yield ordered[len(ordered) // 2]
    yield ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    yield ordered[-1]
