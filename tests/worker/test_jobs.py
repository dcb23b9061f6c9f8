"""Exports and imports as processes of a worker: begun, stopped, drained, killed, and gone on with by another."""

import json
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from django.core.files.base import ContentFile
from django.db import connection, transaction
from django.utils import timezone

from annotate import bell, jobs, processes, streams, sweep
from annotate.datasets import checkpoint, filters, snapshots
from annotate.datasets.incoming import bringing
from annotate.models import Import
from tests import factory, site
from tests.worker.watching import until, words_of
from worker import job_processes, tasks
from worker.job_processes import JobProcesses

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

State = Import.State

WORK = """
import time
import django
django.setup()
from annotate import jobs
from annotate.models import Import
job = Import.objects.get(pk={pk})
with jobs.running(job) as run:
    for done in range({steps}):
        run.tell(done=done, total={steps}, step="working")
        time.sleep(0.05)
    jobs.end(job, token=run.token, state="done", report={{"steps": {steps}}})
"""

DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.fixture
def project():
    return factory.project(iteration=False)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, settings):
    """Children work on the test's database, and hear at once."""
    for name, value in site.environment(DJANGO_SETTINGS_MODULE="annotate.settings").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(job_processes, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(job_processes, "POLL_SECONDS", 0.05)


@pytest.fixture
def look_after():
    """Job processes that run a Python text for each job; ended with the test."""
    made = []

    def make(text: str = WORK, *, limit: int = 1, steps: int = 1) -> JobProcesses:
        def command(kind: str, pk: int) -> list[str]:
            return [sys.executable, "-c", text.format(pk=pk, steps=steps)]

        made.append(JobProcesses({bell.JOBS: limit}, command))
        return made[-1]

    yield make
    for one in made:
        one.drain(0)
        one.join(20)
        assert not one._watches


def waiting(project) -> Import:
    return Import.objects.create(project=project, source="set", format="auto", background=True)


def state(job) -> str:
    job.refresh_from_db()
    return job.state


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if any("annotate.models" in word for word in words_of(one))]


def test_the_command_of_each_kind_is_there():
    from django.core.management import get_commands

    assert set(job_processes.COMMANDS) == set(jobs.KINDS)
    assert set(job_processes.COMMANDS.values()) <= set(get_commands())
    assert job_processes.command("export", 7)[1:] == ["manage.py", "export", "--go-on", "7"]


def test_a_job_is_run_and_then_the_next_that_waits(look_after, project):
    first, second = waiting(project), waiting(project)
    look_after().ring("import", first.pk)
    until(lambda: state(second) == State.DONE)
    assert state(first) == State.DONE
    assert first.report == {"steps": 1}
    assert first.attempt == second.attempt == 1


def test_no_more_run_at_once_than_may(look_after, project):
    made = [waiting(project) for _ in range(3)]
    one = look_after(steps=20)
    for job in [*made, *made]:
        one.ring("import", job.pk)
    until(lambda: state(made[0]) == State.RUNNING)
    assert len(children()) == 1
    assert [state(job) for job in made[1:]] == [State.WAITING] * 2


def test_what_runs_elsewhere_or_has_ended_is_left_alone(look_after, project):
    job = waiting(project)
    with jobs.running(job) as run:
        look_after("raise SystemExit('It was begun.')").ring("import", job.pk)
        time.sleep(0.5)
        jobs.end(job, token=run.token, state=State.DONE)
    look_after("raise SystemExit('It was begun.')").ring("import", job.pk)
    time.sleep(0.5)
    assert (state(job), job.attempt) == (State.DONE, 1)


def test_one_that_no_process_can_begin_fails_with_the_last_line_after_its_attempts(look_after, project, settings):
    job = waiting(project)
    one = look_after("print('Looking.')\nimport nowhere_to_be_found")
    for attempt in range(1, settings.JOB_ATTEMPTS + 1):
        one.ring("import", job.pk)
        until(lambda: not one._watches)
        job.refresh_from_db()
        assert job.attempt == attempt
    assert state(job) == State.FAILED
    assert job.reason == "It could not be begun: ModuleNotFoundError: No module named 'nowhere_to_be_found'"


