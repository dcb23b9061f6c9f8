"""The embedded PostgreSQL and Valkey: start, stop, crash, and what is left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from annotate import embedded

# Starts servers and processes again and again.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started():
    """Starts servers as often as asked and stops them all at the end."""
    every = []

    def start(home, *, throwaway=True):
        servers = embedded.start(home, throwaway=throwaway)
        every.append(servers)
        return servers

    yield start
    for servers in reversed(every):
        embedded.stop(servers)


def test_both_answer_and_their_addresses_can_be_read(started, tmp_path):
    postgres, valkey = started(tmp_path)
    found = embedded.addresses(tmp_path)
    assert found == {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url}
    with psycopg.connect(found["DATABASE_URL"]) as connection:
        encoding, database = connection.execute(
            "SELECT current_setting('server_encoding'), current_database()"
        ).fetchone()
    assert (encoding, database) == ("UTF8", "bothsides")
    with redis.Redis.from_url(found["REDIS_URL"]) as client:
        assert client.config_get("appendonly", "save") == {"appendonly": "no", "save": ""}


def test_nobody_else_reads_the_addresses(started, tmp_path):
    started(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    # The socket's folder is elsewhere where the home folder has a long name.
    assert modes.pop("postgres", 0o700) == 0o700
    assert modes == {"postgres.json": 0o600, "valkey.json": 0o600}


def test_valkey_refuses_who_has_no_password(started, tmp_path):
    _, valkey = started(tmp_path)
    address = valkey.url.rpartition("@")[2]
    with redis.Redis.from_url(f"redis://{address}") as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_ctrl_c_in_the_terminal_does_not_reach_them(started, tmp_path):
    for server in started(tmp_path):
        assert os.getsid(server.process.pid) != os.getsid(0)


def test_data_outlives_a_stop(started, tmp_path):
    servers = started(tmp_path)
    _keep(servers[0].url, "kept")
    embedded.stop(servers)
    assert embedded.addresses(tmp_path) is None
    assert _kept(started(tmp_path)[0].url) == "kept"


def test_data_outlives_a_crash(started, tmp_path):
    postgres, _ = started(tmp_path, throwaway=False)
    _keep(postgres.url, "kept")
    others = psutil.Process(postgres.process.pid).children()
    postgres.process.kill()
    postgres.process.wait(10)
    psutil.wait_procs(others, 10)
    assert embedded.addresses(tmp_path) is None
    assert _kept(started(tmp_path)[0].url) == "kept"


def test_a_postgres_that_was_left_over_is_ended_first(started, tmp_path):
    left_over, _ = started(tmp_path)
    _keep(left_over.url, "kept")
    postgres, _ = started(tmp_path)
    assert not left_over.running()
    assert _kept(postgres.url) == "kept"


def test_a_folder_too_long_for_a_socket(started, tmp_path):
    home = tmp_path / ("long" * 30)
    servers = started(home)
    _keep(embedded.addresses(home)["DATABASE_URL"], "kept")
    folder = servers[0].temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    embedded.stop(servers)
    assert not folder.exists()


def test_a_broken_cluster_is_one_clear_line(tmp_path):
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("18\n")
    with pytest.raises(embedded.EmbeddedError, match=r"^PostgreSQL ended at once: .*postgresql\.conf.*") as failure:
        embedded.start(tmp_path)
    assert "\n" not in str(failure.value)
    assert embedded.addresses(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent ended")
def test_they_end_when_their_starter_is_killed(tmp_path):
    script = f"""
import pathlib, time
from annotate import embedded
embedded.start(pathlib.Path({str(tmp_path)!r}))
print("up", flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout.readline() == "up\n"
        assert embedded.addresses(tmp_path)
        starter.kill()
    deadline = time.monotonic() + 20
    while embedded.addresses(tmp_path) is not None:
        assert time.monotonic() < deadline, "the servers outlived their starter"
        time.sleep(0.05)


def test_the_secret_key_is_made_once_and_private(tmp_path):
    assert embedded.stored_secret_key(tmp_path) == ""
    embedded.make_secret_key(tmp_path)
    key = embedded.stored_secret_key(tmp_path)
    embedded.make_secret_key(tmp_path)
    assert len(key) >= 50
    assert embedded.stored_secret_key(tmp_path) == key
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def _keep(url: str, text: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE thing AS SELECT %s AS text", [text])


def _kept(url: str) -> str:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT text FROM thing").fetchone()[0]
