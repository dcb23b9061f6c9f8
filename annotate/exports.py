"""Exports: found, stopped, gone on with, compared; the files themselves are written by `annotate.datasets`."""

from django.db.models import QuerySet

from annotate import jobs
from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Export, Project

DIGEST_CHARACTERS = 6
"""At least so much of a digest names an export."""


def listed(project: Project | None = None) -> QuerySet[Export]:
    """The exports of a project or of all, the oldest first, with what a list shows of each."""
    found = Export.objects.select_related("project", "iteration").order_by("id")
    return found if project is None else found.filter(project=project)


def named(text: str, *, project: Project | None = None) -> Export:
    """The export of this number or digest, or of the beginning of one. Raises NotFound, and Invalid where several
    exports have it."""
    text = text.strip().lower()
    if text.isdecimal() and len(text) < 19 and (export := listed(project).filter(pk=int(text)).first()):
        return export
    found = []
    if len(text) >= DIGEST_CHARACTERS and set(text) <= set("0123456789abcdef"):
        found = list(listed(project).filter(digest__startswith=text).order_by("-id")[:50])
    if len({export.digest for export in found}) > 1:
        numbers = ", ".join(str(export.pk) for export in found[:5])
        raise Invalid(f"Several exports have a digest that begins with {text}: {numbers}. Name one by its number.")
    if not found:
        raise unknown(text)
    return found[0]


def unknown(text: str) -> NotFound:
    """What is said of an export that there is not, or that somebody may not know of."""
    return NotFound(f"There is no export {text}. `manage.py exports` lists them.")


def latest(project: Project) -> list[Export]:
    """Of all exports that were asked for in the same way the newest that is done, the oldest first.

    One from which another was made without a person's work is no longer among them: that one stands in its place.
    """
    newest: dict[str, Export] = {}
    replaced: set[int] = set()
    for export in listed(project).filter(state=Export.State.DONE).prefetch_related("parents"):
        newest[repr(_asked_for(export))] = export
        replaced |= {parent.pk for parent in export.parents.all() if _leaves_out_more(export, parent)}
    return sorted((one for one in newest.values() if one.pk not in replaced), key=lambda export: export.pk)


def _asked_for(export: Export) -> tuple:
    """What was asked for, in an order of its own."""
    return export.what, export.format, sorted(export.filters.items(), key=str), written_as(export)


def _leaves_out_more(export: Export, parent: Export) -> bool:
    """Whether it is the same as its parent but for people who are left out."""

    def people(one: Export) -> set[str]:
        return set(one.filters.get("without", ()))

    same = [{**one.filters, "without": [], "of": [one.what, one.format, written_as(one)]} for one in (export, parent)]
    return same[0] == same[1] and people(export) > people(parent)


def stop(export: Export) -> None:
    """Stop it: what it has written so far is kept for going on. Raises Conflict where it has ended."""
    jobs.ask_to_stop(export)


def go_on(export: Export) -> None:
    """Have a worker go on with what failed, was stopped or was interrupted. Raises Conflict."""
    if export.state == Export.State.DONE:
        raise Conflict("It is done, and an export that is done never changes.")
    jobs.go_on_in_worker(export)


def written_as(export: Export) -> dict:
    """The kind of its files and the most rows in one; empty where it was made before there was a choice."""
    return {name: export.files[name] for name in ("kind", "shard_rows") if name in export.files}


def shards(export: Export) -> list[dict]:
    """The files of an export that is done: name, bytes, sha256 and, where it holds lines, rows."""
    return [{"rows": None} | described | {"name": name} for name, described in export.manifest.get("files", {}).items()]
