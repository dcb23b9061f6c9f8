"""The tiny model, once a process, in the folder of models where policies find it by name."""

import pytest
from django.conf import settings

from tests import tiny


@pytest.fixture(scope="session")
def tiny_models():
    """The folder of models, with `tiny`, which ends its turns, and `endless`, which never does."""
    models = settings.BOTHSIDES_HOME / "models"
    tiny.build(models / "tiny")
    tiny.build(models / "endless", stops=False)
    return models
