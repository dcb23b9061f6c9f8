"""What one worker process holds: a serving loop for each of its policies, and a sign of life in Redis."""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections import defaultdict

import redis
from celery.worker.consumer import Consumer
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from annotate import bell, streams
from annotate.models import Policy
from worker.counters import Counters
from worker.job_processes import JobProcesses
from worker.places import memory_of_this_process
from worker.serving import Serving

logger = logging.getLogger(__name__)


class WorkerProcess:
    """The loops of this process. `consumer` is Celery's, which is told which policies' bells to listen to; `jobs` are
    the exports and imports that run beside them."""

    def __init__(self, consumer: Consumer | None = None, jobs: JobProcesses | None = None):
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._consumer, self._jobs = consumer, jobs
        self._since = time.time()
        self._counters: defaultdict[int, Counters] = defaultdict(Counters)
        self._loops: dict[int, Serving] = {}
        self._memory = memory_of_this_process(self.ring)
        self.device_lost = False
        self._ended = threading.Event()
        self._saying = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Serve the policies, and from now on also those that are added."""
        self._thread.start()

    def ring(self, policy_id: int) -> None:
        """Wake a policy's loop, if this process has it."""
        loop = self._loops.get(policy_id)
        if loop:
            loop.ring()

    def drain(self, seconds: float) -> None:
        """Claim nothing more; returns at once. What runs has so many seconds."""
        self._ended.set()
        for loop in list(self._loops.values()):
            loop.drain(seconds)

    def join(self, timeout: float) -> None:
        """Wait until all loops have ended, and take the sign of life away."""
        until = time.monotonic() + timeout
        for loop in list(self._loops.values()):
            loop.join(max(0, until - time.monotonic()))
        self._thread.join(max(0, until - time.monotonic()))
        try:
            streams.client().delete(self._key())
        except redis.RedisError as error:
            logger.warning("The heartbeat stays until it expires: %s", error)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._join_policies()
            except (OperationalError, InterfaceError) as error:
                logger.warning("The policies cannot be read: %s", " ".join(str(error).split()))
            finally:
                close_old_connections()
            self._say()
            self._ended.wait(settings.WORKER_HEARTBEAT_SECONDS)

    def _join_policies(self) -> None:
        """A loop for each policy that is to be served and has none; no loop for any other."""
        wanted = Policy.objects.filter(active=True)
        if settings.WORKER_POLICIES:
            wanted = wanted.filter(name__in=settings.WORKER_POLICIES)
        wanted = {policy.pk: policy for policy in wanted}
        for policy_id, loop in list(self._loops.items()):
            if not loop.is_alive():
                del self._loops[policy_id]
            elif policy_id not in wanted:
                loop.drain(settings.SAMPLING_LEASE_SECONDS)
                self._listen_to(policy_id, listen=False)
        new = sorted(set(wanted) - set(self._loops))
        for policy_id in new:
            loop = Serving(wanted[policy_id], self.name, self._say, self._counters[policy_id], self._memory)
            self._loops[policy_id] = loop
        for policy_id in new:
            self._loops[policy_id].start()
            self._listen_to(policy_id, listen=True)

    def _listen_to(self, policy_id: int, *, listen: bool) -> None:
        if self._consumer:
            act = self._consumer.add_task_queue if listen else self._consumer.cancel_task_queue
            self._consumer.call_soon(act, bell.queue_of(policy_id))

    def _key(self) -> str:
        return f"{streams.HEARTBEAT}{self.name}"

    def _say(self) -> None:
        """Write the sign of life, one key: which policies this process holds, how each stands, and what it counted."""
        with self._saying:
            if self._ended.is_set():
                return
            policies = {str(policy_id): loop.told() for policy_id, loop in list(self._loops.items())}
            jobs = self._jobs.running() if self._jobs else 0
            said = json.dumps({"policies": policies, "jobs": jobs, "since": self._since, "at": time.time()})
            expires = max(1, round(3 * settings.WORKER_HEARTBEAT_SECONDS * 1000))
            try:
                streams.client().set(self._key(), said, px=expires)
            except redis.RedisError as error:
                logger.warning("The heartbeat was not written: %s", error)
        self._end_without_a_device()

    def _end_without_a_device(self) -> None:
        """Where the device of a model is lost, end as on SIGTERM, but with a failure, so that a supervisor starts a
        fresh process: this one can compute nothing on it any more.
        """
        if self._consumer and not self.device_lost and any(loop.device_lost for loop in list(self._loops.values())):
            logger.error("A device is lost: this worker ends, to be started again")
            self.device_lost = True
            os.kill(os.getpid(), signal.SIGTERM)
