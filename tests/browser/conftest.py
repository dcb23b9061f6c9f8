"""The whole site as `make run` starts it, on data of its own, and a real Chromium in front of it."""

import itertools
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import site

# What comes at once on a quiet machine takes long where all cores are busy with the model.
expect.set_options(timeout=30_000)

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def running(tmp_path_factory) -> Iterator[site.Site]:
    """`manage.py up` in an empty home folder, until the tests are done."""
    with site.up(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; each page has a context of its own."""
    with site.chromium() as browser:
        yield browser


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console complained of; nothing is expected."""
    return []


@pytest.fixture
def open_page(running, chromium, complaints, request, tmp_path):
    """Opens a page in a browser context of its own, signed in by a link; keeps a picture where a test fails."""
    pages: list[Page] = []

    def open_one(link: str | None = None, **options) -> Page:
        context = chromium.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
        context.set_default_timeout(60_000)
        page = context.new_page()
        pages.append(page)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if link:
            page.goto(link)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(f"{running.url}/")
        return page

    yield open_one
    failed = getattr(request.node, "failed", False)
    for number, page in enumerate(pages):
        if failed:
            page.screenshot(path=tmp_path / f"failed-{number}.png", full_page=True)
        page.context.close()


@pytest.fixture
def own_project(running):
    """Puts a project of the test's own into the site, with the work of `prepared.make` and one person.

    Returns the project's slug and the person's sign-in link.
    """

    def put(role: str = "trainer", **work) -> tuple[str, str]:
        number = next(_numbers)
        call = f"from tests.browser import prepared; prepared.make(number={number}, role={role!r}, **{work!r})"
        return f"own-{number}", running.manage("shell", "--no-imports", "--command", call).strip()

    return put


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Lets fixtures know whether the test has failed."""
    outcome = yield
    item.failed = getattr(item, "failed", False) or outcome.get_result().failed
