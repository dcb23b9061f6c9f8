"""The tiny model, once a run, in the folder of models where policies find it by name."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from annotate import processes
from tests import factory, tiny
from worker.serving import Serving


@pytest.fixture(scope="session")
def tiny_models():
    """The folder of models, with `tiny`, which ends its turns, and `endless`, which never does."""
    models = settings.BOTHSIDES_HOME / "models"
    models.mkdir(exist_ok=True)
    for name, stops in (("tiny", True), ("endless", False)):
        made = tiny.build(Path(tempfile.mkdtemp(dir=models)) / name, stops=stops)
        # Of the processes of one run the first one has made it; they are all the same.
        with contextlib.suppress(OSError):
            made.rename(models / name)
    return models


@pytest.fixture
def serve(tiny_models):
    """Starts the loop of a policy; all are ended with the test."""
    started = []

    def start(policy):
        loop = Serving(policy, "worker", lambda: None)
        started.append(loop)
        loop.start()
        return loop

    yield start
    for loop in started:
        loop.drain(0)
    for loop in started:
        loop.join(20)
        assert not loop.is_alive()


@pytest.fixture
def launch(tiny_models, tmp_path):
    """Starts a worker on this test's database; what is still running ends with the test.

    `app` is the module of its Celery app.
    """
    running = []

    def start(*, app="worker.app", **environment):
        parts = connection.settings_dict
        host = parts["OPTIONS"].get("host") or parts["HOST"]
        address = f"postgresql://{parts['USER']}@/{parts['NAME']}?host={host.replace('/', '%2F')}"
        quick = {
            "DATABASE_URL": address,
            "REDIS_URL": settings.REDIS_URL,
            "WORKER_POLL_SECONDS": "0.2",
            "WORKER_HEARTBEAT_SECONDS": "0.5",
            "WORKER_DEVICE": "cpu",
            "SAMPLING_LEASE_SECONDS": "2",
        }
        log = (tmp_path / f"worker-{len(running)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, *(app if part == "worker.app" else part for part in processes.WORKER)],
            env=os.environ | quick | environment,
            cwd=settings.BASE_DIR,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def policy(tiny_models):
    return factory.policy(location="tiny")


@pytest.fixture
def endless(tiny_models):
    return factory.policy(location="endless")
