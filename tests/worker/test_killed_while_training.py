"""A training whose process is killed goes on from its last checkpoint, and is registered once."""

import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from annotate import training
from annotate.models import TrainingRun
from tests import factory, site, tiny
from tests.worker import preferences

pytest.importorskip("trl")

# Two processes read torch and trl.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.timeout(600)]

OPTIONS = {"epochs": 12.0, "batch_size": 4, "save_steps": 1, "max_tokens": 200}


@pytest.fixture
def home(tmp_path, settings):
    settings.BOTHSIDES_HOME = tmp_path
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    return tmp_path


def begun(run: TrainingRun, home) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "manage.py", "train", "--go-on", str(run.pk), "--foreground"],
        cwd=django_settings.BASE_DIR,
        env=site.environment(BOTHSIDES_HOME=str(home), OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_training_goes_on(home):
    tiny.build(home / "models" / "tiny")
    base = factory.policy(name="tiny", location="tiny")
    project = factory.project(served_by=base, overlap=2, secret="00" * 32)
    preferences.compare(project, {"train": 4})
    export = preferences.exported(project)
    run = training.prepare(kind="reward", exports=[export], base=base, options=OPTIONS)
    child = begun(run, home)
    try:
        site.wait_until(lambda: run.points.filter(step__gte=3).exists(), seconds=280, process=child)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    run.refresh_from_db()
    assert (run.state, run.metrics) == ("running", {})
    assert [path.name for path in (home / "models").iterdir()] == ["tiny"]
    killed_at = run.points.last().step
    # As if its lease had run out.
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    again = begun(run, home)
    told, _ = again.communicate(timeout=280)
    assert again.returncode == 0, told
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    assert run.points.last().step == run.metrics["steps"] > killed_at
    # What was measured before the last checkpoint is not measured again.
    assert run.points.get(step=1).created_at < run.started_at < run.points.last().created_at
    assert sorted(path.name for path in (home / "models").iterdir()) == sorted(["tiny", run.location])
