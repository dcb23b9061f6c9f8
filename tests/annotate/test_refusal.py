"""Commands: a refusal is one line on standard error and exit code 2, and `--help` ends with an example."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from annotate.errors import Conflict
from annotate.management.refusal import Refused, RefusingCommand

ROOT = Path(__file__).resolve().parents[2]


class Refusing(RefusingCommand):
    """Refuses whatever it is asked."""

    help = "Refuse."
    requires_system_checks = ()

    def handle(self, *args, **options):
        raise Conflict("The state\nhas moved on.")


def manage(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_errors_of_the_record_are_refusals():
    with pytest.raises(Refused) as refusal:
        call_command(Refusing())
    assert refusal.value.returncode == 2
    assert str(refusal.value) == "The state has moved on."
    assert isinstance(refusal.value.__cause__, Conflict)


def test_a_refusal_on_the_command_line(tmp_path):
    done = manage("check_export", str(tmp_path))
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
def test_words_that_a_command_does_not_know_are_one_line(arguments):
    done = manage(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"manage.py {arguments[0]}: error: " in done.stderr


def test_what_may_be_left_out_in_one_case_only_is_one_line():
    done = manage("export", "comparisons")

    assert done.returncode == 2
    assert done.stderr.startswith("Refused: Name what to export")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["check_export", "export", "import_prompts", "sample_comparisons", "stats"])
def test_help_ends_with_an_example(command):
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
