"""Imports that run in a worker, are interrupted, or come at once: nothing comes in twice, and nothing by half."""

import json
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.utils import timezone

from annotate import families, imports, jobs
from annotate.datasets.incoming import bringing, copying, files
from annotate.datasets.incoming.bringing import How
from annotate.errors import Conflict, Invalid
from annotate.models import Conversation, FamilyMember, Import, Message
from tests import factory, site

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project():
    return factory.project(slug="demo")


def row(number: int, answer: str = "Fine") -> dict:
    turns = [("user", f"How is number {number} doing?"), ("assistant", f"{answer}, says {number}.")]
    return {"messages": [{"role": role, "content": text} for role, text in turns], "id": number}


def lines(*rows: dict | str) -> bytes:
    return "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows).encode()


def upload(project, data: bytes, **how) -> Import:
    return bringing.prepare(project=project, file=ContentFile(data, name="rows.jsonl"), how=How.given(how))


def bring(project, data: bytes, **more):
    with files.lines_of(ContentFile(data, name="rows.jsonl"), name="rows.jsonl") as rows:
        return bringing.bring(project=project, rows=rows, how=How(), source="rows.jsonl", **more)


def go_on(job: Import) -> str:
    call_command("import_conversations", "--go-on", str(job.pk), stdout=(told := StringIO()), stderr=told)
    job.refresh_from_db()
    return told.getvalue()


def refused(job: Import) -> str:
    with pytest.raises(CommandError) as refusal:
        go_on(job)
    assert refusal.value.returncode == 2
    job.refresh_from_db()
    return str(refusal.value)


def run_out(job: Import) -> None:
    Import.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def running_here(project, **fields) -> Import:
    """An import of a command that was killed."""
    job = imports.make(project=project, source="rows.jsonl", format="auto", options=How().as_options(), **fields)
    Import.objects.filter(pk=job.pk).update(
        state="running", token=uuid.uuid4(), lease_until=timezone.now() + timedelta(seconds=60)
    )
    return job


# --- In a worker -----------------------------------------------------------------------------------------------------


def test_an_upload_is_brought_in(project):
    person = factory.person(project, role="engineer")
    file = ContentFile(lines(row(1), row(2)), name="../../My rows (1).jsonl")
    job = bringing.prepare(project=project, file=file, how=How(system="none"), created_by=person)
    assert (job.state, job.background, job.source, job.format) == ("waiting", True, "My rows (1).jsonl", "auto")
    assert job.options == {"few_shot": "apart", "broken": "mend", "system": "none", "on_error": "stop"}
    assert job.file.startswith("uploads/")
    assert job.file.endswith("/My_rows_1_.jsonl")
    stored = job.file
    assert "conversations added: 2; messages: 4; there already: 0" in go_on(job)
    assert (job.state, job.format, job.file, job.created_by) == ("done", "messages", "", person)
    assert job.report["conversations"] == 2
    assert not default_storage.exists(stored)
    assert "cannot be begun" in refused(job)


def test_an_upload_that_is_refused(project):
    job = upload(project, lines(row(1), "{"))
    assert "1 bad line (line 2: it is not JSON" in refused(job)
    assert (job.state, job.reason[:47]) == ("failed", "Nothing was imported: 1 bad line (line 2: it is")
    assert (job.report["conversations"], job.report["refused"], job.report["taken"]) == (0, 1, False)
    assert not Conversation.objects.exists()
    # It can be begun again, and is refused again, until its file goes.
    imports.go_on(job)
    assert "1 bad line" in refused(job)
    assert imports.forget_uploads() == 0
    Import.objects.filter(pk=job.pk).update(ended_at=timezone.now() - timedelta(days=8))
    assert imports.forget_uploads() == 1
    job.refresh_from_db()
    assert job.file == ""
    with pytest.raises(Conflict, match="Its file is not kept any more"):
        imports.go_on(job)


def test_an_upload_that_is_gone(project):
    job = upload(project, lines(row(1)))
    default_storage.delete(job.file)
    assert "Its file is not kept any more" in refused(job)
    assert job.state == "failed"


def test_one_that_was_stopped_before_it_began(project):
    job = upload(project, lines(row(1)))
    jobs.ask_to_stop(job)
    assert "cannot be begun" in refused(job)
    assert not Conversation.objects.exists()


def test_one_that_is_stopped_while_it_reads(project, monkeypatch):
    monkeypatch.setattr(copying, "MESSAGES", 1)
    monkeypatch.setattr(jobs, "TELL_SECONDS", 0.01)
    job = upload(project, lines(*map(row, range(300))))

    def stop(step: str, done: int, total: int | None) -> None:
        if in_a_thread(lambda: Import.objects.get(pk=job.pk).stop_asked):
            time.sleep(0.1)
        else:
            in_a_thread(lambda: jobs.ask_to_stop(Import.objects.get(pk=job.pk)))

    with pytest.raises(jobs.Stopped):
        bringing.go_on(job=job, progress=stop)
    job.refresh_from_db()
    assert job.state == "stopped"
    assert not Conversation.objects.exists()


def in_a_thread(call):
    """What a call gives that runs in a thread of its own."""
    return at_once(call)[0]


def at_once(*calls) -> list:
    """What calls give that run at once, each in a thread with a connection of its own."""

    def run(call):
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [one.result() for one in [pool.submit(run, call) for call in calls]]


def test_an_upload_without_a_name(project):
    def stored() -> list[str]:
        return default_storage.listdir("uploads")[0] if default_storage.exists("uploads") else []

    before = stored()
    with pytest.raises(Invalid, match="The source needs a name"):
        bringing.prepare(project=project, file=ContentFile(lines(row(1))), how=How())
    assert not Import.objects.exists()
    assert stored() == before


