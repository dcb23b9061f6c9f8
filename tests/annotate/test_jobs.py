"""Jobs: begun once, held by a lease, stopped, given back, gone on with, given up."""

import os
import signal
import threading
import time
import uuid
from datetime import timedelta

import pytest
from django.db import OperationalError, close_old_connections, connection
from django.utils import timezone

from annotate import bell, jobs
from annotate.errors import Conflict, Invalid
from annotate.models import Export, Import
from tests import factory

pytestmark = pytest.mark.django_db

State = Import.State


@pytest.fixture(autouse=True)
def rung(monkeypatch) -> list:
    """What was rung for."""
    heard = []
    monkeypatch.setattr(bell, "ring_for_job", lambda kind, pk: heard.append((kind, pk)))
    monkeypatch.setattr(bell, "ring_for_job_now", lambda kind, pk: heard.append((kind, pk)))
    return heard


@pytest.fixture
def project():
    return factory.project(iteration=False)


@pytest.fixture
def job(project) -> Import:
    """An import that waits for a worker."""
    return waiting(project)


def waiting(project, **fields) -> Import:
    return Import.objects.create(**{"project": project, "source": "set", "format": "auto", "background": True} | fields)


def lose(job) -> None:
    """As if its holder had died some time ago."""
    type(job).objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def fresh(job):
    return type(job).objects.get(pk=job.pk)


def hold(job, work) -> None:
    """Hold the job while this work is done."""
    with jobs.running(job) as run:
        work(run)


def be_told_to_end(run) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def test_a_job_that_ends_is_done(job):
    with jobs.running(job) as run:
        assert (job.state, job.attempt, job.token) == (State.RUNNING, 1, run.token)
        assert job.lease_until > timezone.now()
        run.tell(done=3, total=3, step="reading")
        jobs.end(job, token=run.token, state=State.DONE, report={"lines": 3})
    job = fresh(job)
    assert (job.state, job.done, job.total, job.step, job.report) == (State.DONE, 3, 3, "", {"lines": 3})
    assert job.ended_at
    assert job.token is job.lease_until is None


def test_what_a_refusal_says_is_the_reason(job):
    with pytest.raises(Invalid), jobs.running(job):
        raise Invalid("Line 3 is no JSON.")
    assert (fresh(job).state, fresh(job).reason) == (State.FAILED, "Line 3 is no JSON.")


def test_an_error_of_ours_is_told_with_its_kind_and_not_at_any_length(job):
    with pytest.raises(ZeroDivisionError), jobs.running(job):
        raise ZeroDivisionError("by zero\0" * 1000)
    job = fresh(job)
    assert job.state == State.FAILED
    assert job.reason.startswith("ZeroDivisionError: by zero")
    assert len(job.reason) == jobs.REASON_CHARACTERS


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_one_is_stopped_and_can_be_gone_on_with(project, error):
    job = waiting(project, background=False)
    with pytest.raises(error), jobs.running(job):
        raise error
    assert (fresh(job).state, fresh(job).reason) == (State.STOPPED, "It was interrupted.")
    jobs.put_back(job)
    with jobs.running(job) as run:
        jobs.end(job, token=run.token, state=State.DONE)
    assert fresh(job).state == State.DONE


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.STOPPED])
def test_what_has_ended_is_not_begun(job, state):
    Import.objects.filter(pk=job.pk).update(state=state, ended_at=timezone.now())
    with pytest.raises(Conflict, match=f"is {state} and cannot be begun"), jobs.running(job):
        pytest.fail("It was begun.")


def test_what_was_deleted_is_not_begun(job):
    Import.objects.filter(pk=job.pk).delete()
    with pytest.raises(Conflict, match="was deleted"), jobs.running(job):
        pytest.fail("It was begun.")


