"""One supervised child: started again after a pause that grows, and stopped whatever it does."""

import os
import sys
import time

import psutil
import pytest

from annotate import processes

pytestmark = pytest.mark.slow


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


def test_it_is_asked_to_end_once(child):
    says = "import signal, time; signal.signal(15, lambda *_: print('asked', flush=True)); print('up', flush=True)"
    one = child(f"{says}\nwhile True: time.sleep(1)", patience=1)
    assert not one.ask_to_end()
    one.start()
    while "up" not in one.log.read_text():
        time.sleep(0.05)
    assert one.ask_to_end()
    assert not one.ask_to_end()
    one.stop()
    assert one.log.read_text().split() == ["up", "asked"]


# --- Workers and GPUs ------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    """The environment on a machine with an `nvidia-smi` that prints this."""

    def make(printed, *, fails=False, **variables):
        (tmp_path / "listed").write_text(printed)
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\n[ "$*" = --list-gpus ] && cat {tmp_path}/listed\nexit {int(fails)}\n')
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}

    return make


TWO = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)\n"


def started(count, environment, device="auto"):
    return [
        (worker.name, worker.variables, worker.arguments[worker.arguments.index("--queues") + 1])
        for worker in processes.workers(count, device=device, environment=environment)
    ]


ALONE = [("worker", {}, "bothsides,jobs,training")]


def test_one_worker_a_gpu_of_which_the_first_runs_the_jobs(machine):
    assert started(0, machine(TWO)) == [
        ("worker-1", {"CUDA_VISIBLE_DEVICES": "0"}, "bothsides,jobs,training"),
        ("worker-2", {"CUDA_VISIBLE_DEVICES": "1"}, "bothsides"),
    ]


def test_what_a_gpu_is_divided_into_is_not_counted(machine):
    assert processes.gpus(machine("GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\n")) == ["0"]


@pytest.mark.parametrize(
    ("visible", "cards"),
    [("1,3", ["1", "3"]), ("GPU-2, MIG-1", ["GPU-2", "MIG-1"]), ("", []), ("-1", []), ("0,-1,2", ["0"])],
)
def test_only_gpus_that_are_visible_are_used(machine, visible, cards):
    assert processes.gpus(machine(TWO, CUDA_VISIBLE_DEVICES=visible)) == cards


def test_without_or_with_one_gpu_all_is_as_on_a_machine_without(machine, tmp_path):
    assert started(0, {"PATH": str(tmp_path)}) == ALONE
    assert started(0, machine(TWO.splitlines()[0])) == ALONE
    assert started(0, machine("NVIDIA-SMI has failed", fails=True)) == ALONE
    assert started(1, machine(TWO)) == ALONE


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_device_that_is_named_leaves_nothing_to_share_out(machine, device):
    assert started(0, machine(TWO), device) == ALONE
    assert [variables for _, variables, _ in started(2, machine(TWO), device)] == [{}, {}]


def test_more_workers_than_gpus_share_them(machine):
    cards = [variables["CUDA_VISIBLE_DEVICES"] for _, variables, _ in started(3, machine(TWO))]
    assert cards == ["0", "1", "0"]


def test_workers_have_names_of_their_own(machine):
    made = processes.workers(0, device="auto", environment=machine(TWO))
    assert [worker.arguments[-2:] for worker in made] == [("--hostname", "worker-1@%h"), ("--hostname", "worker-2@%h")]
