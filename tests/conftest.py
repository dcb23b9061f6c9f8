"""PostgreSQL and Valkey for the tests: one pair a run, in a temporary folder, shared by the xdist workers.

They start while this file is imported: the settings read their addresses, and test modules and the conftest
files of folders below import models, which need the settings.
"""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate import embedded

# Modules and tests come in and stay: looking for what of them is garbage takes as long as reading them does.
gc.disable()

_servers: list[embedded.Server] = []


def _start_servers() -> None:
    home = Path(tempfile.mkdtemp(prefix="bothsides-test-"))
    atexit.register(_stop_servers, home)
    # Whitenoise warns of a missing folder in every client.
    (home / "static").mkdir()
    _servers.extend(embedded.start(home, throwaway=True))
    database, broker = _servers
    os.environ |= {
        "BOTHSIDES_HOME": str(home),
        "DATABASE_URL": database.url,
        "REDIS_URL": broker.url,
        "SECRET_KEY": "of-tests-only-" * 4,
        "SITE_URL": "http://127.0.0.1:8000",
        "LOG_LEVEL": "WARNING",
        # Two tests run at once, and tiny models are no faster with more.
        "OMP_NUM_THREADS": "1",
    }


def _stop_servers(home: Path) -> None:
    embedded.stop(_servers)
    shutil.rmtree(home, ignore_errors=True)


def _use_settings() -> None:
    import django
    from django.conf import settings

    if settings.configured:
        pytest.exit("DJANGO_SETTINGS_MODULE is set: the settings were read before the tests' servers started", 2)
    os.environ["DJANGO_SETTINGS_MODULE"] = "annotate.settings"
    # Names with hashes exist only after collectstatic.
    settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django.setup()
    _empty_quickly()
    # Or xdist's workers would inherit it and read the settings before they come here.
    del os.environ["DJANGO_SETTINGS_MODULE"]


def _empty_quickly() -> None:
    """After a test that commits, delete its few rows: TRUNCATE makes hundreds of files anew each time."""
    from django.db.backends.postgresql.operations import DatabaseOperations

    def sql_flush(operations, style, tables, *, reset_sequences=False, allow_cascade=False) -> list[str]:
        return [f"DELETE FROM {operations.quote_name(table)}" for table in tables]  # noqa: S608

    DatabaseOperations.sql_flush = sql_flush


_xdist_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if not _xdist_worker:
    _start_servers()
else:
    # Of one Valkey, workers gw0, gw1, … have the databases 1, 2, …
    _number = int(_xdist_worker.removeprefix("gw")) + 1
    os.environ["REDIS_URL"] = f"{os.environ['REDIS_URL'].rpartition('/')[0]}/{_number}"
    # Their databases give the same ids, after which working folders of exports are called.
    _home = Path(os.environ["BOTHSIDES_HOME"]) / _xdist_worker
    (_home / "static").mkdir(parents=True, exist_ok=True)
    os.environ["BOTHSIDES_HOME"] = str(_home)
_use_settings()


def pytest_collection_finish() -> None:
    """From here on there is garbage again, but not among what is there before the first test."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.fixture(autouse=True)
def empty_broker() -> None:
    """Every test begins with an empty Redis database."""
    from annotate import streams

    streams.client().flushdb()


def _rows(django_db_setup, django_db_blocker) -> Iterator[None]:
    """What fixtures of the same scope make in the database, its tests share; after the last one it is gone.

    What a test itself does is undone after it, as everywhere. Not for modules with tests that commit.
    """
    from django.db import transaction

    with django_db_blocker.unblock(), transaction.atomic():
        yield
        transaction.set_rollback(True)


module_rows = pytest.fixture(scope="module")(_rows)
class_rows = pytest.fixture(scope="class")(_rows)


@pytest.fixture
def private_servers(tmp_path: Path) -> Iterator[list[embedded.Server]]:
    """A PostgreSQL and a Valkey of the test's own, `[postgres, valkey]`, which it may kill or flush."""
    home = tmp_path / "private"
    servers = embedded.start(home, throwaway=True)
    yield servers
    embedded.stop(servers)


@pytest.fixture
def folders(settings, tmp_path: Path) -> Path:
    """A home of the test's own, in which everything lies that exports and imports may leave behind."""
    settings.BOTHSIDES_HOME = tmp_path / "home"
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "home" / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    return settings.BOTHSIDES_HOME


@pytest.fixture
def rung(monkeypatch) -> list[tuple[str, int]]:
    """The jobs that were rung for, which no worker hears."""
    from annotate import bell

    heard: list[tuple[str, int]] = []
    monkeypatch.setattr(bell, "ring_for_job", lambda kind, pk: heard.append((kind, pk)))
    return heard


@pytest.fixture
def admin_client(client):
    """Signed in as an admin, who is no superuser."""
    from annotate.models import Role
    from tests import factory

    client.force_login(factory.person(role=Role.ADMIN), backend="sesame.backends.ModelBackend")
    return client
