"""Many replies watched at once on the site as `make run` starts it, and what other pages take meanwhile.

BENCH_WATCHERS says how many watch, BENCH_STREAM_MODEL which model writes: `endless`, the tiny one of the tests, which
writes as quickly as a server on a GPU does, or `demo`. Every text is compared with the stored one.
"""

import os
import tempfile
import time
from pathlib import Path

from tests import crowd, site, tiny

WATCHERS = [int(count) for count in os.environ.get("BENCH_WATCHERS", "50 200").split()]
MODEL = os.environ.get("BENCH_STREAM_MODEL", "endless")
TOKENS = int(os.environ.get("BENCH_STREAM_TOKENS", "1500" if MODEL == "endless" else "160"))
READERS = 4
QUIET_SECONDS = 8


def measured(running: site.Site, location: str, count: int) -> None:
    """Print one table: pages without streams, pages beside them, and the streams."""
    prepared = crowd.json.loads(
        crowd.shell(
            running, crowd.PREPARE, "PREPARED", LOCATION=location, TOKENS=TOKENS, WATCHERS=count, READERS=READERS
        )
    )
    port = int(running.url.rpartition(":")[2])
    ready = crowd.READY.format(policy=prepared["policy"])
    site.wait_until(lambda: crowd.shell(running, ready, "READY").startswith("ready"), seconds=120)

    def readers() -> list[crowd.Reader]:
        return [crowd.Reader(port, paths, session) for paths, session in prepared["readers"]]

    # What is read in and compiled at a first call is no part of it.
    crowd.reading(readers(), lambda: time.sleep(4))
    quiet = crowd.reading(readers(), lambda: time.sleep(QUIET_SECONDS))
    watchers = [crowd.Watcher(port, slot, session) for slot, session in prepared["watchers"]]
    begun = time.monotonic()
    beside = crowd.reading(readers(), lambda: crowd.watch_all(watchers))
    took = time.monotonic() - begun
    stored = crowd.stored(running)
    wrong = [one.slot for one in watchers if not one.right(stored[one.slot])]
    print(f"\n{count} replies of {TOKENS} tokens watched at once, model {MODEL}")
    print(f"{took:.0f} s, load of the machine {os.getloadavg()[0]:.1f}")
    print(f"{'ms':>34} {'median':>8} {'p99':>8} {'longest':>8}")
    rows = [
        (f"{len(quiet)} other pages, no streams", quiet),
        (f"{len(beside)} other pages beside them", beside),
        ("message to first text", [one.first_text * 1000 for one in watchers if one.first_text]),
        ("longest silence within a reply", [one.longest_silence * 1000 for one in watchers]),
    ]
    for name, values in rows:
        print(f"{name:>34} " + " ".join(f"{value:>8.0f}" for value in crowd.numbers(values)))
    print(
        f"{sum(one.pieces for one in watchers) / took:.0f} pieces a second, {len(wrong)} texts unlike the stored ones"
    )
    waited = sum(bool(one.crowded) for one in watchers)
    print(f"{waited} pages without a place for a while, {sum(one.crowded for one in watchers)} times in all")


def main() -> None:
    """Print a table for each number of watchers."""
    for count in WATCHERS:
        with tempfile.TemporaryDirectory(prefix="bothsides-bench-") as folder:
            home = Path(folder)
            demo = MODEL == "demo"
            location = "SmolLM2-135M-Instruct" if demo else str(tiny.build(home / "endless", stops=False))
            with site.up(home, demo=demo) as running:
                measured(running, location, count)
