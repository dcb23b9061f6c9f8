"""A passage whose process is killed goes on: the same exports with the same bytes, no training run registered twice."""

import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from annotate import jobs, passages, training
from annotate.datasets import checkpoint, snapshots, writing
from annotate.models import Export, Passage, Policy, TrainingRun
from tests import factory, site, tiny
from tests.annotate.test_export_going_on import killed
from tests.worker import preferences
from worker.training import passage as walking
from worker.training import running, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.timeout(600)]

DPO = {"learning_rate": 1e-3, "epochs": 12, "batch_size": 4, "at_once": 4, "max_tokens": 200, "save_steps": 1}


@pytest.fixture(autouse=True)
def home(tmp_path, settings, monkeypatch):
    settings.BOTHSIDES_HOME = tmp_path
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    monkeypatch.setattr(writing, "CHUNK", 1)
    monkeypatch.setattr(writing, "KEEP_SECONDS", 0)
    return tmp_path


def project_with_rankings(**fields):
    project = factory.project(overlap=2, secret="00" * 32, **fields)
    preferences.compare(project, {"train": 4})
    return project


def let_leases_run_out():
    """As if time had passed since the process died."""
    for model in jobs.KINDS.values():
        model.objects.filter(state="running").update(lease_until=timezone.now() - timedelta(seconds=1))


def went_once(passage: Passage, trainings: list[str]) -> None:
    passage.refresh_from_db()
    assert passage.state == "done"
    assert sorted(TrainingRun.objects.values_list("kind", "state")) == [(kind, "done") for kind in trainings]
    assert Export.objects.count() == len(passage.steps["export"])
    new = Policy.objects.get(run__isnull=False)
    assert sorted(passage.project.iterations.values_list("number", "state")) == [(1, "closed"), (2, "open")]
    assert passage.opens.reply_policy == new


@pytest.mark.parametrize(
    ("module", "name", "at"),
    [
        (checkpoint, "keep", 3),
        (snapshots.stored, "save", 1),
        (work.Work, "measure", 1),
        (work.Work, "measure", 3),
        (running, "put_in_place", 1),
        (running, "put_in_place", 2),
        (training, "register", 2),
        (passages.iterations, "open_next", 1),
    ],
    ids=lambda value: str(getattr(value, "__name__", value)).rpartition(".")[2],
)
def test_killed_within_a_step_it_goes_on(monkeypatch, module, name, at):
    monkeypatch.setattr(running, "TRAINERS", dict.fromkeys(TrainingRun.Kind.values, "tests.worker.quick_trainer"))
    project = project_with_rankings(recipe={"policy": "dpo"})
    wanted = preferences.exported(project)
    digest = wanted.digest
    passage = passages.prepare(project=project)
    killed(lambda: walking.go_on(passage, progress=lambda *_: None), module=module, name=name, at=at)
    passage.refresh_from_db()
    assert passage.state == "running"
    assert project.policies.count() == 1
    let_leases_run_out()
    walking.go_on(passage, progress=lambda *_: None)
    wanted.delete()
    went_once(passage, ["dpo", "reward"])
    assert Export.objects.get().digest == digest


def begun(project, home) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "manage.py", "iterate", "--project", project.slug],
        cwd=django_settings.BASE_DIR,
        env=site.environment(BOTHSIDES_HOME=str(home), OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_command_killed_in_a_training_goes_on_from_its_checkpoint(home):
    pytest.importorskip("trl")
    tiny.build(home / "models" / "tiny")
    base = factory.policy(name="tiny", location="tiny")
    project = project_with_rankings(served_by=base, recipe={"reward": None, "policy": "dpo", "dpo": DPO})
    child = begun(project, home)
    try:
        site.wait_until(lambda: TrainingRun.objects.filter(points__step__gte=3).exists(), seconds=280, process=child)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    run = TrainingRun.objects.get()
    export = Export.objects.get()
    assert (run.state, list(project.policies.all())) == ("running", [base])
    killed_at = run.points.last().step
    let_leases_run_out()
    again = begun(project, home)
    told, _ = again.communicate(timeout=280)
    assert again.returncode == 0, told
    assert f"Iteration 2 is open. Trainers chat with {project.slug}-dpo-{run.pk}" in told
    went_once(Passage.objects.get(), ["dpo"])
    assert Export.objects.get().digest == export.digest
    run.refresh_from_db()
    assert run.points.last().step > killed_at
    # What was measured before the last checkpoint is not measured again.
    assert run.points.get(step=1).created_at < run.started_at < run.points.last().created_at
