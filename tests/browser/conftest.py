"""The whole site as `make run` starts it, on data of its own, and a real Chromium in front of it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests import site

QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


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
            cwd=site.ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def running(tmp_path_factory) -> Iterator[Site]:
    """`manage.py up` in an empty home folder, until the tests are done."""
    home = tmp_path_factory.mktemp("site")
    port = site.free_port()
    ours = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SITE_URL", "LOG_LEVEL", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"BOTHSIDES_HOME": str(home), "PORT": str(port), "SWEEP_SECONDS": "1"}
    log = home / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up"],
            cwd=site.ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        site.wait_until(lambda: "Admin:" in log.read_text(), seconds=170, process=process)
        yield Site(f"http://127.0.0.1:{port}", home, environment, log.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium where it is installed, else the one that Playwright has brought."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console complained of; nothing is expected."""
    return []


@pytest.fixture
def open_page(running, chromium, complaints, request, tmp_path):
    """Opens a page in a browser context of its own, signed in by a printed link; keeps a picture where a test fails."""
    pages: list[Page] = []

    def open_one(who: str | None = None, **options) -> Page:
        context = chromium.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if who:
            page.goto(running.link(who))
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(f"{running.url}/")
        return page

    yield open_one
    failed = getattr(request.node, "failed", False)
    for number, page in enumerate(pages):
        if failed:
            page.screenshot(path=tmp_path / f"failed-{number}.png", full_page=True)
        page.context.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Lets fixtures know whether the test has failed."""
    outcome = yield
    item.failed = getattr(item, "failed", False) or outcome.get_result().failed
