"""Files of conversations into the record: whole or not at all, each conversation once.

The rows of a file come in within one transaction. Their families are found after it, and that can be interrupted:
whatever comes next, an import, an export or the sweep, goes on with them.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePath

from django.core.files.base import File
from django.db import IntegrityError, connection, transaction

from annotate import families, imports, jobs, projects
from annotate.datasets import openings
from annotate.datasets.incoming import files, formats
from annotate.datasets.incoming.copying import Copying
from annotate.datasets.incoming.files import Rows
from annotate.datasets.incoming.formats import FORMATS, PROMPTS, Bad, Options
from annotate.datasets.incoming.reports import Report
from annotate.errors import Conflict, Invalid
from annotate.models import Import, Project, User

AUTO = "auto"
NAMES = (*FORMATS, PROMPTS, AUTO)
"""The formats that can be asked for."""

ON_ERROR = ("stop", "skip")

OWN, NONE = "project", "none"
"""Where the system message of a conversation that has none comes from: the project, or nowhere. Else it is a text."""

SHOWN = 20
"""Bad lines that are looked for where one is enough to refuse the file."""

READING, FAMILIES = "Reading", "Finding families"
"""The steps."""

OFTEN = 100
"""Lines after which it is told how far the work is."""

Progress = Callable[[str, int, int | None], None]
"""What is being done, how much of it is, and of how much: bytes of the file, then openings."""


@dataclass(frozen=True)
class How:
    """How a file is to be read, and what its bad lines mean."""

    format: str = AUTO
    few_shot: str = "apart"
    broken: str = "mend"
    system: str = OWN
    on_error: str = "stop"

    def __post_init__(self) -> None:
        """Raises Invalid where something is not what it may be."""
        if self.format not in NAMES:
            raise Invalid(f"There is no format {self.format}. Formats: {', '.join(NAMES)}.")
        if self.on_error not in ON_ERROR:
            raise Invalid(f"on_error is {' or '.join(ON_ERROR)}, not {self.on_error!r}.")
        if not isinstance(self.system, str) or not self.system.strip():
            raise Invalid(f"system is {OWN}, {NONE} or the text of a system message; it is empty.")
        self.options()

    @classmethod
    def given(cls, given: dict) -> "How":
        """From the options that somebody named. Raises Invalid where there is none of that name, or it is wrong."""
        unknown = [name for name in given if name not in cls.__dataclass_fields__]
        if unknown:
            raise Invalid(f"There is no option {unknown[0]}. Options: {', '.join(cls.__dataclass_fields__)}.")
        return cls(**given)

    @classmethod
    def of(cls, job: Import) -> "How":
        """As an import was asked for."""
        return cls.given(job.options | {"format": job.format})

    def as_options(self) -> dict:
        """As they are kept with an import, beside its format."""
        return {name: value for name, value in asdict(self).items() if name != "format"}

    def options(self) -> Options:
        """What concerns the readers of the formats."""
        return Options(few_shot=self.few_shot, broken=self.broken)


def quiet(step: str, done: int, total: int | None) -> None:
    """Tell nobody."""


def bring(
    *, project: Project, rows: Rows, how: How, source: str, progress: Progress = quiet, created_by: User | None = None
) -> Report:
    """Bring the rows of a file into a project, and tell what came of them.

    `source` names the set that they are from: a row whose id came from the same source in an earlier import is there
    already. Raises Invalid where the file is damaged, a line is bad and `how` does not skip those, or nothing in it
    is good; Conflict where something else brought in the same at that moment. Nothing is left behind then.
    """
    imports.settle_lost(project=project)
    job = imports.make(
        project=project, source=source, format=how.format, options=how.as_options(), created_by=created_by
    )
    try:
        with jobs.running(job) as run:
            return _run(run, rows, progress)
    except BaseException:
        imports.forget_unless_taken(job)
        raise


def prepare(*, project: Project, file: File, how: How, source: str = "", created_by: User | None = None) -> Import:
    """Keep an upload and have a worker bring it in. Raises Invalid for a source without a name."""
    options = how.as_options()
    return imports.ask(
        project=project,
        file=file,
        format=how.format,
        on_error=options.pop("on_error"),
        options=options,
        source=source or PurePath(file.name or "").name,
        created_by=created_by,
    )


def go_on(*, job: Import, progress: Progress = quiet) -> Report:
    """Bring in an upload that waits, or find the families after an import whose families were not all found.

    Raises as `bring`, and Conflict where it runs elsewhere or is done. What is refused stays as failed, with its
    report.
    """
    if not job.background and job.state in (Import.State.FAILED, Import.State.STOPPED):
        jobs.put_back(job)
    with jobs.running(job) as run:
        if job.report.get("taken"):
            return _run(run, None, progress)
        with imports.opened(job) as file, files.lines_of(file, name=PurePath(job.file).name) as rows:
            return _run(run, rows, progress)


def _run(run: jobs.Run, rows: Rows | None, progress: Progress) -> Report:
    job = run.job

    def tell(step: str, done: int, total: int | None) -> None:
        progress(step, done, total)
        run.tell(step=step, done=done, total=total)

    report = Report.from_json(job.report) if rows is None else _taken(run, rows, tell)
    families.join_pending(project=job.project, progress=lambda done, total: tell(FAMILIES, done, total))
    # Somebody else may have joined some of them.
    job.done = job.done if job.total is None else job.total
    jobs.end(job, token=run.token, state=Import.State.DONE)
    imports.forget_upload(job)
    return report


def _taken(run: jobs.Run, rows: Rows, progress: Progress) -> Report:
    """Bring the rows in, in one transaction. Where they are refused, what is known of them is kept with a job that
    stays."""
    job, report = run.job, Report()
    how = How.of(job)
    try:
        with transaction.atomic():
            report.format = formats.recognise(rows.first(), rows.name) if how.format == AUTO else how.format
            _wait_for_others(job.project)
            bring_rows = _bring_prompts if report.format == PROMPTS else _bring_conversations
            bring_rows(job, rows, how, report, progress)
            if report.refused and how.on_error == "stop":
                told = report.told_refused() + ("; it was read no further" if report.refused == SHOWN else "")
                raise Invalid(f"Nothing was imported: {told}. With --on-error skip the rest comes in.")
            if not report.found:
                told = f": {report.told_refused(SHOWN)}" if report.refused else ""
                raise Invalid(f"{rows.name} holds nothing that can be imported{told}.")
            report.taken = True
            imports.keep_report(job, token=run.token, report=report.as_json())
    except IntegrityError as error:
        told = " ".join(str(error).split())
        raise Conflict(f"Something else brought in the same just then; nothing came in. Try again ({told}).") from error
    except Invalid:
        imports.keep_report(job, token=run.token, report=report.nothing_came_in().as_json())
        raise
    return report


def _wait_for_others(project: Project) -> None:
    """One import of a project at a time: the next one sees what this one brought."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('import into project ' || %s, 0))", [project.pk])


