"""Whether the process of this container lives: `python -m annotate.probe web`, `worker` or `beat`.

It ends with 0 while that process lives, and with 1 and one line where it does not, so that whoever looks after
containers starts it again. No `manage.py` command, because those load every application, which takes a core for a
second each time that somebody looks.
"""

import os
import socket
import sys
import urllib.request

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotate.settings")

import redis
from django.conf import settings

from annotate import streams

PATIENCE_SECONDS = 5


def silence(process: str) -> str:
    """Why a process of this machine is thought to be dead; empty while it lives.

    While the broker does not answer nothing is known of worker and beat: to start them again would bring no broker
    back, and a worker would have to load its models anew.
    """
    if process == "web":
        return _web()
    try:
        return _worker() if process == "worker" else _beat()
    except redis.RedisError:
        return ""


def _web() -> str:
    # What listens on all addresses listens on this one too.
    host = "127.0.0.1" if settings.BIND in ("0.0.0.0", "[::]") else settings.BIND  # noqa: S104 (compared, not bound)
    address = f"http://{host}:{settings.PORT}/livez"
    try:
        # Its own address is no business of a proxy's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        asked = urllib.request.Request(address, headers={"Host": "localhost"})
        opener.open(asked, timeout=PATIENCE_SECONDS).close()
    except OSError as error:
        return f"{address} does not answer: {error}"
    return ""


def _worker() -> str:
    here = f"{socket.gethostname()}:"
    if any(name.startswith(here) for name in streams.heartbeats()):
        return ""
    return f"no worker of {here[:-1]} has shown that it lives within {3 * settings.WORKER_HEARTBEAT_SECONDS:g} s"


def _beat() -> str:
    here = socket.gethostname()
    if streams.ticks(here):
        return ""
    return f"the beat of {here} has rung for no sweep within {streams.tick_seconds():g} s"


def main() -> None:
    """Look, say why not, and end with 0 or 1; with 2 where no process of the site is named."""
    looks = {"web", "worker", "beat"}
    if len(sys.argv) != 2 or sys.argv[1] not in looks:
        print("python -m annotate.probe web, worker or beat", file=sys.stderr)
        sys.exit(2)
    reason = silence(sys.argv[1])
    if reason:
        print(reason, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
