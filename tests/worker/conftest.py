"""The tiny model, once a run, in the folder of models where policies find it by name."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from django.conf import settings

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
def policy(tiny_models):
    return factory.policy(location="tiny")


@pytest.fixture
def endless(tiny_models):
    return factory.policy(location="endless")
