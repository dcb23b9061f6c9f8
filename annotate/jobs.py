"""Jobs: how long work is begun, watched, stopped, and gone on with after a crash.

Whoever runs a job holds its token. A thread renews the lease and writes how far the work is, on a connection of its
own, because the work itself may be one long transaction. When a lease runs out the job can be begun again, and the
former holder, should it still be alive, learns of it and stops.

A background job is begun by workers, until it has ended or its holders died JOB_ATTEMPTS times. A process that is told
to end gives back what it holds, which does not count as an attempt.
"""

import contextlib
import logging
import signal
import threading
import uuid
from collections.abc import Collection, Iterator
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from annotate import bell
from annotate.errors import BothsidesError, Conflict
from annotate.models import Export, Import, Job, Passage, TrainingRun

logger = logging.getLogger(__name__)

State = Job.State

KINDS: dict[str, type[Job]] = {"export": Export, "import": Import, "training": TrainingRun, "passage": Passage}
"""The kinds of jobs by name; `manage.py NAME… --go-on ID` runs one."""


class Stopped(BothsidesError):
    """A person asked to stop the job."""

    status = 409
    code = "stopped"


class Lost(BothsidesError):
    """The lease ran out and somebody else may have begun the job again."""

    status = 409
    code = "lost"


class Terminated(SystemExit):
    """This process was told to end (SIGTERM) while it ran a job."""


TELL_SECONDS = 1.0
"""Pause between two looks at the record: how late a person sees how far it is, and a holder hears that it must stop."""

REASON_CHARACTERS = 2000
"""So much of a reason is kept."""


class Run:
    """A job while this process runs it."""

    def __init__(self, job: Job, token: uuid.UUID):
        self.job = job
        self.token = token
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
        while not self._closed.wait(min(TELL_SECONDS, settings.JOB_LEASE_SECONDS / 4)):
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
    """Begin a job and hold it while the block runs. The block calls `end` once the work is done.

    What the block raises instead is raised again, and the job is then failed or stopped, with that as its reason.
    A background job waits again where the process was told to end or the database went away. Raises Conflict where
    it is running elsewhere, has ended or is to be stopped.
    """
    with _hearing_sigterm():
        run = _begun(job)
        try:
            yield run
        except Lost:
            raise
        except BaseException as error:
            run.close()
            _leave(job, run.token, error)
            raise
        finally:
            run.close()


