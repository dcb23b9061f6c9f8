"""A training whose process is killed goes on from its last checkpoint, and is registered once."""

import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from annotate import training
from annotate.models import Policy, TrainingRun
from tests import factory, site, tiny
from tests.worker import preferences

pytest.importorskip("trl")

from tests.worker import liking

# Two processes read torch and trl.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.timeout(600)]

COMMON = {"save_steps": 1, "max_tokens": 200}
OPTIONS = {
    "reward": COMMON | {"epochs": 12.0, "batch_size": 4},
    "dpo": COMMON | {"epochs": 3.0, "batch_size": 8},
    "ppo": COMMON | {"episodes": 16 * 9, "batch_size": 16, "max_new_tokens": 12},
}


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


@pytest.fixture
def asked(home):
    """A run of any kind, on the same comparisons."""

    def make(kind: str) -> TrainingRun:
        tiny.build(home / "models" / "tiny")
        base = factory.policy(name="tiny", location="tiny")
        project = factory.project(served_by=base, overlap=2, secret="00" * 32)
        preferences.compare(project, {"train": 4})
        ranked, reward = preferences.exported(project), None
        if kind == "ppo":
            liking.build(home / "models" / liking.NAME, home / "models" / "tiny")
            reward = liking.run(ranked, base)
        export = preferences.exported(project, "prompt_only") if kind == "ppo" else ranked
        return training.prepare(kind=kind, exports=[export], base=base, reward=reward, options=OPTIONS[kind])

    return make


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_killed_training_goes_on(asked, home, kind):
    run = asked(kind)
    before = {path.name for path in (home / "models").iterdir()}
    child = begun(run, home)
    try:
        site.wait_until(lambda: run.points.filter(step__gte=3).exists(), seconds=280, process=child)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    run.refresh_from_db()
    assert (run.state, run.metrics) == ("running", {})
    assert {path.name for path in (home / "models").iterdir()} == before
    killed_at = run.points.last().step
    # As if its lease had run out.
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    again = begun(run, home)
    told, _ = again.communicate(timeout=280)
    assert again.returncode == 0, told
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    assert run.points.last().step == run.metrics.get("steps", run.metrics.get("updates")) > killed_at
    # What was measured before the last checkpoint is not measured again.
    assert run.points.get(step=1).created_at < run.started_at < run.points.last().created_at
    assert {path.name for path in (home / "models").iterdir()} == before | {run.location}
    assert Policy.objects.filter(run=run).count() == (kind != "reward")