def test_a_running_one_is_not_begun_again_until_its_lease_has_run_out(job):
    with jobs.running(job) as first:
        told = r"is running and cannot be begun. If its process has died, it can be in \d+ s\."
        with pytest.raises(Conflict, match=told), jobs.running(fresh(job)):
            pytest.fail("It was begun.")
        lose(job)
        other = fresh(job)
        with jobs.running(other) as second:
            assert other.attempt == 2
            # The first one's end comes too late and changes nothing.
            with pytest.raises(jobs.Lost):
                jobs.end(job, token=first.token, state=State.DONE)
            jobs.end(other, token=second.token, state=State.DONE)
    assert fresh(job).state == State.DONE


def test_an_error_of_one_that_was_lost_is_raised_and_changes_nothing(job):
    def work(run):
        lose(job)
        hold(fresh(job), lambda second: jobs.end(second.job, token=second.token, state=State.DONE))
        raise Invalid("Too late.")

    with pytest.raises(Invalid, match="Too late"):
        hold(job, work)
    assert (fresh(job).state, fresh(job).reason) == (State.DONE, "")


def test_told_to_end_just_as_it_begins_it_waits_again(job, monkeypatch):
    began = jobs._begin

    def begin(job, token):
        began(job, token)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(jobs, "_begin", begin)
    with pytest.raises(jobs.Terminated), jobs.running(job):
        pytest.fail("It was not to run.")
    assert (fresh(job).state, fresh(job).attempt, fresh(job).token) == (State.WAITING, 0, None)