@contextlib.contextmanager
def _hearing_sigterm() -> Iterator[None]:
    """While the block runs SIGTERM raises Terminated, once; not where somebody else has a use for the signal."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def hear(*_) -> None:
        # A second one must not interrupt what the first one set going.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _free() -> Q:
    """What may be begun now: it waits, or its holder died, and nobody asked to stop it."""
    return Q(stop_asked=False) & (Q(state=State.WAITING) | Q(state=State.RUNNING, lease_until__lt=timezone.now()))


def _begun(job: Job) -> Run:
    """Take the job and hold it. Where the process is told to end just then, it is given back at once."""
    token = uuid.uuid4()
    try:
        _begin(job, token)
        return Run(job, token)
    except Terminated as error:
        _leave(job, token, error)
        raise


def _begin(job: Job, token: uuid.UUID) -> None:
    now = timezone.now()
    changed = (
        type(job)
        .objects.filter(_free(), pk=job.pk)
        .update(
            state=State.RUNNING,
            token=token,
            lease_until=now + timedelta(seconds=settings.JOB_LEASE_SECONDS),
            attempt=F("attempt") + 1,
            started_at=now,
            reason="",
        )
    )
    if not _read_again(job):
        raise Conflict(f"{job} was deleted.")
    if not changed:
        raise Conflict(f"{job} is {job.state} and cannot be begun.{_when_free(job)}")


def _when_free(job: Job) -> str:
    """A sentence on when one that runs elsewhere may be begun here, for whoever knows that its process is gone."""
    if job.state != State.RUNNING or job.stop_asked or was_lost(job):
        return ""
    seconds = (job.lease_until - timezone.now()).total_seconds()
    return f" If its process has died, it can be in {seconds:.0f} s."


def _read_again(job: Job) -> bool:
    """Whether the job is still there, with its fields as they are now."""
    try:
        job.refresh_from_db()
    except type(job).DoesNotExist:
        return False
    return True


def _leave(job: Job, token: uuid.UUID, error: BaseException) -> None:
    """Let go of a job that an error ended. Never raises: whoever called is to hear of the error itself."""
    away = isinstance(error, OperationalError | InterfaceError)
    # After an error of the connection the next statement would only say that it is closed.
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    try:
        if job.background and isinstance(error, Terminated):
            give_back(job, token=token)
        elif job.background and away and job.attempt < settings.JOB_ATTEMPTS:
            give_back(job, token=token, counts=True, reason=_told(error))
        else:
            stopped = isinstance(error, Stopped | KeyboardInterrupt | SystemExit)
            end(job, token=token, state=State.STOPPED if stopped else State.FAILED, reason=_told(error))
    except (Lost, DatabaseError) as trouble:
        logger.warning("%s is not let go of, its lease will run out: %s", job, " ".join(str(trouble).split()))


def _told(error: BaseException) -> str:
    """What went wrong, for people."""
    if isinstance(error, BothsidesError):
        return error.message
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "It was interrupted."
    return f"{type(error).__name__}: {error}".replace("\0", "")[:REASON_CHARACTERS]


def give_back(job: Job, *, token: uuid.UUID, counts: bool = False, reason: str = "") -> None:
    """Let another begin a running job at once. Whether this attempt `counts`: one that nothing was wrong with does not.

    Raises Lost where it is not held any more.
    """
    held = type(job).objects.filter(pk=job.pk, token=token, state=State.RUNNING)
    back = {"state": State.WAITING, "token": None, "lease_until": None, "reason": reason}
    if not held.update(**back, attempt=F("attempt") if counts else F("attempt") - 1):
        raise Lost("Its lease ran out, and it was begun again elsewhere.")
    job.refresh_from_db()
    ring(job)


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
        .update(state=State.WAITING, ended_at=None, stop_asked=False, attempt=0)
    )
    job.refresh_from_db()
    if not changed:
        raise Conflict(f"{job} is {job.state}; only what failed or was stopped can be begun again.")


def go_on_in_worker(job: Job) -> None:
    """Have a worker go on with a job that failed, was stopped, or whose holder died. Raises Conflict for any other."""
    rows = type(job).objects.filter(pk=job.pk)
    again = {"background": True, "stop_asked": False, "attempt": 0}
    with transaction.atomic():
        ended = rows.filter(state__in=[State.FAILED, State.STOPPED])
        changed = ended.update(state=State.WAITING, ended_at=None, **again)
        changed = changed or rows.filter(state=State.RUNNING, lease_until__lt=timezone.now()).update(**again)
        job.refresh_from_db()
        if not changed:
            raise Conflict(f"{job} is {job.state}; only what failed or was stopped can be begun again.")
        ring(job)


def ask_to_stop(job: Job) -> None:
    """Stop a job: at once where nobody holds it, else as soon as its holder hears of it. Raises Conflict."""
    rows = type(job).objects.filter(pk=job.pk)
    unheld = Q(state=State.WAITING) | Q(state=State.RUNNING, lease_until__lt=timezone.now())
    # The job may be begun or given back between the two.
    for _ in range(3):
        stopped = rows.filter(unheld).update(**_ended(State.STOPPED, "It was stopped."), stop_asked=True)
        if stopped or rows.filter(state=State.RUNNING).update(stop_asked=True):
            job.refresh_from_db()
            return
    job.refresh_from_db()
    raise Conflict(f"{job} is {job.state} already.")


def _ended(state: str, reason: str) -> dict:
    """The fields of a job that has ended without its holder."""
    return {
        "state": state,
        "reason": reason,
        "token": None,
        "lease_until": None,
        "ended_at": timezone.now(),
        "step": "",
    }


def kind_of(job: Job) -> str:
    """The name of its kind."""
    return next(name for name, model in KINDS.items() if isinstance(job, model))


def ring(job: Job) -> None:
    """Have a worker look at a job once this transaction is committed; one that is not for workers rings nowhere."""
    if job.background:
        bell.ring_for_job(kind_of(job), job.pk)


def ring_for_waiting() -> int:
    """Ring for background jobs that wait, or whose holder died. How many were rung for."""
    # Of each queue by itself: many exports that wait must not keep a training from being rung for.
    found = [job for kinds in bell.KINDS_OF_JOBS.values() for job in waiting(bell.BELLS_AT_MOST, kinds)]
    for kind, pk in found:
        bell.ring_for_job_now(kind, pk)
    return len(found)


def share_done(job: Job) -> float | None:
    """How much of its step is done, 0 to 1; None where that is not known."""
    if job.state == State.DONE:
        return 1.0
    return min(1.0, job.done / job.total) if job.total else None


def was_lost(job: Job) -> bool:
    """Whether its holder died, so that somebody else may go on with it."""
    return job.state == State.RUNNING and job.lease_until < timezone.now()


# What workers and the sweep ask and say of jobs that others run ----------------------------------------


def waiting(limit: int, kinds: Collection[str] = tuple(KINDS)) -> list[tuple[str, int]]:
    """Background jobs of these kinds that may be begun now, as kind and id, the oldest of each kind first."""
    found = []
    for kind in kinds:
        rows = KINDS[kind].objects.filter(_free(), background=True).order_by("pk")
        found += [(created_at, kind, pk) for pk, created_at in rows.values_list("pk", "created_at")[:limit]]
    return [(kind, pk) for _, kind, pk in sorted(found)[:limit]]


def attempts_of(kind: str, pk: int) -> int | None:
    """How often a background job that may be begun now was begun; None where it may not."""
    rows = KINDS[kind].objects.filter(_free(), pk=pk, background=True)
    return rows.values_list("attempt", flat=True).first()


def is_to_stop(kind: str, pk: int) -> bool:
    """Whether a person asked to stop a job that runs."""
    return KINDS[kind].objects.filter(pk=pk, state=State.RUNNING, stop_asked=True).exists()


def token_of(kind: str, pk: int) -> uuid.UUID | None:
    """The token of whoever holds a job; None where nobody does, or the lease ran out."""
    rows = KINDS[kind].objects.filter(pk=pk, state=State.RUNNING, lease_until__gte=timezone.now())
    return rows.values_list("token", flat=True).first()


def was_let_go(kind: str, pk: int, token: uuid.UUID) -> bool:
    """Whether a job that is not done is not held under this token any more, or the lease ran out. A process that could
    end by itself is not long behind it."""
    rows = KINDS[kind].objects.filter(pk=pk)
    held = Q(state=State.RUNNING, token=token, lease_until__gte=timezone.now())
    return not rows.filter(Q(state=State.DONE) | held).exists()


def stop_killed(kind: str, pk: int) -> None:
    """Say of a job that was to stop, and whose process had to be killed, that it was stopped."""
    rows = KINDS[kind].objects.filter(pk=pk, state=State.RUNNING, stop_asked=True)
    rows.update(**_ended(State.STOPPED, "It was stopped by force, as it did not end by itself."))


def did_not_begin(kind: str, pk: int, *, attempts: int, reason: str) -> None:
    """Count a process that ended before it could begin the job, which had been begun `attempts` times; with too many
    the job has failed."""
    rows = KINDS[kind].objects.filter(pk=pk, state=State.WAITING, attempt=attempts, background=True)
    told = f"It could not be begun: {reason}".replace("\0", "")[:REASON_CHARACTERS]
    if attempts + 1 < settings.JOB_ATTEMPTS:
        rows.update(attempt=attempts + 1, reason=told)
    else:
        rows.update(**_ended(State.FAILED, told) | {"attempt": attempts + 1})


def settle() -> int:
    """End those whose holder died where a person asked to stop them, or where it happened too often. How many."""
    settled = 0
    for model in KINDS.values():
        lost = model.objects.filter(state=State.RUNNING, lease_until__lt=timezone.now())
        to_stop, too_often = Q(stop_asked=True), Q(background=True, attempt__gte=settings.JOB_ATTEMPTS)
        if lost.filter(to_stop | too_often).exists():
            settled += lost.filter(to_stop).update(**_ended(State.STOPPED, "It was stopped."))
            settled += lost.filter(too_often).update(**_ended(State.FAILED, _died_too_often()))
    return settled


def _died_too_often() -> str:
    return (
        f"It was begun {settings.JOB_ATTEMPTS} times, and whoever ran it died each time. The logs of the workers may "
        "say why; it may be memory."
    )
