"""The scoring of this worker: a management command in a process of its own, one at a time and after all else.

A bell only says where to look. The process scores so many candidates at most, so that projects take turns, and keeps
each batch, so that it may be killed at any moment. It has a low priority: texts for people come first.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from annotate import scores
from annotate.embedded import die_with_parent
from annotate.models import Project, TrainingRun
from worker.job_processes import kill, last_lines

logger = logging.getLogger(__name__)

MOST = 1000
"""Candidates that are scored before another project has its turn: loading a model takes as long as scoring some."""
LONGEST_SECONDS = 3600
"""A process that takes longer is killed; what it has kept stays."""
AGAIN_SECONDS = 300
"""A model that could not be used is tried again after so long, and each time that a worker starts."""
APART_SECONDS = 20.0
"""Between the beginnings of two processes at least: where comparisons open all the time, one scores several."""
POLL_SECONDS = 0.2
RENEW_SECONDS = 5.0
NICENESS = 10


def command(project: Project) -> list[str]:
    """The command line that scores a project."""
    return [sys.executable, "manage.py", "score", "--project", project.slug, "--most", str(MOST)]


class ScoringProcess:
    """Scores the projects that are rung for, one after another, in a thread that watches the process."""

    def __init__(self, command: Callable[[Project], list[str]] = command):
        self._command = command
        self._holder = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._rung: list[int] = []
        self._watch: threading.Thread | None = None
        self._draining = threading.Event()
        self._began = float("-inf")
        self._failed: dict[int, tuple[float, str]] = {}  # by run, when and why

    def ring(self, project_id: int) -> None:
        """Look whether a project has something to score. Returns at once."""
        with self._lock:
            if self._draining.is_set():
                return
            if project_id not in self._rung:
                self._rung.append(project_id)
            if self._watch is None:
                self._watch = threading.Thread(target=self._run, name="scoring", daemon=True)
                self._watch.start()

    def drain(self) -> None:
        """Begin nothing more, and end what runs. Returns at once."""
        self._draining.set()

    def join(self, timeout: float) -> None:
        """Wait until it has ended."""
        if watch := self._watch:
            watch.join(timeout)

    def _run(self) -> None:
        """Score what was rung for, until nothing is."""
        while True:
            with self._lock:
                if self._draining.is_set() or not self._rung:
                    self._watch = None
                    return
                project_id = self._rung.pop(0)
            try:
                if self._score(project_id):
                    # There may be more, of which no bell told while it ran.
                    self.ring(project_id)
            except (OperationalError, InterfaceError) as error:
                logger.warning("What is to be scored cannot be read: %s", " ".join(str(error).split()))
            # Else nothing would be scored until this worker ends.
            except Exception:
                logger.exception("Project %s could not be scored", project_id)
            finally:
                close_old_connections()

    def _score(self, project_id: int) -> bool:
        """Score one project, where something is missing and nobody else does. Whether that went well."""
        project = Project.objects.filter(pk=project_id).select_related("scored_by").first()
        if project is None or project.scored_by is None or self._failed_lately(project.scored_by):
            return False
        if not scores.missing(project=project, run=project.scored_by, limit=1):
            return False
        close_old_connections()
        self._draining.wait(max(0.0, self._began + APART_SECONDS - time.monotonic()))
        if self._draining.is_set() or not scores.hold(project_id=project_id, holder=self._holder):
            return False
        self._began = time.monotonic()
        try:
            code, told = self._wait(project)
        finally:
            scores.let_go(project_id=project_id, holder=self._holder)
        if code is not None:
            last = told.rpartition("\n")[2].removeprefix("Refused: ") or f"its process ended with {code}"
            self._note(project.scored_by, last if code else "")
        return code in (0, None) and not self._draining.is_set()

    def _failed_lately(self, run: TrainingRun) -> bool:
        at, _ = self._failed.get(run.pk, (float("-inf"), ""))
        return time.monotonic() - at < AGAIN_SECONDS

    def _note(self, run: TrainingRun, reason: str) -> None:
        """Say why a model does not score, once in the log, and on the page of its project."""
        _, before = self._failed.pop(run.pk, (0.0, ""))
        if reason:
            self._failed[run.pk] = (time.monotonic(), reason)
            if reason != before:
                logger.error("The reward model of run %s does not score: %s", run.pk, reason)
        scores.tell_trouble(run=run, reason=reason)

    def _wait(self, project: Project) -> tuple[int | None, str]:
        """The exit status of the process that scores, None where it was made to end, and the end of what it said."""
        with tempfile.TemporaryFile() as output:
            child = subprocess.Popen(
                self._command(project),
                cwd=settings.BASE_DIR,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # No session of its own: there Linux would give it as much as all of this worker, whatever its priority.
                process_group=0,
                # It belongs to this thread, which waits for it to the end.
                preexec_fn=_begins(),
            )
            try:
                code = self._watch_over(child, project)
            finally:
                kill(child)
            return code, last_lines(output)

    def _watch_over(self, child: subprocess.Popen, project: Project) -> int | None:
        """Wait for the end of the process; None where it is not to go on."""
        began = renewed = time.monotonic()
        while not self._draining.is_set():
            try:
                return child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if now - began > LONGEST_SECONDS:
                logger.warning("Scoring takes too long and is killed; it is gone on with")
                return None
            if now - renewed > RENEW_SECONDS:
                renewed = now
                scores.hold(project_id=project.pk, holder=self._holder)
                if not self._is_still_wanted(project):
                    return None
        return None

    def _is_still_wanted(self, project: Project) -> bool:
        """Whether the same model is to score the project."""
        try:
            return Project.objects.filter(pk=project.pk, scored_by=project.scored_by).exists()
        except (OperationalError, InterfaceError):
            return True
        finally:
            close_old_connections()


def _begins() -> Callable[[], None]:
    """What the process does before its program begins: it comes after all else, and ends with its parent."""
    die = die_with_parent(signal.SIGTERM)

    def begin() -> None:
        os.nice(NICENESS)
        if die is not None:
            die()

    return begin