def test_sigterm_gives_a_background_job_back_at_once_without_counting(job, rung):
    with pytest.raises(jobs.Terminated):
        hold(job, be_told_to_end)
    job = fresh(job)
    assert (job.state, job.attempt, job.token, job.lease_until) == (State.WAITING, 0, None, None)
    assert rung == [("import", job.pk)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_stops_one_of_a_command(project, rung):
    job = waiting(project, background=False)
    with pytest.raises(jobs.Terminated):
        hold(job, be_told_to_end)
    assert fresh(job).state == State.STOPPED
    assert rung == []


def test_a_database_that_went_away_is_tried_again_so_many_times(job, settings):
    settings.JOB_ATTEMPTS = 2
    with pytest.raises(OperationalError), jobs.running(job):
        raise OperationalError("server closed the connection")
    assert (fresh(job).state, fresh(job).attempt) == (State.WAITING, 1)
    with pytest.raises(OperationalError), jobs.running(fresh(job)):
        raise OperationalError("server closed the connection")
    assert (fresh(job).state, fresh(job).reason) == (State.FAILED, "OperationalError: server closed the connection")


def test_one_that_waits_is_stopped_at_once(job):
    jobs.ask_to_stop(job)
    assert (job.state, job.reason) == (State.STOPPED, "It was stopped.")
    with pytest.raises(Conflict, match="is stopped already"):
        jobs.ask_to_stop(job)


def test_one_whose_holder_died_is_stopped_at_once(job):
    def work(run):
        lose(job)
        jobs.ask_to_stop(fresh(job))
        jobs.end(job, token=run.token, state=State.DONE)

    with pytest.raises(jobs.Lost):
        hold(job, work)
    assert fresh(job).state == State.STOPPED


def test_only_what_failed_or_was_stopped_is_put_back(job):
    with pytest.raises(Conflict, match="is waiting; only"):
        jobs.put_back(job)
    Import.objects.filter(pk=job.pk).update(
        state=State.FAILED, ended_at=timezone.now(), attempt=3, stop_asked=True, reason="Full."
    )
    jobs.put_back(job)
    assert (job.state, job.attempt, job.stop_asked, job.ended_at) == (State.WAITING, 0, False, None)


def test_what_waits_or_was_lost_is_rung_for_the_oldest_first(project, rung):
    lost, first, second = waiting(project), waiting(project), waiting(project)
    export = Export.objects.create(project=project, what="comparisons", format="ranked", background=True)
    waiting(project, background=False)
    waiting(project, state=State.DONE, ended_at=timezone.now())
    with jobs.running(lost) as run:
        assert ("import", lost.pk) not in jobs.waiting(10)
        lose(lost)
        assert jobs.ring_for_waiting() == 4
        assert rung == [("import", lost.pk), ("import", first.pk), ("import", second.pk), ("export", export.pk)]
        assert jobs.waiting(2) == rung[:2]
        jobs.end(lost, token=run.token, state=State.DONE)
        assert jobs.waiting(2) == rung[1:3]


def test_one_whose_holders_died_too_often_has_failed(project, settings):
    settings.JOB_ATTEMPTS = 2
    now = timezone.now()
    held = {"state": State.RUNNING, "token": "0" * 32, "lease_until": now - timedelta(seconds=1)}
    often, once = waiting(project, **held, attempt=2), waiting(project, **held, attempt=1)
    by_hand = waiting(project, **held, attempt=5, background=False)
    to_stop = waiting(project, **held, attempt=1, stop_asked=True)
    alive = waiting(project, **held | {"lease_until": now + timedelta(seconds=60)}, attempt=2)
    assert jobs.settle() == 2
    assert fresh(often).state == State.FAILED
    assert "begun 2 times" in fresh(often).reason
    assert fresh(to_stop).state == State.STOPPED
    assert [fresh(one).state for one in (once, by_hand, alive)] == [State.RUNNING] * 3
    assert jobs.settle() == 0


def test_one_that_no_process_could_begin_fails_in_the_end(job, settings):
    settings.JOB_ATTEMPTS = 2
    assert jobs.attempts_of("import", job.pk) == 0
    jobs.did_not_begin("import", job.pk, attempts=0, reason="No module named x")
    assert (fresh(job).state, fresh(job).attempt) == (State.WAITING, 1)
    # Said twice of the same attempt it counts once.
    jobs.did_not_begin("import", job.pk, attempts=0, reason="No module named x")
    assert fresh(job).attempt == 1
    jobs.did_not_begin("import", job.pk, attempts=1, reason="No module named x")
    assert (fresh(job).state, fresh(job).reason) == (State.FAILED, "It could not be begun: No module named x")
    assert jobs.attempts_of("import", job.pk) is None


@pytest.fixture
def quick(settings):
    """A lease that is renewed, and runs out, at once."""
    settings.JOB_LEASE_SECONDS = 0.4


@pytest.mark.django_db(transaction=True)
def test_its_lease_is_renewed_and_its_progress_written_while_it_works(project, quick):
    job = waiting(project)
    with jobs.running(job) as run:
        run.tell(done=5, total=10, step="reading")
        time.sleep(0.8)
        seen = fresh(job)
        assert seen.lease_until > timezone.now()
        assert (seen.done, seen.total, seen.step) == (5, 10, "reading")
        jobs.end(job, token=run.token, state=State.DONE)


@pytest.mark.django_db(transaction=True)
def test_a_holder_hears_that_it_is_to_stop_and_that_it_was_lost(project, quick):
    def work(run):
        for done in range(500):
            time.sleep(0.01)
            run.tell(done=done)

    def work_though_stopped(run):
        jobs.ask_to_stop(fresh(run.job))
        work(run)

    def work_though_lost(run):
        Import.objects.filter(pk=run.job.pk).update(token="0" * 32)
        work(run)

    job = waiting(project)
    with pytest.raises(jobs.Stopped):
        hold(job, work_though_stopped)
    assert (fresh(job).state, fresh(job).reason) == (State.STOPPED, "It was stopped.")

    job = waiting(project)
    with pytest.raises(jobs.Lost):
        hold(job, work_though_lost)
    assert fresh(job).state == State.RUNNING


@pytest.mark.django_db(transaction=True)
def test_of_many_that_begin_at_once_one_does(project):
    job = waiting(project)
    begun, refused, together = [], [], threading.Barrier(6)

    def begin():
        mine = fresh(job)
        together.wait(10)
        try:
            token = uuid.uuid4()
            jobs._begin(mine, token)
            begun.append(token)
        except Conflict:
            refused.append(mine)
        finally:
            close_old_connections()
            connection.close()

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(begun), len(refused)) == (1, 5)
    assert (fresh(job).token, fresh(job).attempt) == (begun[0], 1)
