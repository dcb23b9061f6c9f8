"""Exports that are asked for from a page or by a program: checked here, written by a worker."""

from collections.abc import Callable

from annotate import exports
from annotate.datasets import filters, shards, snapshots
from annotate.errors import Invalid
from annotate.models import Export, Project, User


def ask(
    *,
    project: Project,
    what: str,
    format: str,
    given: dict,
    files: dict,
    created_by: User,
    may_read: Callable[[Project], bool],
) -> Export:
    """Have a worker write an export under these filters, given by name as `filters.parse` takes them.

    `may_read` says of another project whether what it exported may be mixed in. Raises Invalid, and NotFound for an
    export that there is not.
    """
    if what not in snapshots.WHATS:
        raise Invalid(f"There is no export of {what}. What there is: {', '.join(snapshots.WHATS)}.")
    formats = snapshots.WHATS[what].formats
    if format not in formats:
        raise Invalid(f"There is no format {format} of {what}. Formats: {', '.join(formats)}.")
    wanted = filters.parse(what, given)
    for mix in getattr(wanted, "mix", ()):
        _check_mix(mix, project, may_read)
    return snapshots.prepare(
        what=snapshots.WHATS[what],
        project=project,
        format=format,
        filters=wanted,
        files=shards.parse(files),
        created_by=created_by,
    )


def _check_mix(mix: filters.Mix, project: Project, may_read: Callable[[Project], bool]) -> None:
    """Whoever asks from afar must not read projects that are not theirs."""
    mixed = export_of(mix)
    if mixed.project_id != project.pk and not may_read(mixed.project):
        raise exports.unknown(mix.export)


def export_of(mix: filters.Mix) -> Export:
    """The export that is mixed in. Raises Invalid where it is a file: whoever asks from afar must not read files of
    this machine; NotFound for an export that there is not."""
    if f"{mix.name}:" == filters.EXPORT:
        raise Invalid(f"mix: {mix} names no weight; write {filters.EXPORT}NUMBER:WEIGHT.")
    if mix.export is None:
        raise Invalid(
            f"mix: {mix.name} is a file, and files are mixed in by manage.py export only. Import it, export it, and "
            f"name that export here as {filters.EXPORT}NUMBER:WEIGHT."
        )
    return exports.named(mix.export)
