"""One supervised child: started again after a pause that grows, and stopped whatever it does."""

import os
import sys
import time

import psutil
import pytest

from annotate import processes


@pytest.fixture
def child(tmp_path):
    """Makes a child that runs a Python text, and ends what is left of it."""
    made = []

    def make(text, patience=10.0):
        made.append(
            processes.Child(
                name="thing",
                arguments=("-c", text),
                folder=tmp_path,
                environment=dict(os.environ),
                log=tmp_path / "log" / "thing.log",
                patience=patience,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.kill()


def test_output_goes_to_its_log(child):
    one = child("import sys; print('said'); print('complained', file=sys.stderr)")
    one.start()
    one.process.wait(30)
    assert sorted(one.log.read_text().split()) == ["complained", "said"]


def test_the_pause_before_each_start_doubles(child, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    one = child("raise SystemExit(3)")
    one.start()
    pauses = []
    for _ in range(7):
        one.process.wait(30)
        line = one.keep_running()
        assert line.startswith("thing ended (exit code 3); starting it again in ")
        pauses.append(int(line.split(" in ")[1].split(" s;")[0]))
        clock[0] += pauses[-1] - 0.1
        assert one.keep_running() == ""
        assert one.process is None
        clock[0] += 0.2
        assert one.keep_running() == ""
        assert one.process is not None
    assert pauses == [1, 2, 4, 8, 16, 30, 30]

    # One that had settled is started again soon.
    one.process.wait(30)
    clock[0] += processes.SETTLED_SECONDS + 1
    assert " in 1 s;" in one.keep_running()


def test_one_that_does_not_listen_is_ended_with_all_it_started(child, tmp_path):
    text = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(other.pid, flush=True)
time.sleep(600)
"""
    one = child(text, patience=0.2)
    one.start()
    deadline = time.monotonic() + 30
    while not (said := one.log.read_text()).endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started, process = psutil.Process(int(said)), one.process
    one.stop()
    assert process.returncode == -9
    assert not one.running()
    psutil.wait_procs([started], 10)
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_in_the_terminal_does_not_reach_it(child):
    one = child("import time; time.sleep(600)")
    one.start()
    assert os.getpgid(one.process.pid) != os.getpgid(0)


def test_a_large_log_makes_room(child, monkeypatch):
    monkeypatch.setattr(processes, "LARGEST_LOG_BYTES", 10)
    one = child("print('new')")
    one.log.parent.mkdir()
    one.log.write_text("old " * 10)
    one.start()
    one.process.wait(30)
    assert one.log.read_text() == "new\n"
    assert one.log.with_suffix(".log.1").read_text() == "old " * 10


def test_the_python_is_ours(child):
    one = child("import sys; print(sys.executable)")
    one.start()
    one.process.wait(30)
    assert one.log.read_text().strip() == sys.executable
