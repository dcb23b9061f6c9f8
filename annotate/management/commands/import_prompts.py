"""`manage.py import_prompts`: bring openings from a file."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from annotate import projects
from annotate.datasets import openings
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand


class Command(RefusingCommand):
    help = (
        "Add openings to a project. FILE holds JSON lines (or a JSON list) with a field prompt, text or instruction; "
        "an instruction's input, or that of each of its instances, is joined to it. All else is plain text, one "
        "opening a line. What the project has already is counted and left as it is."
    )
    example = """
    manage.py import_prompts instructions.jsonl --project demo
    manage.py import_prompts - --project demo --use-case brainstorming < ideas.txt
    """

    def add_arguments(self, parser):
        parser.add_argument("file", metavar="FILE", help="a file, or - for standard input")
        parser.add_argument("--project", required=True, help="its slug")
        parser.add_argument("--use-case", default="", help="of openings that name none themselves")
        parser.add_argument(
            "--on-error",
            choices=["stop", "skip"],
            default="stop",
            help="stop: one bad line and nothing comes in; skip: bad lines are left out and told",
        )

    def handle(self, *args, **options):
        project = projects.project_named(options["project"])
        done = openings.import_prompts(
            project=project,
            lines=tqdm(_lines(options["file"]), unit=" lines", disable=None),
            source="stdin" if options["file"] == "-" else Path(options["file"]).name,
            use_case=options["use_case"],
            skip_bad=options["on_error"] == "skip",
        )
        for number, reason in done.bad:
            self.stderr.write(f"line {number} left out: {reason}")
        self.stdout.write(
            f"prompts added to {project.slug}: {done.added:,}; there already or twice: {done.duplicates:,}; "
            f"bad lines left out: {len(done.bad):,}"
        )


def _lines(name: str) -> Iterator[bytes]:
    if name == "-":
        yield from sys.stdin.buffer
        return
    try:
        with open(name, "rb") as file:
            yield from file
    except OSError as error:
        raise Invalid(f"{name} cannot be read: {error.strerror}.") from error