def test_one_whose_process_cannot_be_started_fails_too(project, settings):
    job = waiting(project)
    one = JobProcesses({bell.JOBS: 1}, lambda kind, pk: ["/nowhere/python"])
    for _ in range(settings.JOB_ATTEMPTS):
        one.ring("import", job.pk)
        until(lambda: not one._watches)
    assert state(job) == State.FAILED
    assert "No such file or directory: '/nowhere/python'" in job.reason


def test_a_refusal_is_kept_as_its_reason(look_after, project):
    text = WORK.replace(
        "    for done", "    from annotate.errors import Invalid\n    raise Invalid('No good.')\n    for done"
    )
    job = waiting(project)
    look_after(text).ring("import", job.pk)
    until(lambda: state(job) == State.FAILED)
    assert (job.reason, job.attempt) == ("No good.", 1)


def test_a_person_stops_it(look_after, project):
    job = waiting(project)
    one = look_after(steps=1000)
    one.ring("import", job.pk)
    until(lambda: state(job) == State.RUNNING)
    jobs.ask_to_stop(job)
    until(lambda: state(job) == State.STOPPED)
    until(lambda: not one._watches)
    assert job.reason == "It was stopped."


def test_one_that_does_not_hear_is_killed(look_after, project, settings):
    settings.JOB_STOP_SECONDS = 0.3
    job = waiting(project)
    one = look_after(WORK.replace("        run.tell", "        pass #"), steps=1000)
    one.ring("import", job.pk)
    until(lambda: state(job) == State.RUNNING)
    jobs.ask_to_stop(job)
    until(lambda: state(job) == State.STOPPED)
    assert "by force" in job.reason
    until(lambda: not one._watches)
    assert not children()


def test_one_that_hangs_is_killed_when_its_lease_is_over_and_its_place_is_free(
    look_after, project, monkeypatch, settings
):
    monkeypatch.setenv("JOB_LEASE_SECONDS", "1")
    settings.JOB_STOP_SECONDS = 0.3
    job = waiting(project)
    one = look_after(steps=40)
    one.ring("import", job.pk)
    until(lambda: state(job) == State.RUNNING)
    time.sleep(0.5)
    (child,) = children()
    child.suspend()
    until(lambda: not one._watches)
    assert not children()
    one.ring("import", job.pk)
    until(lambda: state(job) == State.DONE)
    assert job.attempt == 2


def test_a_worker_that_ends_gives_it_back_and_another_goes_on_with_it(look_after, project):
    job = waiting(project)
    first = look_after(steps=1000)
    first.ring("import", job.pk)
    until(lambda: state(job) == State.RUNNING)
    first.drain(10)
    first.ring("import", job.pk)
    first.join(10)
    assert (state(job), job.attempt) == (State.WAITING, 0)
    look_after().ring("import", job.pk)
    until(lambda: state(job) == State.DONE)


def test_one_that_does_not_let_go_is_killed_and_its_lease_runs_out(look_after, project, monkeypatch):
    monkeypatch.setenv("JOB_LEASE_SECONDS", "1")
    job = waiting(project)
    deaf = look_after(DEAF + WORK, steps=1000)
    deaf.ring("import", job.pk)
    until(lambda: state(job) == State.RUNNING)
    deaf.drain(0.2)
    deaf.join(10)
    assert state(job) == State.RUNNING
    until(lambda: Import.objects.get(pk=job.pk).lease_until < timezone.now())
    assert jobs.waiting(1) == [("import", job.pk)]
    look_after().ring("import", job.pk)
    until(lambda: state(job) == State.DONE)
    assert job.attempt == 2


