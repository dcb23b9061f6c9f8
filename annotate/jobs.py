"""Jobs: how long work is begun, watched, stopped, and gone on with after a crash.

Whoever runs a job holds its token. A thread renews the lease and writes how far the work is, on a connection of its
own, because the work itself may be one long transaction. When a lease runs out the job can be begun again, and the
former holder, should it still be alive, learns of it and stops.
"""

import contextlib
import logging
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection
from django.db.models import F, Q
from django.utils import timezone

from annotate import bell
from annotate.errors import BothsidesError, Conflict
from annotate.models import Export, Import, Job

logger = logging.getLogger(__name__)

State = Job.State

KINDS: dict[str, type[Job]] = {"export": Export, "import": Import}
"""The kinds of jobs by name; `manage.py NAME… --go-on ID` runs one."""


class Stopped(BothsidesError):
    """A person asked to stop the job."""

    status = 409
    code = "stopped"


class Lost(BothsidesError):
    """The lease ran out and somebody else may have begun the job again."""

    status = 409
    code = "lost"


class Run:
    """A job while this process runs it."""

    def __init__(self, job: Job):
        self.job = job
        self.token = job.token
        self._end: BothsidesError | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {job}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Renew no more."""
        self._closed.set()
        self._thread.join()

    def tell(self, *, done: int, total: int | None = None, step: str | None = None) -> None:
        """Say how far the work is; cheap. Raises Stopped or Lost where it must not go on."""
        self.job.done = done
        if total is not None:
            self.job.total = total
        if step is not None:
            self.job.step = step
        if self._end:
            raise self._end

    def _renew(self) -> None:
        model, pk = type(self.job), self.job.pk
        while not self._closed.wait(settings.JOB_LEASE_SECONDS / 4):
            try:
                held = model.objects.filter(pk=pk, token=self.token).update(
                    lease_until=timezone.now() + timedelta(seconds=settings.JOB_LEASE_SECONDS),
                    step=self.job.step,
                    done=self.job.done,
                    total=self.job.total,
                )
                found = model.objects.filter(pk=pk).values_list("stop_asked", flat=True).first()
            except DatabaseError as error:
                logger.warning("The lease of %s was not renewed: %s", self.job, " ".join(str(error).split()))
                continue
            finally:
                close_old_connections()
            # A job that is made in a transaction which is still open cannot be seen from here.
            if found is not None and not held:
                self._end = Lost("Its lease ran out, and it was begun again elsewhere.")
            elif found:
                self._end = Stopped("It was stopped.")
        connection.close()


@contextlib.contextmanager
def running(job: Job) -> Iterator[Run]:
    """Begin a job and hold it while the block runs. Afterwards it is failed or stopped, unless `end` was called.

    Raises Conflict where it is running elsewhere or has ended. What the block raises is kept as the reason, and
    raised again.
    """
    _begin(job)
    run = Run(job)
    try:
        yield run
    except Lost:
        raise
    except BaseException as error:
        run.close()
        stopped = isinstance(error, Stopped | KeyboardInterrupt | SystemExit)
        told = error.message if isinstance(error, BothsidesError) else f"{type(error).__name__}: {error}"
        end(job, token=run.token, state=State.STOPPED if stopped else State.FAILED, reason=told)
        raise
    finally:
        run.close()


def _begin(job: Job) -> None:
    model, now, token = type(job), timezone.now(), uuid.uuid4()
    free = Q(state=State.WAITING) | Q(state=State.RUNNING, lease_until__lt=now)
    changed = model.objects.filter(free, pk=job.pk).update(
        state=State.RUNNING,
        token=token,
        lease_until=now + timedelta(seconds=settings.JOB_LEASE_SECONDS),
        attempt=F("attempt") + 1,
        started_at=now,
        reason="",
    )
    job.refresh_from_db()
    if not changed:
        raise Conflict(f"{job} is {job.state} and cannot be begun.")


def end(job: Job, *, token: uuid.UUID, state: str, reason: str = "", **fields) -> None:
    """End a running job under its token, with what its kind keeps beside. Raises Lost where it is not held any more."""
    changed = (
        type(job)
        .objects.filter(pk=job.pk, token=token, state=State.RUNNING)
        .update(
            state=state,
            reason=reason,
            token=None,
            lease_until=None,
            ended_at=timezone.now(),
            step="",
            done=job.done,
            total=job.total,
            **fields,
        )
    )
    if not changed:
        raise Lost("Its lease ran out, and it was begun again elsewhere.")
    job.refresh_from_db()


def put_back(job: Job) -> None:
    """Let a job that failed or was stopped be begun again, where it stopped. Raises Conflict for any other."""
    changed = (
        type(job)
        .objects.filter(pk=job.pk, state__in=[State.FAILED, State.STOPPED])
        .update(state=State.WAITING, ended_at=None, stop_asked=False)
    )
    if not changed:
        raise Conflict(f"{job} is {job.state}; only what failed or was stopped can be begun again.")
    job.refresh_from_db()


def ask_to_stop(job: Job) -> None:
    """Stop a job: one that waits at once, a running one as soon as its holder hears of it. Raises Conflict."""
    model = type(job)
    if model.objects.filter(pk=job.pk, state=State.WAITING).update(
        state=State.STOPPED, ended_at=timezone.now(), reason="It was stopped before it began.", stop_asked=True
    ):
        job.refresh_from_db()
        return
    if not model.objects.filter(pk=job.pk, state=State.RUNNING).update(stop_asked=True):
        job.refresh_from_db()
        raise Conflict(f"{job} is {job.state} already.")
    job.refresh_from_db()


def kind_of(job: Job) -> str:
    """The name of its kind."""
    return next(name for name, model in KINDS.items() if isinstance(job, model))


def ring(job: Job) -> None:
    """Have a worker look at a background job once this transaction is committed."""
    bell.ring_for_job(kind_of(job), job.pk)


def ring_for_waiting() -> int:
    """Ring for background jobs that wait, or whose holder died. How many were rung for."""
    rung = 0
    for kind, model in KINDS.items():
        waiting = Q(state=State.WAITING) | Q(state=State.RUNNING, lease_until__lt=timezone.now())
        for pk in model.objects.filter(waiting, background=True).values_list("pk", flat=True).order_by("pk")[:100]:
            bell.ring_for_job_now(kind, pk)
            rung += 1
    return rung
