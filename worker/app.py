"""The Celery worker: `celery -A worker.app worker --pool threads --queues bothsides`, and beat likewise.

Tasks only ring. The loops that serve the policies are threads of this process, from its start to its end; the
queues of their bells are subscribed to as policies come.
"""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotate.settings")
django.setup()

from celery import signals  # noqa: E402
from django.conf import settings  # noqa: E402

from annotate.bell import app  # noqa: E402
from worker.process import WorkerProcess  # noqa: E402

app.conf.imports = ["worker.tasks"]

_process: WorkerProcess | None = None


def process() -> WorkerProcess | None:
    """The loops of this process; None in a process that is no worker, and before it is ready."""
    return _process


@signals.worker_ready.connect
def _start(sender, **kwargs) -> None:
    # It is ready anew after each time that the broker was away.
    global _process
    if _process is None:
        _process = WorkerProcess(sender)
        _process.start()


@signals.worker_shutting_down.connect
def _drain(**kwargs) -> None:
    if _process:
        _process.drain(settings.WORKER_DRAIN_SECONDS)


@signals.worker_shutdown.connect
def _join(**kwargs) -> None:
    if _process:
        # Beside the time for what runs, some for giving back the rest.
        _process.join(settings.WORKER_DRAIN_SECONDS + 10)
