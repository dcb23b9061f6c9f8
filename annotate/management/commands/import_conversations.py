"""`manage.py import_conversations`: bring conversations and rankings from a file."""

import dataclasses
from pathlib import Path

from tqdm import tqdm

from annotate import projects
from annotate.datasets.incoming import bringing, files
from annotate.datasets.incoming.bringing import How
from annotate.datasets.incoming.formats import FORMATS, MENDS, PROMPTS, Options
from annotate.datasets.incoming.reports import LISTED, Report
from annotate.errors import Invalid, NotFound
from annotate.management.refusal import RefusingCommand
from annotate.models import Import

PARTS = {
    "conversations": "conversations added",
    "messages": "messages",
    "comparisons": "comparisons",
    "prompts": "prompts added",
    "system_messages": "system messages added",
    "there_already": "there already",
    "twice": "twice in the file",
    "changed_since": "under an id that came in before with another text, and left as they are",
    "comparisons_there_already": "comparisons there already",
    "comparisons_without_message": "comparisons left out with conversations that changed",
}
"""The counts of a report as they are told."""

ALWAYS = ("conversations", "messages", "there_already")


class Command(RefusingCommand):
    help = (
        "Bring conversations, with rankings where the file has them, into a project: JSON lines, a JSON list or "
        "Parquet, also .gz and .zst. The file comes in whole or not at all. What the project has already, by its text "
        "or by its id in the same source, is counted and left as it is, so that a file can be brought in again. "
        f"Formats: {'; '.join(f'{one.name}: {one.about}' for one in FORMATS.values())}; {PROMPTS}: openings only. "
        "docs/import-formats.md says how each becomes dialogue."
    )
    example = """
    manage.py import_conversations oasst_trees.jsonl.gz --project demo
    manage.py import_conversations train.parquet --format sharegpt --project demo --source sharegpt-v3
    manage.py import_conversations instructions.jsonl --format instructions --project demo --system none --on-error skip
    zcat pairs.jsonl.gz | manage.py import_conversations - --format hh --project demo --source hh-rlhf
    """

    def add_arguments(self, parser):
        parser.add_argument("file", metavar="FILE", nargs="?", help="a file, or - for standard input")
        parser.add_argument(
            "--format", default=bringing.AUTO, choices=bringing.NAMES, help="auto, the default, tells it by the fields"
        )
        parser.add_argument("--project", help="its slug")
        parser.add_argument(
            "--source",
            metavar="NAME",
            help="the set that it is from, by default the name of the file; an id names a row within its source",
        )
        parser.add_argument(
            "--system",
            default=bringing.OWN,
            metavar="project|none|TEXT",
            help="the system message of conversations that have none: that of the project (the default), none, or "
            "this text",
        )
        for option in dataclasses.fields(Options):
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                default=option.default,
                choices=option.metadata["choices"],
                help=f"{option.metadata['says']} The default is {option.default}.",
            )
        parser.add_argument(
            "--on-error",
            choices=bringing.ON_ERROR,
            default="stop",
            help="stop: one bad line and nothing comes in; skip: bad lines are left out and told",
        )
        parser.add_argument(
            "--go-on",
            type=int,
            metavar="ID",
            help="run an import that waits, or go on with one that was interrupted, instead of beginning one",
        )

    def handle(self, *args, **options):
        with _Bars() as bars:
            report = self._go_on(options, bars) if options["go_on"] is not None else self._bring(options, bars)
        for line, reason in report.refused_lines:
            self.stderr.write(f"line {line} left out: {reason}")
        if report.refused > LISTED:
            self.stderr.write(f"and {report.refused - LISTED:,} more")
        self.stdout.write(_told(report))

    def _bring(self, options: dict, bars: "_Bars") -> Report:
        file = options["file"]
        if file is None or options["project"] is None:
            raise Invalid("Name a FILE, or - for standard input, and its --project.")
        name = "stdin" if file == "-" else Path(file).name
        how = How.given({field.name: options[field.name] for field in dataclasses.fields(How)})
        project = projects.project_named(options["project"])
        before = Import.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        with files.lines_of(file, name=name) as rows:
            source = options["source"] or name
            try:
                return bringing.bring(project=project, rows=rows, how=how, source=source, progress=bars.show)
            except KeyboardInterrupt:
                asked = Import.objects.filter(pk__gt=before, project=project, source=source, state=Import.State.STOPPED)
                job = asked.order_by("-pk").first()
                self.stderr.write(
                    "Stopped; nothing came in."
                    if job is None
                    else f"Stopped; all of the file came in. manage.py import_conversations --go-on {job.pk} finds the "
                    "families that are left, as does the next import or export."
                )
                raise

    def _go_on(self, options: dict, bars: "_Bars") -> Report:
        if options["file"] is not None or options["project"] is not None:
            raise Invalid("--go-on takes an import as it was begun; leave FILE and --project out.")
        job = Import.objects.filter(pk=options["go_on"]).first()
        if job is None:
            raise NotFound(f"There is no import {options['go_on']}.")
        return bringing.go_on(job=job, progress=bars.show)


class _Bars:
    """One bar a step."""

    def __init__(self):
        self._bar: tqdm | None = None

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, step: str, done: int, total: int | None) -> None:
        """How far a step is."""
        if self._bar is None or self._bar.desc != step:
            self.__exit__()
            reading = step == bringing.READING
            how = {"unit": "B", "unit_scale": True, "unit_divisor": 1024} if reading else {"unit": " openings"}
            self._bar = tqdm(total=total, disable=None, **how)
            self._bar.desc = step
            self._bar.set_description_str(step, refresh=False)
        self._bar.update(done - self._bar.n)


def _told(report: Report) -> str:
    counts = vars(report)
    parts = [f"{told}: {counts[name]:,}" for name, told in PARTS.items() if counts[name] or name in ALWAYS]
    lines = [f"read as {report.format}: {report.lines:,} lines", "; ".join(parts)]
    if report.refused:
        lines.append(f"bad lines left out: {report.refused:,}")
    lines += [
        f"mended, {name.replace('_', ' ')}: {count:,} ({MENDS[name]})" for name, count in sorted(report.mends.items())
    ]
    return "\n".join(lines)