# --- At once ---------------------------------------------------------------------------------------------------------


def test_the_same_file_twice_at_once(project, monkeypatch):
    monkeypatch.setattr(copying, "MESSAGES", 50)
    data = lines(*map(row, range(200)))
    reports = at_once(*[lambda: bring(project, data)] * 3)
    assert sorted(report.conversations for report in reports) == [0, 0, 200]
    assert sorted(report.there_already for report in reports) == [0, 200, 200]
    assert (Conversation.objects.count(), Message.objects.count()) == (200, 600)


def test_two_projects_do_not_wait_for_each_other(project):
    other = factory.project()
    waits, goes = threading.Event(), threading.Event()

    def wait(step: str, done: int, total: int | None) -> None:
        waits.set()
        assert goes.wait(20)

    def first():
        return bring(project, lines(row(1)), progress=wait)

    def second():
        assert waits.wait(20)
        report = bring(other, lines(row(1)))
        goes.set()
        return report

    assert [report.conversations for report in at_once(first, second)] == [1, 1]


def test_the_constraint_is_the_last_guard(project, monkeypatch):
    bring(project, lines(row(1)))
    monkeypatch.setattr(copying, "BY_DIGEST", copying.BY_DIGEST.replace("'imported'", "'chat'"))
    monkeypatch.setattr(copying, "BY_NAME", copying.BY_NAME.replace("'imported'", "'chat'"))
    with pytest.raises(Conflict, match="Something else brought in the same just then; nothing came in"):
        bring(project, lines(row(1), row(2)))
    assert Conversation.objects.count() == 1
    assert Import.objects.count() == 1


# --- Interrupted -----------------------------------------------------------------------------------------------------


def test_interrupted_by_its_person(project):
    def interrupt(step: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(project, lines(row(1)), progress=interrupt)
    assert not Conversation.objects.exists()
    assert not Import.objects.exists()


def test_interrupted_while_families_are_found(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(families, "join_pending", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bring(project, lines(row(1), row(2)))
    job = Import.objects.get()
    assert (job.state, job.report["conversations"]) == ("failed", 2)
    assert Conversation.objects.filter(family="").count() == 2
    assert "conversations added: 2" in go_on(job)
    assert (job.state, job.reason) == ("done", "")
    assert not Conversation.objects.filter(family="").exists()
    assert FamilyMember.objects.count() == 2


def test_another_import_goes_on_with_families(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(families, "join_pending", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bring(project, lines(row(1)))
    bring(project, lines(row(2)))
    assert not Conversation.objects.filter(family="").exists()


def test_what_others_joined_is_done_too(project, monkeypatch):
    def half(*, project, progress):
        progress(1, 2)

    monkeypatch.setattr(families, "join_pending", half)
    bring(project, lines(row(1), row(2)))
    job = Import.objects.get()
    assert (job.state, job.done, job.total) == ("done", 2, 2)


def test_whoever_lost_it_brings_nothing_in(project, monkeypatch):
    monkeypatch.setattr(copying, "MESSAGES", 1)
    job = upload(project, lines(row(1), row(2)))

    def lose(step: str, done: int, total: int | None) -> None:
        in_a_thread(lambda: Import.objects.filter(pk=job.pk).update(token=uuid.uuid4()))

    with pytest.raises(jobs.Lost):
        bringing.go_on(job=job, progress=lose)
    assert not Conversation.objects.exists()
    job.refresh_from_db()
    assert job.state == "running"
    run_out(job)
    assert "conversations added: 2" in go_on(job)


def test_what_a_killed_command_left_is_settled(project):
    nothing, taken, alive = running_here(project), running_here(project), running_here(project)
    Import.objects.filter(pk=taken.pk).update(report={"taken": True})
    background = upload(project, lines(row(1)))
    for job in (nothing, taken):
        run_out(job)
    assert imports.settle_lost() == 2
    states = dict(Import.objects.values_list("pk", "state"))
    assert states == {taken.pk: "done", alive.pk: "running", background.pk: "waiting"}
    assert imports.settle_lost() == 0


def others_at_work() -> bool:
    """Whether the server has a transaction of another connection."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
        )
        return cursor.fetchone()[0] > 0


@pytest.mark.slow
def test_killed_in_the_middle(project, tmp_path):
    rows = [json.dumps(row(number)) for number in range(4_000)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    process = subprocess.Popen(
        [sys.executable, "manage.py", "import_conversations", "-", "--project", "demo"],
        cwd=settings.BASE_DIR,
        env=site.environment(JOB_LEASE_SECONDS="1"),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.stdin.write("\n".join(rows).encode())
        process.stdin.flush()
        # The end of the file does not come. More than one batch is in the tables by now, and nobody sees it.
        site.wait_until(lambda: Import.objects.filter(done__gt=0).exists(), process=process)
        assert not Conversation.objects.exists()
    finally:
        process.kill()
        process.wait()
    assert not Conversation.objects.exists()
    assert not Message.objects.exists()
    # Only then does the server let go of what the killed one held.
    site.wait_until(lambda: not others_at_work())
    killed = Import.objects.get()
    assert killed.state == "running"
    run_out(killed)
    call_command("import_conversations", str(path), "--project", "demo", stdout=(told := StringIO()))
    assert "conversations added: 4,000; messages: 12,000" in told.getvalue()
    job = Import.objects.get()
    assert (job.state, job.source) == ("done", "rows.jsonl")
    assert not Conversation.objects.filter(family="").exists()
