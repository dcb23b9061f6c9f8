"""Fifty replies watched at once on the whole site, with no setting made, while others read its pages."""

import json
import statistics

import pytest

from tests import crowd, site, tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WATCHERS, READERS, TOKENS = 50, 3, 400
COLLAPSED_MS = 5000
"""A page that takes so long waits for streams and not for a busy machine; `tests.bench streams` measures the budget."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    home = tmp_path_factory.mktemp("site")
    with site.up(home, demo=False) as found:
        yield found


@pytest.fixture(scope="module")
def prepared(running):
    location = str(tiny.build(running.home / "endless", stops=False))
    values = {"LOCATION": location, "TOKENS": TOKENS, "WATCHERS": WATCHERS, "READERS": READERS}
    found = json.loads(crowd.shell(running, crowd.PREPARE, "PREPARED", **values))
    ready = crowd.READY.format(policy=found["policy"])
    site.wait_until(lambda: crowd.shell(running, ready, "READY").startswith("ready"), seconds=120)
    return found


def test_fifty_streams_lose_and_repeat_no_character_and_leave_the_pages_quick(running, prepared):
    port = int(running.url.rpartition(":")[2])
    watchers = [crowd.Watcher(port, slot, session) for slot, session in prepared["watchers"]]
    readers = [crowd.Reader(port, paths, session) for paths, session in prepared["readers"]]
    times = crowd.reading(readers, lambda: crowd.watch_all(watchers))
    stored = crowd.stored(running)
    assert [one.slot for one in watchers if not one.right(stored[one.slot])] == []
    # What is seen comes in pieces; a page that had no place until its reply was over sees none of them.
    assert statistics.median(one.pieces for one in watchers) > 3
    assert sum(not one.crowded for one in watchers) > WATCHERS / 2
    _, slowest, _ = crowd.numbers(times)
    assert slowest < COLLAPSED_MS
