"""The processes of the site: their commands, and one supervised child."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
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
# Beside one that runs the exports, imports and trainings of this machine.
ANOTHER_WORKER = tuple(argument.removesuffix(",jobs,training") for argument in WORKER)
BEAT = ("-m", "celery", "-A", "worker.app", "beat", "--pidfile=")

LONGEST_PAUSE_SECONDS = 30
# A child that ran this long and then ended is not in the loop of dying that the pauses are for.
SETTLED_SECONDS = 60
LARGEST_LOG_BYTES = 20_000_000


@dataclass(frozen=True)
class Worker:
    """A worker process of one machine: its name, its command line, and the variables that are its own."""

    name: str
    arguments: Sequence[str]
    variables: dict[str, str] = field(default_factory=dict)


def workers(count: int, *, device: str, environment: Mapping[str, str]) -> list[Worker]:
    """The worker processes of this machine: `count`, or with 0 one a visible GPU; one where there is none.

    Several each have a GPU of their own, as far as there are enough, and only the first runs exports, imports and
    trainings. `device` is WORKER_DEVICE: where it names a GPU, or none, there is nothing to share out.
    """
    cards = gpus(environment) if device in ("auto", "cuda") else []
    count = count or max(1, len(cards))
    if count == 1:
        return [Worker("worker", WORKER)]
    made = []
    for number in range(count):
        name = f"worker-{number + 1}"
        arguments = (*(ANOTHER_WORKER if number else WORKER), "--hostname", f"{name}@%h")
        card = {"CUDA_VISIBLE_DEVICES": cards[number % len(cards)]} if cards else {}
        made.append(Worker(name, arguments, card))
    return made


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that processes may use, as CUDA_VISIBLE_DEVICES names them; of a machine without a driver none."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [card.strip() for card in visible.split(",")]
        # As CUDA reads it: the first that is none ends the list.
        return named[: next((place for place, card in enumerate(named) if card in ("", "-1")), None)]
    if not shutil.which("nvidia-smi", path=environment.get("PATH")):
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], env=dict(environment), capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        # A driver that does not answer: torch will find no GPU either.
        return []
    return [str(number) for number, _ in enumerate(line for line in listed.stdout.splitlines() if line[:4] == "GPU ")]


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
    _asked: bool = field(default=False, repr=False)
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
        self._started, self._asked = time.monotonic(), False

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

    def ask_to_end(self) -> bool:
        """Asks the process to end, and waits for nothing. Whether it was asked now: it is only once."""
        if not self.running() or self._asked:
            return False
        self._asked = True
        self.process.terminate()
        return True

    def stop(self) -> None:
        """Asks the process to end, waits for `patience` seconds, then ends its whole group."""
        if self.running():
            self.ask_to_end()
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