def test_a_process_that_was_killed_again_and_again_ends_failed(look_after, project, monkeypatch, settings):
    monkeypatch.setenv("JOB_LEASE_SECONDS", "1")
    settings.JOB_ATTEMPTS = 2
    job = waiting(project)
    one = look_after(steps=1000)
    for _ in range(2):
        until(lambda: jobs.waiting(1))
        one.ring("import", job.pk)
        until(lambda: state(job) == State.RUNNING and job.lease_until > timezone.now())
        (child,) = children()
        child.send_signal(signal.SIGKILL)
        until(lambda: not one._watches)
    until(lambda: Import.objects.get(pk=job.pk).lease_until < timezone.now())
    sweep.run()
    assert state(job) == State.FAILED
    assert "begun 2 times" in job.reason


# With a real worker --------------------------------------------------------------------------------------


@pytest.fixture
def worker(tmp_path, settings):
    """Starts a Celery worker on the test's database; what still runs ends with the test."""
    settings.BOTHSIDES_HOME = tmp_path / "home"
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "home" / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    running = []

    def start(*arguments: str) -> subprocess.Popen:
        with (tmp_path / f"worker-{len(running)}.log").open("wb") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, *(arguments or processes.WORKER)],
                    cwd=settings.BASE_DIR,
                    env=site.environment(BOTHSIDES_HOME=str(settings.BOTHSIDES_HOME), WORKER_POLICIES="none"),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return running[-1]

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(60)


@pytest.fixture
def asked(worker):
    """An export that waits, and nothing has rung for."""
    project = factory.project(overlap=1)
    for text in ("Hello", "Bye"):
        factory.ranking(factory.comparison_about(project, text))
    return snapshots.prepare(
        what="comparisons", project=project, format="ranked", filters=filters.parse("comparisons", {})
    )


def test_a_worker_writes_an_export_and_brings_in_an_import(worker, asked):
    worker()
    until(lambda: state(asked) == State.DONE, 60)
    assert asked.rows == 2
    assert len(snapshots.keys_of(asked)) == 2
    said = {"messages": [{"role": "user", "content": "Are you there?"}, {"role": "assistant", "content": "I am."}]}
    file = ContentFile(json.dumps(said).encode(), name="set.jsonl")
    job = bringing.prepare(project=asked.project, file=file, how=bringing.How())
    until(lambda: state(job) == State.DONE, 60)
    assert job.report["conversations"] == 1


def test_a_worker_without_the_queue_leaves_them_to_others(worker, asked):
    worker(*[word.replace("bothsides,jobs,training", "bothsides") for word in processes.WORKER])
    until(streams.heartbeats, 60)
    bell.ring_for_job_now("export", asked.pk)
    time.sleep(2)
    assert state(asked) == State.WAITING


def test_a_worker_that_is_killed_takes_its_child_along_and_another_goes_on(worker, asked):
    first = worker()
    holding = threading.Event()

    def hold_the_families():
        # The export waits where it looks for families to join, as long as this lock is held.
        with transaction.atomic():
            connection.cursor().execute("LOCK TABLE annotate_conversation IN ACCESS EXCLUSIVE MODE")
            holding.wait(60)
        connection.close()

    blocker = threading.Thread(target=hold_the_families)
    blocker.start()
    try:
        until(lambda: state(asked) == State.RUNNING, 60)
        (child,) = [one for one in psutil.Process(first.pid).children(recursive=True) if "--go-on" in words_of(one)]
        first.kill()
        first.wait()
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    finally:
        holding.set()
        blocker.join()
    until(lambda: state(asked) == State.WAITING)
    assert asked.attempt == 0
    worker()
    bell.ring_for_job_now("export", asked.pk)
    until(lambda: state(asked) == State.DONE, 60)


def test_the_sweep_of_a_worker_removes_working_folders_that_nobody_needs(worker, asked):
    folder = checkpoint.folder_of(987_654)
    folder.mkdir(parents=True)
    tasks.sweep_up()
    assert not folder.exists()
