"""Commands: a refusal is one line on standard error and exit code 2, and `--help` ends with an example."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from annotate.errors import Conflict
from annotate.management.refusal import Refused, RefusingCommand
from manage import main

ROOT = Path(__file__).resolve().parents[2]


class Refusing(RefusingCommand):
    """Refuses whatever it is asked."""

    help = "Refuse."
    requires_system_checks = ()

    def handle(self, *args, **options):
        raise Conflict("The state\nhas moved on.")


@pytest.fixture
def manage(monkeypatch, capfd):
    """Runs one line of the command as `manage.py` does, without a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["manage.py", *arguments])
        # Read from the environment when Django is set up, which it is.
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "annotate.settings")
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    pool = logging.getLogger("psycopg.pool")
    level = pool.level
    yield run
    # A command quiets it for as long as its process lasts.
    pool.setLevel(level)


def test_errors_of_the_record_are_refusals():
    with pytest.raises(Refused) as refusal:
        call_command(Refusing())
    assert refusal.value.returncode == 2
    assert str(refusal.value) == "The state has moved on."
    assert isinstance(refusal.value.__cause__, Conflict)


def test_a_refusal_on_the_command_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "manage.py", "check_export", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"Refused: {tmp_path} is no exported folder: manifest.json: No such file or directory.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "nothing", "--format", "ranked"],
        ["export", "comparisons", "--format", "csv"],
        ["import_prompts", "prompts.jsonl"],
        ["sample_comparisons", "--project", "demo", "--count", "many"],
    ],
)
def test_words_that_a_command_does_not_know_are_one_line(manage, arguments):
    done = manage(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"manage.py {arguments[0]}: error: " in done.stderr


def test_what_may_be_left_out_in_one_case_only_is_one_line(manage):
    done = manage("export", "comparisons")

    assert done.returncode == 2
    assert done.stderr.startswith("Refused: Name what to export")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["check_export", "export", "import_prompts", "sample_comparisons", "stats"])
def test_help_ends_with_an_example(manage, command):
    done = manage(command, "--help")
    assert done.returncode == 0
    assert f"example:\n  manage.py {command}" in done.stdout


def test_bytes_that_are_no_text():
    done = subprocess.run(
        [sys.executable, "manage.py", "import_conversations", b"caf\xe9.jsonl", "--project", "demo"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "Refused: FILE is not UTF-8: caf?.jsonl. A file may be renamed, or sent through a pipe.\n"
