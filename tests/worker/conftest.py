"""The tiny model, once a run, in the folder of models where policies find it by name."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from django.conf import settings

from tests import tiny


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
