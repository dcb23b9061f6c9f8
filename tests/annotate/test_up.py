"""`manage.py up`: the whole life of the site, what it refuses, and what manage.py says when nothing runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from annotate import embedded
from tests.worker.watching import words_of

# Starts servers and processes again and again.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a new user's shell holds, and the home folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "BOTHSIDES_HOME": str(home),
        "WORKER_HEARTBEAT_SECONDS": "1",
        "WEB_PROCESSES": "1",
        **more,
    }


def manage(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    """Runs one command to its end."""
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(command, env=environment(home, **more), capture_output=True, text=True, timeout=120)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Site:
    """A running `manage.py up --no-demo` and what it printed so far."""

    def __init__(self, home: Path, **more: str):
        self.home, self.port = home, free_port()
        self.output = home.with_suffix(".output")
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--no-demo"]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, env=environment(home, PORT=self.port, **more), stdout=output, stderr=subprocess.STDOUT
            )

    def wait_for(self, text: str, *, seconds: float = 120) -> str:
        deadline = time.monotonic() + seconds
        while text not in (printed := self.output.read_text()):
            assert self.process.poll() is None, f"up ended: {printed}"
            assert time.monotonic() < deadline, f"no {text!r} in: {printed}"
            time.sleep(0.05)
        return printed

    def get(self, path: str) -> tuple[int, dict]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            return answer.code, json.load(answer)

    def child(self, word: str) -> psutil.Process:
        [found] = [child for child in psutil.Process(self.process.pid).children() if word in words_of(child)]
        return found

    def end(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        self.process.wait(120)
        return self.output.read_text()


@pytest.fixture
def start(tmp_path):
    """Starts `up` as often as asked, on one home folder, and ends whatever still runs."""
    sites = []

    def begin(**more: str) -> Site:
        sites.append(Site(tmp_path / "home", **more))
        return sites[-1]

    yield begin
    for site in sites:
        if site.process.poll() is None:
            site.end(signal.SIGTERM)


@pytest.mark.slow
def test_from_start_to_ctrl_c(start, tmp_path):
    site = start()
    site.wait_for("Bothsides is at")
    assert site.get("/healthz") == (200, {"status": "ok", "missing": []})

    # Beside it, commands use the same data.
    beside = manage(site.home, "showmigrations", "annotate")
    assert (beside.returncode, "[X] 0001_initial" in beside.stdout) == (0, True)

    # A second one on the same home is refused, whatever its port.
    second = manage(site.home, "up", PORT=free_port())
    assert second.returncode == 2
    assert "already running" in second.stderr
    assert len(second.stderr.splitlines()) == 1

    # What dies is started again.
    beat = site.child("beat")
    beat.kill()
    site.wait_for("beat ended (signal SIGKILL); starting it again in 1 s")
    _until(lambda: site.child("beat").pid != beat.pid)

    everything = psutil.Process(site.process.pid).children(recursive=True)
    printed = site.end(signal.SIGINT)
    assert site.process.returncode == 0
    stopped = printed[printed.index("Stopping") :].split()
    assert stopped[-5:] == ["web", "beat", "worker", "Valkey", "PostgreSQL"]
    assert not [process for process in everything if process.is_running()]
    assert embedded.addresses(site.home) is None


@pytest.mark.slow
def test_the_same_data_after_being_killed(start):
    site = start()
    site.wait_for("Starting the web server")
    _create_user(site.home, "kept@example.org")
    servers = psutil.Process(site.process.pid).children(recursive=True)
    site.end(signal.SIGKILL)
    if sys.platform == "linux":
        _, left = psutil.wait_procs(servers, 30)
        assert not left
    again = start()
    again.wait_for("Starting the web server")
    listed = manage(again.home, "shell", "-v0", "-c", "print([user.email for user in User.objects.all()])")
    assert "kept@example.org" in listed.stdout


@pytest.mark.slow
def test_a_database_that_dies_is_started_again(start):
    site = start()
    site.wait_for("Bothsides is at")
    site.child("-D").send_signal(signal.SIGQUIT)
    site.wait_for("PostgreSQL ended; starting everything again")
    _until(lambda: site.get("/healthz")[0] == 200, seconds=60)


@pytest.mark.slow
def test_one_worker_for_each_gpu(start, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: One (UUID: GPU-1)'\necho 'GPU 1: Two (UUID: GPU-2)'\n")
    program.chmod(0o755)
    site = start(PATH=f"{folder}:{os.environ['PATH']}")
    assert "Starting 2 workers" in site.wait_for("Bothsides is at")
    workers = [site.child(f"worker-{number}@%h") for number in (1, 2)]
    assert [worker.environ()["CUDA_VISIBLE_DEVICES"] for worker in workers] == ["0", "1"]
    assert [("bothsides,jobs,training" in worker.cmdline()) for worker in workers] == [True, False]
    for number in (1, 2):
        _until(lambda number=number: f"worker-{number}@" in (site.home / "log" / f"worker-{number}.log").read_text())
    assert site.end(signal.SIGINT).split()[-6:] == ["web", "beat", "worker-1", "worker-2", "Valkey", "PostgreSQL"]


@pytest.mark.slow
def test_on_servers_that_are_there_already(start, private_servers):
    database, broker = private_servers
    site = start(DATABASE_URL=database.url, REDIS_URL=broker.url, SECRET_KEY="k" * 50)
    printed = site.wait_for("Bothsides is at")
    assert "PostgreSQL" not in printed
    assert site.get("/healthz")[0] == 200
    stopped = site.end(signal.SIGTERM)
    assert stopped[stopped.index("Stopping") :].split()[-3:] == ["web", "beat", "worker"]
    assert database.running()
    assert broker.running()
    assert not (site.home / "postgres").exists()
    assert not (site.home / "secret_key").exists()


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = manage(tmp_path, "up", PORT=port)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        f"Refused: cannot listen on 127.0.0.1:{port}: Address already in use; set PORT to another one"
    ]


def test_a_home_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "run").write_text("in the way")
    refused = manage(tmp_path, "up")
    assert refused.returncode == 2
    assert refused.stderr.startswith("Refused: BOTHSIDES_HOME cannot be used: ")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [("showmigrations",), ("migrate",), ("shell", "-c", "User.objects.count()")])
def test_a_command_while_nothing_runs(tmp_path, command):
    refused = manage(tmp_path, *command)
    assert refused.returncode == 2
    assert refused.stderr == "nothing is running: make run\n"


def test_a_command_after_the_servers_were_killed(tmp_path):
    servers = embedded.start(tmp_path, throwaway=True)
    for server in servers:
        server.process.kill()
        server.process.wait()
    refused = manage(tmp_path, "showmigrations")
    assert (refused.returncode, refused.stderr) == (2, "nothing is running: make run\n")


@pytest.mark.parametrize("command", [("stats",), ("migrate",)])
def test_a_database_that_does_not_answer(tmp_path, command):
    port = free_port()
    urls = {"DATABASE_URL": f"postgresql://x:geheim@127.0.0.1:{port}/x", "REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    refused = manage(tmp_path, *command, SECRET_KEY="k" * 64, SITE_URL="https://example.org", **urls)
    assert refused.stderr == f"the database at 127.0.0.1:{port} does not answer: Connection refused\n"
    assert (refused.returncode, refused.stdout) == (2, "")


def test_redis_that_does_not_answer(tmp_path):
    port = free_port()
    urls = {"DATABASE_URL": "postgresql://x:geheim@127.0.0.1:1/x", "REDIS_URL": f"redis://:geheim@127.0.0.1:{port}/0"}
    look = "from django.core.cache import cache; cache.get('a')"
    command = ("shell", "--no-imports", "-c", look)
    refused = manage(tmp_path, *command, SECRET_KEY="k" * 64, SITE_URL="https://example.org", **urls)
    assert refused.stderr == f"Redis at 127.0.0.1:{port} does not answer\n"
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_command_that_is_interrupted(tmp_path):
    done = manage(tmp_path, "shell", "--no-imports", "-c", "raise KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_a_database_that_goes_away_in_the_middle(tmp_path):
    servers = embedded.start(tmp_path, throwaway=True)
    try:
        end = "SELECT pg_terminate_backend(pg_backend_pid())"
        run = f"from django.db import connection; connection.cursor().execute('{end}')"
        refused = manage(tmp_path, "shell", "--no-imports", "-c", run)
        wrong = manage(tmp_path, "shell", "--no-imports", "-c", run.replace("pg_terminate_backend", "nonsense"))
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()
    assert refused.stderr.startswith("the connection to the database broke: terminating connection due to admin")
    assert refused.stderr.endswith("; run it again\n")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert wrong.stderr.startswith("Traceback")


@pytest.mark.parametrize("command", [("help",), ("up", "--help"), ("makemigrations", "--check", "--dry-run")])
def test_commands_that_need_nothing(tmp_path, command):
    done = manage(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"PORT": "http"}, "PORT must be a whole number, not 'http'"),
        ({"WEB_THREADS": "1"}, "WEB_THREADS must be at least 2, not 1"),
        ({"WORKER_DEVICE": "gpu"}, "WORKER_DEVICE must be auto, cpu, cuda, cuda: with a number, or mps, not 'gpu'"),
        ({"WORKER_DTYPE": "int8"}, "WORKER_DTYPE must be one of auto, float32, bfloat16, float16, not 'int8'"),
        ({"SITE_URL": "example.org"}, "SITE_URL must start with http:// or https:// and name a host"),
        ({"DATABASE_URL": "postgresql:///x"}, "REDIS_URL is missing: set both DATABASE_URL and REDIS_URL"),
        ({"REDIS_URL": "redis://x"}, "DATABASE_URL is missing: set both DATABASE_URL and REDIS_URL"),
        ({"DATABASE_URL": "postgresql:///x", "REDIS_URL": "redis://x"}, "SECRET_KEY is missing"),
        (
            {"DATABASE_URL": "mysql://u:hush@h/x", "REDIS_URL": "redis://x", "SECRET_KEY": "k" * 50},
            "DATABASE_URL must look like postgresql://",
        ),
        (
            {"DATABASE_URL": "postgresql:///x", "REDIS_URL": "amqp://u:hush@h", "SECRET_KEY": "k" * 50},
            "REDIS_URL must look like redis://",
        ),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(tmp_path, variables, line):
    refused = manage(tmp_path, "migrate", **variables)
    assert refused.returncode == 2
    assert refused.stderr.startswith(line)
    assert len(refused.stderr.splitlines()) == 1
    assert "hush" not in refused.stderr


def test_a_url_that_does_not_answer_is_an_error(tmp_path):
    production = {
        "DATABASE_URL": f"postgresql://u@127.0.0.1:{free_port()}/x?connect_timeout=2",
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "SECRET_KEY": "k" * 50,
        "PORT": free_port(),
    }
    failed = manage(tmp_path, "up", **production)
    assert failed.returncode == 1
    assert failed.stderr.startswith("CommandError: migrate failed: ")
    assert "PostgreSQL and Valkey" not in failed.stdout


def _create_user(home: Path, email: str) -> None:
    made = manage(home, "shell", "-v0", "-c", f"User.objects.create_user({email!r})")
    assert made.returncode == 0, made.stderr


def _until(condition, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (ValueError, OSError, psutil.Error):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
