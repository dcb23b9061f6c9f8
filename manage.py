#!/usr/bin/env python3
"""Bothsides' command line: `manage.py help` lists the commands."""

import logging
import os
import sys


def main() -> None:
    """Runs one command. A bad setting, and a command that needs what is not running, is one line and exit code 2.

    Ctrl-C is one line too."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotate.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError
    from redis import ConnectionError as RedisConnectionError
    from redis import TimeoutError as RedisTimeoutError

    from annotate.env import BadSetting

    # One for each attempt to connect, while the command waits; what comes of it is told below.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    try:
        execute_from_command_line(sys.argv)
    except BadSetting as error:
        _refuse(str(error))
    except (ImproperlyConfigured, OperationalError, RedisConnectionError, RedisTimeoutError) as error:
        if _nothing_runs():
            _refuse("nothing is running: make run")
        if isinstance(error, RedisConnectionError | RedisTimeoutError):
            _refuse(f"Redis at {_redis_address()} does not answer")
        line = (_database_silence() or _database_went(error)) if isinstance(error, OperationalError) else ""
        if not line:
            raise
        _refuse(line)
    except KeyboardInterrupt:
        # As a shell tells a command that Ctrl-C ended.
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def _nothing_runs() -> bool:
    from django.conf import settings

    from annotate import embedded

    return settings.EMBEDDED and embedded.addresses(settings.BOTHSIDES_HOME) is None


def _database_silence() -> str:
    """What is to be said where the database lets nobody in; empty where it does, and the error was another one."""
    import psycopg
    from django.conf import settings

    entry = settings.DATABASES["default"]
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "NAME"}
    known = {name: entry[key] for name, key in names.items() if entry.get(key)}
    options = {name: value for name, value in entry["OPTIONS"].items() if name != "pool"}
    try:
        psycopg.connect(**{"connect_timeout": 3} | known | options).close()
    except psycopg.Error as error:
        # libpq says where it failed, then why, then what may be done about it on further lines.
        reason = (str(error).splitlines() or [""])[0].rpartition(" failed: ")[2]
        return f"the database at {entry['HOST'] or 'localhost'}:{entry['PORT'] or 5432} does not answer: {reason}"
    return ""


def _database_went(error: Exception) -> str:
    """What is to be said where the database answers again, but its connection broke in the middle; else empty."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    # Its server was shut down or crashed, or nobody said why.
    if state and not state.startswith(("57P", "08")):
        return ""
    return f"the connection to the database broke: {' '.join(str(error).split())[:200]}; run it again"


def _redis_address() -> str:
    from urllib.parse import urlsplit

    from django.conf import settings

    url = urlsplit(settings.REDIS_URL)
    return f"{url.hostname or 'localhost'}:{url.port or 6379}"


def _refuse(line: str) -> None:
    print(line, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
