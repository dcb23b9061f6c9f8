"""The configured Celery app, and the bell: a message that says "look" and carries only an id.

Ringing is best effort. A lost bell costs latency, because the sweep rings again; an extra one costs a query.
"""

import logging

from celery import Celery
from django.conf import settings
from django.db import transaction
from kombu import Connection
from kombu.pools import producers

logger = logging.getLogger(__name__)

QUEUE = "bothsides"
"""The queue of everything that is not one policy's."""

JOBS = "jobs"
"""The queue of exports and imports; a worker listens to it beside its policies'."""

TRAINING = "training"
"""The queue of trainings, of passages, which train, and of scoring: all want a machine that can, and on which models
lie. A worker that is to train listens to it too."""

KINDS_OF_JOBS = {JOBS: ("export", "import"), TRAINING: ("training", "passage")}
"""Of which kinds of jobs one hears on which queue."""

BELLS_AT_MOST = 10
"""Bells of one queue that lie unheard."""

app = Celery("bothsides", set_as_current=False)
app.conf.update(
    broker_url=settings.REDIS_URL,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"global_keyprefix": "bothsides:celery:"},
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=False,
    worker_hijack_root_logger=False,
    enable_utc=True,
    timezone="UTC",
    beat_schedule={
        "sweep": {
            "task": "worker.sweep",
            "schedule": settings.SWEEP_SECONDS,
            "options": {"queue": QUEUE, "expires": settings.SWEEP_SECONDS},
        }
    },
)

_ringing = Connection(
    settings.REDIS_URL,
    transport_options={
        "global_keyprefix": "bothsides:celery:",
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
        "max_retries": 0,
        "retry_on_timeout": False,
    },
)


def queue_of(policy_id: int) -> str:
    """The Celery queue of one policy."""
    return f"policy.{policy_id}"


def ring(policy_id: int) -> None:
    """Wake the workers of a policy once this transaction is committed."""
    transaction.on_commit(lambda: ring_now(policy_id), robust=True)


def ring_now(policy_id: int) -> None:
    """Wake the workers of a policy. Takes a second at most; a failure is logged, never raised."""
    _send("worker.look", [policy_id], queue_of(policy_id))


def ring_for_job(kind: str, job_id: int) -> None:
    """Have a worker run a job once this transaction is committed; `kind` is that of `jobs.KINDS`."""
    transaction.on_commit(lambda: ring_for_job_now(kind, job_id), robust=True)


def ring_for_job_now(kind: str, job_id: int) -> None:
    """Have a worker run a job. Takes a second at most; a failure is logged, never raised."""
    queue = next(queue for queue, kinds in KINDS_OF_JOBS.items() if kind in kinds)
    _send("worker.run_job", [kind, job_id], queue)


def ring_for_scores(project_id: int) -> None:
    """Have a worker score a project's candidates once this transaction is committed."""
    transaction.on_commit(lambda: ring_for_scores_now(project_id), robust=True)


def ring_for_scores_now(project_id: int) -> None:
    """Have a worker score a project's candidates. Takes a second at most; a failure is logged, never raised."""
    _send("worker.score", [project_id], TRAINING)


def _send(task: str, args: list, queue: str) -> None:
    try:
        with producers[_ringing].acquire(block=True, timeout=1) as producer:
            # Redis drops no message that expired unread. Where nobody listens the queue must not grow for ever;
            # where somebody does, one bell is as good as ten.
            if producer.channel.client.llen(queue) >= BELLS_AT_MOST:
                return
            app.send_task(task, args=args, queue=queue, producer=producer, expires=60, retry=False)
    except Exception as error:
        logger.warning("The bell of %s %s did not ring: %s", task, args, error)
