"""Exports, imports, trainings and passages of this worker: each is a management command in a process of its own, so
that it can be stopped and takes nothing from the loops beside it.

A bell only says where to look. Where there is room the job is begun; where there is none the bell is forgotten, because
whoever has done a job looks for the next, and the sweep rings again.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from annotate import bell, jobs
from annotate.embedded import die_with_parent

logger = logging.getLogger(__name__)

COMMANDS = {"export": "export", "import": "import_conversations", "training": "train", "passage": "iterate"}
"""By kind of job, the management command that goes on with one."""

POLL_SECONDS = 0.2
LOOK_SECONDS = 2.0
"""Pause between two looks whether somebody asked to stop what runs."""

LAST_BYTES = 4000
"""So much of the end of a command's output is kept."""


def command(kind: str, pk: int) -> list[str]:
    """The command line that runs a job."""
    return [sys.executable, "manage.py", COMMANDS[kind], "--go-on", str(pk)]


class JobProcesses:
    """The processes of this worker's jobs, each watched by a thread. `limits` says of which queue how many at once."""

    def __init__(self, limits: dict[str, int], command: Callable[[str, int], list[str]] = command):
        self._limits = {bell.KINDS_OF_JOBS[queue]: limit for queue, limit in limits.items()}
        self._command = command
        self._lock = threading.Lock()
        self._watches: dict[tuple[str, int], threading.Thread] = {}
        self._draining = threading.Event()
        self._kill_after = float("inf")

    def ring(self, kind: str, pk: int) -> None:
        """Run a job, where there is room and nobody else runs it. Returns at once."""
        with self._lock:
            kinds, limit = self._alike(kind)
            running = sum(other in kinds for other, _ in self._watches)
            if self._draining.is_set() or running >= limit or (kind, pk) in self._watches:
                return
            watch = threading.Thread(target=self._watch, args=(kind, pk), name=f"{kind} {pk}", daemon=True)
            self._watches[kind, pk] = watch
        watch.start()

    def running(self) -> int:
        """How many there are now."""
        return len(self._watches)

    def drain(self, seconds: float) -> None:
        """Begin nothing more, and tell what runs to end; what has not after so many seconds is killed. Returns at
        once."""
        self._kill_after = time.monotonic() + seconds
        self._draining.set()

    def join(self, timeout: float) -> None:
        """Wait until everything has ended."""
        until = time.monotonic() + timeout
        for watch in list(self._watches.values()):
            watch.join(max(0, until - time.monotonic()))

    def _alike(self, kind: str) -> tuple[Collection[str], int]:
        """The kinds that share their places with this one, and how many places they have."""
        return next(((kinds, limit) for kinds, limit in self._limits.items() if kind in kinds), ((kind,), 0))

    def _watch(self, kind: str, pk: int) -> None:
        """Run the job in this thread; afterwards look for another."""
        try:
            attempts = self._asked(lambda: jobs.attempts_of(kind, pk))
            if attempts is not None:
                self._run(kind, pk, attempts)
        except OSError as error:
            logger.exception("The %s %s could not be begun", kind, pk)
            reason = str(error)
            self._asked(lambda: jobs.did_not_begin(kind, pk, attempts=attempts, reason=reason))
        # Else its place would be taken until this worker ends.
        except Exception:
            logger.exception("The %s %s could not be run", kind, pk)
        finally:
            with self._lock:
                del self._watches[kind, pk]
        if self._draining.is_set():
            return
        # Not the same again: where it fails at once the sweep's pace is enough.
        others = [one for one in self._asked(lambda: jobs.waiting(10, self._alike(kind)[0])) or [] if one != (kind, pk)]
        for other in others:
            self.ring(*other)

    def _run(self, kind: str, pk: int, attempts: int) -> None:
        with tempfile.TemporaryFile() as output:
            child = subprocess.Popen(
                self._command(kind, pk),
                cwd=settings.BASE_DIR,
                # Else what it printed would stand behind its errors, as it is written out at its end.
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # It belongs to this thread, which waits for it to the end.
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
            try:
                self._wait(child, kind, pk)
            except BaseException:
                kill(child)
                raise
            told = last_lines(output)
        if child.returncode == 0:
            logger.info("The %s %s has ended", kind, pk)
            return
        if self._draining.is_set():
            return
        logger.error("The %s %s ended with %s:\n%s", kind, pk, child.returncode, told or "(it said nothing)")
        reason = told.rpartition("\n")[2] or f"its process ended with {child.returncode}"
        self._asked(lambda: jobs.did_not_begin(kind, pk, attempts=attempts, reason=reason))

    def _wait(self, child: subprocess.Popen, kind: str, pk: int) -> None:
        """Wait until the process has ended, and see to it that it does where it is to."""
        look_after, kill_after, told = time.monotonic() + LOOK_SECONDS, float("inf"), False
        token = None
        while True:
            try:
                child.wait(POLL_SECONDS)
                return
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if self._draining.is_set() and not told:
                child.terminate()
                told = True
            if now >= look_after:
                look_after = now + LOOK_SECONDS
                token = token or self._asked(lambda: jobs.token_of(kind, pk))
                is_to_end = self._asked(lambda token=token: _is_to_end(kind, pk, token))
                if is_to_end:
                    # It hears of it by itself, and ends in its own way.
                    kill_after = min(kill_after, now + settings.JOB_STOP_SECONDS)
                elif is_to_end is False:
                    kill_after = float("inf")
            if now >= min(kill_after, self._kill_after):
                logger.warning("The %s %s does not end by itself and is killed", kind, pk)
                kill(child)
                if now >= kill_after:
                    self._asked(lambda: jobs.stop_killed(kind, pk))

    def _asked(self, ask: Callable):
        """What the record says; None where it is away."""
        try:
            return ask()
        except (OperationalError, InterfaceError) as error:
            logger.warning("The record of jobs cannot be reached: %s", " ".join(str(error).split()))
            return None
        finally:
            close_old_connections()


def _is_to_end(kind: str, pk: int, token) -> bool:
    """Whether a person stopped the job, or its process, which held it under this token, has lost it: one that hangs
    would take the place of those that wait."""
    return jobs.is_to_stop(kind, pk) or (token is not None and jobs.was_let_go(kind, pk, token))


def kill(child: subprocess.Popen) -> None:
    """End a process and all that it started, at once."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def last_lines(output) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - LAST_BYTES))
    return output.read().decode(errors="replace").strip()