def _bring_conversations(job: Import, rows: Rows, how: How, report: Report, progress: Progress) -> None:
    system = {OWN: job.project.system_message, NONE: ""}.get(how.system, how.system)
    copying = Copying(imported_in=job, system=system.strip(), report=report)
    for line, found in _watched(formats.read(rows, format=report.format, options=how.options()), rows, progress):
        report.lines += 1
        try:
            if isinstance(found, Bad):
                raise found
            copying.add(found)
            report.mends.update(found.mended)
        except Bad as bad:
            report.refuse(line, str(bad))
            copying.only_checks = how.on_error == "stop"
            if copying.only_checks and report.refused == SHOWN:
                return
    copying.finish()


def _bring_prompts(job: Import, rows: Rows, how: How, report: Report, progress: Progress) -> None:
    def good() -> Iterator[projects.Opening]:
        before = 0
        for line, found in openings.read_values(_watched(rows, rows, progress), source=job.source):
            report.lines += line != before
            before = line
            if not isinstance(found, openings.BadLine):
                yield found
                continue
            report.refuse(line, str(found))
            if how.on_error == "stop" and report.refused == SHOWN:
                return

    report.prompts, report.there_already = projects.insert_prompts(project=job.project, openings=good())


def _watched(found: Iterator, rows: Rows, progress: Progress) -> Iterator:
    for number, one in enumerate(found):
        if number % OFTEN == 0:
            progress(READING, rows.read, rows.size)
        yield one
    progress(READING, rows.read, rows.size)
