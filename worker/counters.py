"""What a worker counts of one policy since it started: for /metrics, by way of its sign of life."""

import threading
import time
from bisect import bisect_left
from collections import Counter, deque

from annotate.streams import FIRST_TOKEN_BOUNDS
from worker.jobs import Job

NOW_SECONDS = 15
"""Over so long the tokens a second are taken that are told as those of now."""


class Counters:
    """Counts that grow. The policy's loop counts and the heartbeat reads, each in its own thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._texts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._first_tokens: dict[str, dict[str, dict]] = {}
        # When it was read, and how many tokens had been written by then; the first one is the last before NOW_SECONDS.
        self._read: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def wrote(self, *, prompt_tokens: int, tokens: int) -> None:
        """So many tokens more were read of prompts, and written."""
        with self._lock:
            self._counts["prompt_tokens"] += prompt_tokens
            self._counts["tokens"] += tokens

    def ended(self, finish: str, texts: int = 1) -> None:
        """Texts ended: stop, length, stopped, refused or error."""
        with self._lock:
            self._texts[finish] += texts

    def failed(self, kind: str) -> None:
        """A `request` failed in one of its attempts, a model could not be loaded (`load`), or an `engine` broke."""
        with self._lock:
            self._failures[kind] += 1

    def loaded(self) -> None:
        """A model was loaded, or a server was reached."""
        with self._lock:
            self._counts["loads"] += 1

    def swapped(self) -> None:
        """A model was put down to make room for another one."""
        with self._lock:
            self._counts["swaps"] += 1

    def began(self, job: Job) -> None:
        """The first token of a request came just now."""
        request = job.request
        from_claim = min(text.first_token_ms for text in job.texts if text.first_token_ms is not None) / 1000
        waited = max(0.0, (request.claimed_at - request.created_at).total_seconds())
        with self._lock:
            kept = self._first_tokens.setdefault(request.purpose, {})
            for start, seconds in (("claim", from_claim), ("asking", waited + from_claim)):
                none_yet = {"buckets": [0] * (len(FIRST_TOKEN_BOUNDS) + 1), "seconds": 0.0}
                histogram = kept.setdefault(start, none_yet)
                histogram["buckets"][bisect_left(FIRST_TOKEN_BOUNDS, seconds)] += 1
                histogram["seconds"] = round(histogram["seconds"] + seconds, 3)

    def read(self) -> dict:
        """All of it as plain numbers; what was never counted is 0 or absent.

        `first_tokens` is by purpose and by where the clock started, `claim` or `asking`: how many fell into each
        bucket of FIRST_TOKEN_BOUNDS and the last one above them, and the sum in seconds. `tokens_a_second` alone falls
        again: those written lately, also of texts that have not ended.
        """
        with self._lock:
            return {
                "tokens_a_second": self._tokens_a_second(),
                "tokens": self._counts["tokens"],
                "prompt_tokens": self._counts["prompt_tokens"],
                "loads": self._counts["loads"],
                "swaps": self._counts["swaps"],
                "texts": dict(self._texts),
                "failures": dict(self._failures),
                "first_tokens": {
                    purpose: {start: one | {"buckets": list(one["buckets"])} for start, one in kept.items()}
                    for purpose, kept in self._first_tokens.items()
                },
            }

    def _tokens_a_second(self) -> float:
        now, tokens = time.monotonic(), self._counts["tokens"]
        self._read.append((now, tokens))
        while len(self._read) > 2 and self._read[1][0] <= now - NOW_SECONDS:
            self._read.popleft()
        began, before = self._read[0]
        return round((tokens - before) / max(1.0, now - began), 1)
