"""`python -m tests.bench [NAME …]`: run the benchmarks named, or all."""

import importlib
import sys

from tests import conftest  # noqa: F401  (starts servers of its own and sets Django up)

NAMES = [
    "queue",
    "http",
    "export",
    "imports",
    "sampling",
    "pages",
    "training",
    "user_turns",
    "figures",
    "streams",
    "web",
]


def main() -> None:
    """Run on a database of its own, made for this run."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES:
            sys.exit(f"There is no benchmark {name}. Benchmarks: {', '.join(NAMES)}.")
        importlib.import_module(f"tests.bench.{name}").main()


main()
