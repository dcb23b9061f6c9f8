"""The serving loop: one thread a policy, from the queue in the database through an engine and back.

It claims requests into free capacity, replies first, then suggestions; it alone reads the engine; it renews its
leases and learns in the same statement whom to stop; it stores a request's texts together, under the claim token.
A model that the worker loads is in memory while it is its turn (worker/memory.py).
The database or Redis may be away for a while: sampling goes on, and what is over is stored when it can be.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError, close_old_connections

from annotate import generation, streams
from annotate.models import GenerationRequest, Policy
from worker.counters import Counters
from worker.engines import registry
from worker.engines.base import Chunk, Engine, LoadError, Sampling, Server
from worker.jobs import Job
from worker.memory import Asked, Memory, Turn
from worker.places import Place, memory_of_this_process

logger = logging.getLogger(__name__)

TELL_SECONDS = 0.04
"""Pause between two publications at least; a first token does not wait for it."""
LISTEN_SECONDS = 0.02
"""How long the loop listens to the engine before it looks at the bell again."""
LOAD_AGAIN_SECONDS = 60
"""When a model that could not be loaded is tried again without a bell."""
LOAD_AGAIN_AT_BELL_SECONDS = 10
"""The same with a bell; the sweep rings for as long as something waits."""
LARGEST_REQUEST = 16
"""Texts that a worker takes when it is idle and nothing fits its capacity: no request is too large for ever."""
AWAY = (OperationalError, InterfaceError, InternalError)
"""The database is away, or let go of this process in the middle of a transaction because it hung."""
BACK_OFF_SECONDS = (0.5, 1, 2, 5)
SLOW_REDIS_SECONDS = 0.5
QUIET_SECONDS = 5.0
"""So long nothing is published after Redis was slow: pages look up by themselves how their request stands."""

State = GenerationRequest.State
TOLD_AS = {State.DONE: "done", State.FAILED: "failed", State.REFUSED: "refused", State.CANCELLED: "stopped"}


class Serving:
    """The loop of one policy, in a thread of its own. `changed` is called whenever `state` changes.

    `counters` goes on where an earlier loop of the policy in this process left off; `memory` is shared by the loops of
    a process, of which all must be made before the first one is started.
    """

    def __init__(
        self,
        policy: Policy,
        worker: str,
        changed: Callable[[], None],
        counters: Counters | None = None,
        memory: Memory | None = None,
    ):
        self.policy, self.worker = policy, worker
        self.counters = counters or Counters()
        # A model that a server holds takes no place here.
        shared = memory or memory_of_this_process(lambda name: self.ring())
        self._place = Place(policy, shared) if policy.engine != Policy.Engine.OPENAI_COMPATIBLE else None
        self.state, self.reason = "loading", ""
        self.device_lost = False
        self._changed = changed
        self._engine: Engine | None = None
        self._jobs: dict[UUID, Job] = {}
        self._bell = threading.Event()
        self._bell.set()
        self._drain_until: float | None = None
        self._put_off: set[int] = set()  # requests that were given back once because people waited for another model
        self._load_after = 0.0
        self._look_after = self._tell_after = self._database_after = self._redis_after = 0.0
        self._back_off = iter(())
        self._awaited = Asked.NOTHING
        self._thread = threading.Thread(target=self._run, name=f"serving {policy.name}", daemon=True)

    def start(self) -> None:
        """Begin to load and serve."""
        self._thread.start()

    def ring(self) -> None:
        """Look now; from any thread."""
        self._bell.set()

    def drain(self, seconds: float) -> None:
        """Claim nothing more, finish what can be finished in that time, give the rest back, and end."""
        until = time.monotonic() + seconds
        self._drain_until = until if self._drain_until is None else min(until, self._drain_until)
        self._bell.set()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        """False when the thread has ended."""
        return self._thread.is_alive()

    def told(self) -> dict:
        """What the worker's sign of life says of this policy; from any thread."""
        engine = self._engine
        return {
            "policy": self.policy.name,
            "state": self.state,
            "reason": self.reason,
            "in_flight": sum(job.request.n for job in list(self._jobs.values())),
            "capacity": engine.capacity if engine else 0,
            "counters": self.counters.read(),
        }

    # The thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._drain_until is None or (self._jobs and time.monotonic() < self._drain_until):
            try:
                self._turn()
            # Whatever is wrong with one turn must not end the serving of all.
            except Exception:
                logger.exception("A turn of policy %s failed", self.policy.name)
                time.sleep(1)
        self._give_back()
        if self._engine:
            self._engine.close()
        if self._place:
            self._place.give_up()

    def _turn(self) -> None:
        if any(job.closing for job in self._jobs.values()):
            self._with_database(self._close_what_is_over)
        if not self._ready():
            self._bell.wait(min(1.0, settings.WORKER_POLL_SECONDS))
            return
        self._tell_whether_it_is_away()
        if self._bell.is_set() or time.monotonic() >= self._look_after:
            self._bell.clear()
            # Often enough that a lease outlives two looks that fail.
            self._look_after = time.monotonic() + min(settings.WORKER_POLL_SECONDS, settings.SAMPLING_LEASE_SECONDS / 3)
            # In this order: a job that was lost may be the next one that is claimed.
            self._with_database(self._renew)
            self._with_database(self._claim)
            self._keep_or_make_room()
        if self._jobs:
            self._listen()
        else:
            self._bell.wait(settings.WORKER_POLL_SECONDS)

    def _listen(self) -> None:
        """Take what the engine wrote, and tell it."""
        # What somebody waits for: the first words of a text, and its end. One publication for all texts of a job.
        awaited = {job.token: job for chunk in self._engine.read(LISTEN_SECONDS) if (job := self._take(chunk))}
        for job in awaited.values():
            self._publish(job, job.news())
        now = time.monotonic()
        if now >= self._tell_after:
            for job in self._jobs.values():
                if job.request.assignment_id and not job.closing:
                    self._publish(job, job.news())
            # With many streams it speaks more rarely: it shares one processor's attention with the engine.
            self._tell_after = now + max(TELL_SECONDS, 4 * (time.monotonic() - now))
        if not self._engine.alive():
            self._engine_broke()

    def _take(self, chunk: Chunk) -> Job | None:
        """Add a piece to its job, which is returned when its page should hear of it at once."""
        job = self._jobs.get(chunk.key[1])
        if job is None or job.closing:
            # It was stopped or lost while this was on its way.
            return None
        if chunk.finish in ("error", "refused"):
            self.counters.ended(chunk.finish)
        if chunk.finish == "error":
            self._stop_sampling(job)
            job.closing = (generation.fail, {"reason": chunk.error, "again": chunk.again})
            return None
        if chunk.finish == "refused":
            self._stop_sampling(job)
            job.closing = (generation.refuse, {"reason": chunk.error})
            return None
        awaited = self._count(job, chunk)
        if job.finished():
            job.closing = (generation.complete, {"sampled": job.sampled(), "template_hash": job.template_hash})
        return job if awaited and job.request.assignment_id else None

    def _count(self, job: Job, chunk: Chunk) -> bool:
        """Have the job take a piece, and count what is new of it."""
        text = job.texts[chunk.key[2]]
        first, before = not job.began, (text.prompt_tokens, text.completion_tokens)
        awaited = job.take(chunk)
        self.counters.wrote(prompt_tokens=text.prompt_tokens - before[0], tokens=text.completion_tokens - before[1])
        if first:
            self.counters.began(job)
        if chunk.finish:
            self.counters.ended(chunk.finish)
        return awaited

    def _stop_sampling(self, job: Job) -> None:
        for key, text in zip(job.engine_keys(), job.texts, strict=True):
            if not text.finish:
                self._engine.cancel(key)

    # The engine -------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        """Whether there is an engine, after loading one where it is time to."""
        if self._engine:
            return True
        again = LOAD_AGAIN_AT_BELL_SECONDS - LOAD_AGAIN_SECONDS if self._bell.is_set() else 0
        if time.monotonic() < self._load_after + again:
            self._bell.clear()
            return False
        try:
            if not self._has_room():
                return False
            self._say("loading")
            self._engine = self._load()
        # Beside LoadError what nobody thought of; the site must say that there are no replies in both cases.
        except Exception as error:
            logger.error("Policy %s: %s", self.policy.name, error, exc_info=not isinstance(error, LoadError))
            self.counters.failed("load")
            if self._place:
                self._place.left(failed=True)
            self._load_after = time.monotonic() + LOAD_AGAIN_SECONDS
            self._bell.clear()
            self._say("failed", str(error))
            return False
        self.counters.loaded()
        self._say("ready")
        self._bell.set()
        return True

    def _load(self) -> Engine:
        if self._place:
            return self._place.load()
        return registry.meet(location=self.policy.location, server=self._server())

    def _has_room(self) -> bool:
        """Whether the model's room is reserved, so that it must be loaded now."""
        if not self._place:
            return True
        self._bell.clear()
        self._with_database(self._see_what_waits)
        turn = self._place.turn(self._awaited)
        if turn in (Turn.WAIT, Turn.REST):
            self._say("waiting" if turn is Turn.WAIT else "asleep")
        return turn is Turn.LOAD

    def _see_what_waits(self) -> None:
        urgency = generation.most_urgent(policy_id=self.policy.pk)
        by_people = urgency is not None and urgency < generation.BULK
        self._awaited = Asked.NOTHING if urgency is None else Asked.BY_PEOPLE if by_people else Asked.BULK

    def _keep_or_make_room(self) -> None:
        """Say what the model has to do, and put it down once it has finished and others come next."""
        if not self._place or self._drain_until is not None:
            return
        by_people = any(not job.bulk for job in self._jobs.values())
        asked = Asked.BY_PEOPLE if by_people else Asked.BULK if self._jobs else Asked.NOTHING
        last = self._place.turn(asked) is Turn.LAST
        if last and self._place.hurries():
            # Once: what was given back for people already is finished the next time, or it never would be.
            begun = [job for job in self._jobs.values() if job.bulk and not job.closing]
            again = [job for job in begun if job.request.pk not in self._put_off]
            self._put_off |= {job.request.pk for job in again}
            self._with_database(lambda: self._hand_back(again))
        if last and not self._jobs:
            self._put_down()
        else:
            self._say("waiting" if last else "ready")

    def _put_down(self) -> None:
        logger.info("Policy %s: its model makes room for another one", self.policy.name)
        engine, self._engine = self._engine, None
        engine.close()
        self._place.left()
        self.counters.swapped()
        self._say("asleep")

    def _server(self) -> Server:
        policy = self.policy
        return Server(
            served_as=policy.served_as,
            key_variable=policy.key_variable,
            concurrency=policy.concurrency,
            context_tokens=policy.context_tokens,
            honours_seed=policy.honours_seed,
            thinking=policy.thinking,
        )

    def _tell_whether_it_is_away(self) -> None:
        """A server that does not answer is told as a model that cannot be loaded; what waits is claimed after that."""
        reason = self._engine.away()
        if reason == self.reason:
            return
        if reason:
            logger.error("Policy %s: %s", self.policy.name, reason)
        else:
            self._bell.set()
        self._say("failed" if reason else "ready", reason)

    def _engine_broke(self) -> None:
        logger.error("The engine of policy %s broke; another one is made", self.policy.name)
        self.counters.failed("engine")
        for job in self._jobs.values():
            job.closing = job.closing or (generation.fail, {"reason": "The engine broke.", "again": True})
        broken, self._engine = self._engine, None
        self._load_after = 0.0
        if broken.device_lost:
            self._lose_the_device()
        else:
            self._say("loading")
        broken.close()
        if self._place:
            self._place.left()

    def _lose_the_device(self) -> None:
        """Serve no more: no model can be loaded in this process. What was in flight goes back, as after any break."""
        self.device_lost = True
        self._load_after = float("inf")
        self.drain(settings.SAMPLING_LEASE_SECONDS)
        self._say("failed", "The device of the model was lost; the worker starts again.")

    def _say(self, state: str, reason: str = "") -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._changed()

    # The record -------------------------------------------------------------------------------------

    def _with_database(self, act: Callable[[], None]) -> None:
        """Do something with the database, unless it was away a moment ago."""
        if time.monotonic() < self._database_after:
            return
        try:
            act()
            self._back_off = iter(BACK_OFF_SECONDS)
        except AWAY as error:
            pause = next(self._back_off, BACK_OFF_SECONDS[-1])
            logger.warning("The database is away (%s); again in %s s", " ".join(str(error).split()), pause)
            self._database_after = time.monotonic() + pause
        finally:
            # Back into the pool: this thread sleeps most of the time.
            close_old_connections()

    def _claim(self) -> None:
        if self._drain_until is not None or self._engine.away() or (self._place and self._place.makes_room()):
            return
        if any(job.apart for job in self._jobs.values()):
            self._begin_apart()
            return
        in_flight = sum(job.request.n for job in self._jobs.values())
        in_bulk = sum(job.request.n for job in self._jobs.values() if job.bulk)
        capacity = self._engine.capacity
        claimed = self._claim_texts(capacity - in_flight, int(capacity * settings.WORKER_BULK_SHARE) - in_bulk)
        if not claimed and not self._jobs:
            claimed = self._claim_texts(LARGEST_REQUEST, LARGEST_REQUEST)
        for request in claimed:
            self._drop_earlier_attempt(request)
            # Of servers nothing breaks here; there a second attempt says nothing about the request.
            job = Job(request, request.claim_token, apart=bool(self._place) and request.attempt > 1)
            self._jobs[job.token] = job
            if not job.apart:
                self._begin(job)
        self._begin_apart()

    def _begin_apart(self) -> None:
        """Begin what was tried before, once nothing else is in the engine; nothing is claimed until it is over.

        An engine that broke, or a worker that died, may have done so because of one request. It is found out while it
        can take no other with it.
        """
        jobs = list(self._jobs.values())
        if len(jobs) == 1 and jobs[0].apart and not jobs[0].begun:
            self._begin(jobs[0])

    def _claim_texts(self, limit: int, bulk_limit: int) -> list[GenerationRequest]:
        return generation.claim(
            policy_id=self.policy.pk,
            worker=self.worker,
            limit=max(0, limit),
            bulk_limit=max(0, bulk_limit),
            retries_apart=bool(self._place),
        )

    def _drop_earlier_attempt(self, request: GenerationRequest) -> None:
        """What this loop claims again it has lost meanwhile, even where no renewal has told it so."""
        for token, job in list(self._jobs.items()):
            if job.request.pk == request.pk:
                self._stop_sampling(job)
                del self._jobs[token]

    def _begin(self, job: Job) -> None:
        request, job.begun = job.request, True
        if request.attempt > 1:
            self._publish(job, [job.event("reset", index=text.index) for text in job.texts])
        try:
            rendered = self._engine.render(request.messages)
            sampling = Sampling(**request.sampling)
        except (ValueError, TypeError) as error:
            job.closing = (generation.fail, {"reason": str(error), "again": False})
            return
        job.template_hash = rendered.template_hash
        for key, text in zip(job.engine_keys(), job.texts, strict=True):
            if self._engine.honours_seed:
                text.seed = secrets.randbelow(2**31)
            self._engine.submit(key, rendered, replace(sampling, seed=text.seed), urgent=not job.bulk)

    def _renew(self) -> None:
        # A job that is over still needs its lease until the record has heard so.
        if not self._jobs:
            return
        renewal = generation.renew(held={job.request.pk: token for token, job in self._jobs.items()})
        for token, job in list(self._jobs.items()):
            if job.request.pk in renewal.lost:
                self._stop_sampling(job)
                del self._jobs[token]
            elif job.request.pk in renewal.cancelled and not job.closing:
                self._stop_sampling(job)
                self._publish(job, job.news())
                self.counters.ended("stopped", sum(not text.finish for text in job.texts))
                stopped = {"sampled": job.sampled(), "template_hash": job.template_hash}
                job.closing = (generation.close_cancelled, stopped)

    def _close_what_is_over(self) -> None:
        for token, job in list(self._jobs.items()):
            if job.closing is None:
                continue
            close, details = job.closing
            try:
                stored = close(request_id=job.request.pk, token=token, **details)
            except AWAY:
                raise
            # Else one result that cannot be stored would keep those of all others waiting.
            except Exception as error:
                logger.exception("The result of %s could not be stored", job.request)
                if close is not generation.fail:
                    reason = f"The result could not be stored: {error}"
                    job.closing = (generation.fail, {"reason": reason, "again": False})
                    continue
                stored = False
            del self._jobs[token]
            self._put_off.discard(job.request.pk)
            # There is room for another.
            self._bell.set()
            if stored and (close is generation.fail or stored == State.FAILED):
                self.counters.failed("request")
            if stored and job.request.assignment_id:
                self._tell_the_end(job)

    def _tell_the_end(self, job: Job) -> None:
        """Publish how a request ended; nothing where it waits for another attempt."""
        state, reason = GenerationRequest.objects.values_list("state", "reason").get(pk=job.request.pk)
        if state in TOLD_AS:
            self._publish(job, [*job.news(), job.event(TOLD_AS[state], reason=reason)])

    def _give_back(self) -> None:
        self._database_after = 0.0
        self._with_database(lambda: self._hand_back(list(self._jobs.values())))
        if self._engine:
            for job in self._jobs.values():
                self._stop_sampling(job)
        self._jobs = {}

    def _hand_back(self, jobs: list[Job]) -> None:
        """Let jobs that are not over wait again; the attempt does not count."""
        generation.release(held={job.request.pk: job.token for job in jobs})
        for job in jobs:
            if self._engine:
                self._stop_sampling(job)
            # The next attempt has the same number.
            self._publish(job, [job.event("reset", index=text.index) for text in job.texts])
            self._jobs.pop(job.token, None)

    def _publish(self, job: Job, events: list[dict]) -> None:
        """Best effort; where Redis hangs, not for every word of every job."""
        if not events or not job.request.assignment_id or time.monotonic() < self._redis_after:
            return
        began = time.monotonic()
        streams.publish(job.request.assignment_id, events)
        if time.monotonic() - began > SLOW_REDIS_SECONDS:
            self._redis_after = time.monotonic() + QUIET_SECONDS
