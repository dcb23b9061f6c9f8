#!/usr/bin/env python3
"""Bothsides' command line: `manage.py help` lists the commands."""

import os
import sys


def main() -> None:
    """Runs one command. A bad setting, and a command that needs what is not running, is one line and exit code 2."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotate.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError
    from redis import ConnectionError as RedisConnectionError

    from annotate.env import BadSetting

    try:
        execute_from_command_line(sys.argv)
    except BadSetting as error:
        _refuse(str(error))
    except (ImproperlyConfigured, OperationalError, RedisConnectionError):
        if not _nothing_runs():
            raise
        _refuse("nothing is running: make run")


def _nothing_runs() -> bool:
    from django.conf import settings

    from annotate import embedded

    return settings.EMBEDDED and embedded.addresses(settings.BOTHSIDES_HOME) is None


def _refuse(line: str) -> None:
    print(line, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
