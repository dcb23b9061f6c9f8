"""Processes of the site as the tests start them: a web server on a test's own database, or `up` as a whole."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection

from annotate import processes

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process that works on the test's own database and broker."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    url = urlunsplit(parts._replace(path=f"/{connection.settings_dict['NAME']}"))
    return os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)} | changes


def wait_until(answers, *, seconds: float = 60, process: subprocess.Popen | None = None) -> None:
    """Until `answers()` is true. Raises AssertionError when it takes too long or the process has ended."""
    end = time.monotonic() + seconds
    while not answers():
        assert process is None or process.poll() is None, f"it ended with {process.poll()}"
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def lives(port: int) -> bool:
    """Whether a web server answers there."""
    try:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        link.request("GET", "/livez")
        return link.getresponse().status == 200
    except OSError:
        return False


@contextlib.contextmanager
def web_server(**changes: str) -> Iterator[int]:
    """The web server on the test's own database; its port."""
    port = free_port()
    changes = {"PORT": str(port), "SITE_URL": f"http://127.0.0.1:{port}", "WEB_PROCESSES": "2"} | changes
    process = subprocess.Popen(
        [sys.executable, *processes.WEB],
        cwd=settings.BASE_DIR,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: lives(port), process=process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Site:
    """A running site: its address, its home folder, its environment and what its start printed."""

    url: str
    home: Path
    environment: dict[str, str]
    printed: str

    def link(self, who: str) -> str:
        """The printed sign-in link of the trainer, the reviewer or the admin."""
        return re.search(rf"{who}:\s+(\S+)", self.printed).group(1)

    def manage(self, *arguments: str, status: int = 0) -> str:
        """What a management command prints, run beside the site as an engineer does."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout


@contextlib.contextmanager
def up(home: Path, *, demo: bool = True, **changes: str) -> Iterator[Site]:
    """The whole site as `make run` starts it, on a home folder of its own, with further variables set."""
    port = free_port()
    ours = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SITE_URL", "LOG_LEVEL", "PYTEST_CURRENT_TEST")
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= {"BOTHSIDES_HOME": str(home), "PORT": str(port), "SWEEP_SECONDS": "1"} | changes
    arguments, ready = ([], "Admin:") if demo else (["--no-demo"], "Ctrl-C stops it")
    log = home / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up", *arguments],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: ready in log.read_text(), seconds=400, process=process)
        yield Site(f"http://127.0.0.1:{port}", home, variables, log.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium():
    """Debian's Chromium where it is installed, else the one that Playwright has brought."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


class Api:
    """One person's REST client, on a connection that stays open."""

    def __init__(self, port: int, token: str):
        self.link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        """Status and JSON of the answer."""
        for last in (False, True):
            try:
                self.link.request(method, f"/api/v1/{path}", json.dumps(body or {}), self.headers)
                answer = self.link.getresponse()
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
            except (http.client.HTTPException, ConnectionError):
                # A server may close a connection that was idle; nothing was sent on it then.
                self.link.close()
                if last:
                    raise
        raise AssertionError("unreachable")
