"""`manage.py up`: the whole site on one machine, from its database to its pages, until Ctrl-C."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError

from annotate import embedded, processes, static_files
from annotate.management.refusal import Refused, RefusingCommand

HEALTH_PATIENCE_SECONDS = 180


class Command(RefusingCommand):
    """Supervises the embedded servers, the web server, the workers and the sweep."""

    help = (
        "Starts PostgreSQL and Valkey (unless DATABASE_URL and REDIS_URL are set), migrates, prepares the demo, "
        "and runs web server, workers (one a GPU) and sweep until Ctrl-C."
    )
    example = "PORT=8080 manage.py up"
    requires_system_checks = ()

    def add_arguments(self, parser) -> None:
        parser.add_argument(
            "--no-demo", action="store_true", help="neither demo project nor demo model; always so in production"
        )

    def handle(self, *args, **options) -> None:
        self.home: Path = settings.BOTHSIDES_HOME
        self.demo = settings.EMBEDDED and not options["no_demo"]
        self.servers: list[embedded.Server] = []
        self.children: list[processes.Child] = []
        self.environment = os.environ | {"BOTHSIDES_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        lock = self._lock()
        (self.home / "log").mkdir(exist_ok=True)
        self._require_free_port()
        # Shells start background jobs deaf to Ctrl-C; who runs this under nohup means to be deaf to hanging up.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        try:
            self._start()
            while True:
                self._look()
                time.sleep(0.2)
        except KeyboardInterrupt:
            self._say("Stopping (Ctrl-C again to hurry):")
        except embedded.EmbeddedError as error:
            raise CommandError(str(error)) from None
        finally:
            self._stop()
            lock.close()

    def _lock(self):
        """Holds the home folder; the system lets go of it when this process ends, however it ends."""
        folder = self.home / "run"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "up.lock").open("a+")
        except OSError as error:
            raise Refused(f"BOTHSIDES_HOME cannot be used: {error}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Refused(f"already running on {self.home}: {lock.read().strip()}") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, {settings.SITE_URL}\n")
        lock.flush()
        return lock

    def _require_free_port(self) -> None:
        with socket.socket() as probe:
            # As the web server does: connections of an earlier one that still linger do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.BIND, settings.PORT))
            except OSError as error:
                address = f"{settings.BIND}:{settings.PORT}"
                raise Refused(f"cannot listen on {address}: {error.strerror}; set PORT to another one") from None

    def _start(self) -> None:
        if settings.EMBEDDED:
            embedded.make_secret_key(self.home)
            self._say(f"Starting PostgreSQL and Valkey on {self.home} …")
            self.servers = embedded.start(self.home)
        model = self._manage("bring_demo_model") if self.demo else None
        static = self._collect_static()
        self._say("Migrating the database …")
        self._finish(self._manage("migrate", "--no-input", "--verbosity", "0"))
        links = ""
        if self.demo:
            self._say("Preparing the demo …")
            links = self._finish(self._manage("prepare_demo"))
        if static:
            self._finish(static)
            self._static_stamp().write_text(static_files.fingerprint())
        self._say("Starting the web server …")
        self._supervise("web", processes.WEB, patience=10)
        beat = (*processes.BEAT, "--schedule", str(self.home / "run" / "beat"))
        self._supervise("beat", beat, patience=10)
        if model:
            if model.poll() is None:
                self._say("Bringing the demo model (once: it is converted) …")
            self._finish(model, needed=False)
        workers = processes.workers(settings.WORKERS, device=settings.WORKER_DEVICE, environment=self.environment)
        self._say("Starting the worker …" if len(workers) == 1 else f"Starting {len(workers)} workers …")
        self.workers = len(workers)
        for worker in workers:
            self._supervise(worker.name, worker.arguments, patience=60, variables=worker.variables)
        missing = self._wait_for_health()
        if missing:
            self._say(f"Still missing: {missing}; see {self.home / 'log'}")
        self._say(f"\nBothsides is at {settings.SITE_URL} (Ctrl-C stops it)")
        if links:
            self._say(f"Sign in as\n{links}")

    def _collect_static(self) -> subprocess.Popen | None:
        """Begins to collect style sheets and scripts, unless they are those of the last time: it takes seconds."""
        stamp = self._static_stamp()
        if stamp.exists() and stamp.read_text() == static_files.fingerprint():
            return None
        stamp.unlink(missing_ok=True)
        return self._manage("collectstatic", "--no-input", "--verbosity", "0")

    def _static_stamp(self) -> Path:
        return settings.STATIC_ROOT / ".fingerprint"

    def _manage(self, *arguments: str) -> subprocess.Popen:
        """Begins a management command beside this one; what it has to say goes to its log."""
        with self._log(arguments[0]).open("w") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=settings.BASE_DIR,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=embedded.die_with_parent(signal.SIGTERM),
            )

    def _finish(self, command: subprocess.Popen, *, needed: bool = True) -> str:
        """Waits for a management command and returns what it printed. Raises when it failed and was needed."""
        name = command.args[2]
        try:
            output, _ = command.communicate()
        except BaseException:
            command.terminate()
            command.wait()
            raise
        if command.returncode == 0:
            return output.rstrip()
        lines = [line.strip() for line in self._log(name).read_text(errors="replace").splitlines()]
        reason = next(filter(None, reversed(lines)), "no reason given")
        if needed:
            raise CommandError(f"{name} failed: {reason} ({self._log(name)})")
        self._say(f"{name} failed: {reason} ({self._log(name)})")
        return ""

    def _log(self, name: str) -> Path:
        return self.home / "log" / f"{name}.log"

    def _supervise(
        self, name: str, arguments: Sequence[str], *, patience: float, variables: dict[str, str] | None = None
    ) -> None:
        child = processes.Child(
            name=name,
            arguments=arguments,
            folder=settings.BASE_DIR,
            environment=self.environment | (variables or {}),
            log=self._log(name),
            patience=patience,
        )
        self.children.append(child)
        child.start()

    def _look(self) -> None:
        """One round of supervision: what has ended is started again."""
        for child in self.children:
            line = child.keep_running()
            if line:
                self._say(line)
        ended = [server.name for server in self.servers if not server.running()]
        if ended:
            # New servers may have new addresses, so everything that holds one is started again with them.
            self._say(f"{' and '.join(ended)} ended; starting everything again …")
            self._stop_children()
            embedded.stop(self.servers)
            self.servers = embedded.start(self.home)
            for child in self.children:
                child.start()

    def _wait_for_health(self) -> str:
        """Waits until everything answers; returns what does not, when patience ends."""
        host = "127.0.0.1" if settings.BIND == "0.0.0.0" else settings.BIND  # noqa: S104 (compared, not bound)
        deadline = time.monotonic() + HEALTH_PATIENCE_SECONDS
        while True:
            self._look()
            try:
                with urllib.request.urlopen(f"http://{host}:{settings.PORT}/healthz", timeout=5):
                    return ""
            except urllib.error.HTTPError as answer:
                missing = answer.read(500).decode(errors="replace")
            except OSError:
                missing = "the web server"
            if time.monotonic() > deadline:
                return missing
            time.sleep(0.2)

    def _stop(self) -> None:
        """Web, sweep, worker (which gives back what it holds), Valkey, PostgreSQL: each before what it needs."""
        signal.signal(signal.SIGINT, lambda *_: [child.kill() for child in self.children])
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._stop_children()
        for server in reversed(self.servers):
            if server.running():
                self._say(f"  {server.name}")
            server.stop()

    def _stop_children(self) -> None:
        """One after the other; the workers all at once, as each may take a while to finish what it holds."""
        for child in self.children:
            for one in self.children[-self.workers :] if child.name.startswith("worker") else [child]:
                if one.ask_to_end():
                    self._say(f"  {one.name}")
            child.stop()

    def _say(self, line: str) -> None:
        try:
            self.stdout.write(line)
            self.stdout.flush()
        except OSError:
            # The terminal or the pipe is gone; stopping in order matters more.
            pass
