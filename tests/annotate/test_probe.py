"""`python -m annotate.probe`: what containers are looked after by."""

import os
import socket
import subprocess
import sys

import pytest
from django.conf import settings

from annotate import probe, processes, streams
from tests.site import environment, free_port, wait_until, web_server

HERE = socket.gethostname()
EVERYWHERE = "0.0.0.0"  # noqa: S104 (as in a container)
NOTHING_HELD = '{"policies": {}}'


def probed(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and what was said."""
    command = [sys.executable, "-m", "annotate.probe", *arguments]
    done = subprocess.run(
        command, cwd=settings.BASE_DIR, env=os.environ | variables, capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stderr.strip()


def test_a_worker_of_this_machine():
    assert "no worker of" in probe.silence("worker")
    streams.client().set(f"{streams.HEARTBEAT}{HERE}-2:7", NOTHING_HELD)
    assert "no worker of" in probe.silence("worker"), "that is another machine's"
    streams.client().set(f"{streams.HEARTBEAT}{HERE}:7", NOTHING_HELD)
    assert probe.silence("worker") == ""


def test_the_beat_of_this_machine():
    streams.tick("another")
    assert "rung for no sweep" in probe.silence("beat")
    streams.tick(HERE)
    assert probe.silence("beat") == ""
    assert 0 < streams.client().pttl(f"{streams.TICK}{HERE}") <= streams.tick_seconds() * 1000


@pytest.mark.parametrize("process", ["worker", "beat"])
def test_while_the_broker_is_away_nothing_is_started_again(process, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    streams.client.cache_clear()
    try:
        assert probe.silence(process) == ""
        streams.tick(HERE)
    finally:
        streams.client.cache_clear()


def test_the_command_says_why_in_one_line():
    code, said = probed("web", PORT=str(free_port()))
    assert code == 1
    assert "/livez does not answer" in said
    assert "\n" not in said
    assert probed("worker")[0] == 1
    assert probed("sweep") == (2, "python -m annotate.probe web, worker or beat")
    assert probed()[0] == 2


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_web_server_that_answers():
    with web_server(BIND=EVERYWHERE, WEB_PROCESSES="1", SITE_URL="https://bothsides.example.org") as port:
        code, said = probed("web", PORT=str(port), BIND=EVERYWHERE, http_proxy="http://127.0.0.1:1")
    assert (code, said) == (0, "")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_beat_shows_that_it_lives(tmp_path):
    variables = environment(SWEEP_SECONDS="0.2")
    beat = [sys.executable, *processes.BEAT, "--schedule", str(tmp_path / "beat")]
    with subprocess.Popen(beat, cwd=settings.BASE_DIR, env=variables) as process:
        try:
            wait_until(lambda: streams.ticks(HERE), process=process)
            assert probed("beat") == (0, "")
        finally:
            process.terminate()
