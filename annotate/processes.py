"""The processes of the site: their commands, and one supervised child."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from annotate.embedded import die_with_parent

WEB = ("-m", "gunicorn", "--config", "python:annotate.web")
# Workers need not know of each other, and looking for others takes a second at the start.
ALONE = ("--without-mingle", "--without-gossip")
WORKER = (
    "-m",
    "celery",
    "-A",
    "worker.app",
    "worker",
    "--pool",
    "threads",
    "--queues",
    "bothsides,jobs,training",
    *ALONE,
)
BEAT = ("-m", "celery", "-A", "worker.app", "beat", "--pidfile=")

LONGEST_PAUSE_SECONDS = 30
# A child that ran this long and then ended is not in the loop of dying that the pauses are for.
SETTLED_SECONDS = 60
LARGEST_LOG_BYTES = 20_000_000


@dataclass
class Child:
    """A Python process in a group of its own, so that Ctrl-C in the terminal does not reach it.

    `patience` is how many seconds it may take to end when asked to.
    """

    name: str
    arguments: Sequence[str]
    folder: Path
    environment: dict[str, str]
    log: Path
    patience: float
    process: subprocess.Popen | None = None
    _failures: int = field(default=0, repr=False)
    _started: float = field(default=0, repr=False)
    _next_start: float = field(default=0, repr=False)

    def start(self) -> None:
        """Starts the process; its output is appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
            os.replace(self.log, self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self._started = time.monotonic()

    def running(self) -> bool:
        """True while the process is there."""
        return self.process is not None and self.process.poll() is None

    def keep_running(self) -> str:
        """Starts a process that has ended again, each time after a longer pause.

        Returns a line to tell when it is found dead, and an empty string otherwise.
        """
        if self.running():
            return ""
        if self.process is not None:
            settled = time.monotonic() - self._started > SETTLED_SECONDS
            self._failures = 1 if settled else self._failures + 1
            pause = min(2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)
            self._next_start = time.monotonic() + pause
            code = self.process.returncode
            self.process = None
            return f"{self.name} ended ({_ending(code)}); starting it again in {pause} s; see {self.log}"
        if time.monotonic() >= self._next_start:
            self.start()
        return ""

    def stop(self) -> None:
        """Asks the process to end, waits for `patience` seconds, then ends its whole group."""
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(self.patience)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def kill(self) -> None:
        """Ends the process and all that it started, at once."""
        if self.running():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
