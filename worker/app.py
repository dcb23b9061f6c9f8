"""The Celery worker: `celery -A worker.app worker --pool threads --queues bothsides,jobs,training`, and beat likewise.

Tasks only ring. The loops that serve the policies are threads of this process, from its start to its end; the
queues of their bells are subscribed to as policies come. Exports, imports, trainings and scoring are processes of their
own, watched by threads; a worker without the queues `jobs` and `training` runs none.
"""

import os
import socket
import time

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotate.settings")
django.setup()

from celery import signals  # noqa: E402
from celery.platforms import EX_FAILURE  # noqa: E402
from django.conf import settings  # noqa: E402

from annotate import bell, streams  # noqa: E402
from annotate.bell import app  # noqa: E402
from worker.job_processes import JobProcesses  # noqa: E402
from worker.process import WorkerProcess  # noqa: E402
from worker.scoring_process import ScoringProcess  # noqa: E402

app.conf.imports = ["worker.tasks"]

JOB_DRAIN_SECONDS = 10
"""How long an export, import or training that is told to end may take to let go of its job; then it is killed."""

_process: WorkerProcess | None = None
_job_processes: JobProcesses | None = None
_scoring_process: ScoringProcess | None = None


def process() -> WorkerProcess | None:
    """The loops of this process; None in a process that is no worker, and before it is ready."""
    return _process


def job_processes() -> JobProcesses | None:
    """The exports, imports and trainings that this process looks after; None as above."""
    return _job_processes


def scoring_process() -> ScoringProcess | None:
    """What scores candidates beside this process; None as above."""
    return _scoring_process


@signals.worker_ready.connect
def _start(sender, **kwargs) -> None:
    # It is ready anew after each time that the broker was away.
    global _process, _job_processes, _scoring_process
    if _process is None:
        _job_processes = JobProcesses({bell.JOBS: settings.WORKER_JOBS, bell.TRAINING: 1})
        _scoring_process = ScoringProcess()
        _process = WorkerProcess(sender, _job_processes)
        _process.start()


@signals.after_task_publish.connect(sender="worker.sweep")
def _tick(**kwargs) -> None:
    # Beat alone sends this task.
    streams.tick(socket.gethostname())


@signals.worker_shutting_down.connect
def _drain(**kwargs) -> None:
    if _process:
        _scoring_process.drain()
        _job_processes.drain(JOB_DRAIN_SECONDS)
        _process.drain(settings.WORKER_DRAIN_SECONDS)


@signals.worker_shutdown.connect
def _join(sender, **kwargs) -> None:
    if _process:
        if _process.device_lost:
            sender.exitcode = EX_FAILURE
        # Beside the time for what runs, some for giving back the rest.
        until = time.monotonic() + settings.WORKER_DRAIN_SECONDS + 10
        _process.join(until - time.monotonic())
        _job_processes.join(max(JOB_DRAIN_SECONDS, until - time.monotonic()))
        _scoring_process.join(1)
