"""`manage.py exports`: the exports that there are, what two of them differ in, and new ones without a person's work."""

import json
from collections.abc import Iterator

from tqdm import tqdm

from annotate import exports, jobs, projects
from annotate.datasets import checkpoint, versions
from annotate.datasets.versions import Changes, Difference, Left
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand
from annotate.models import Export, User

SHOWN = 20
"""Keys that are listed one by one; --json has all."""


class Command(RefusingCommand):
    help = (
        "List exports with their state; say what came and went from one to another; or make new ones without the work "
        "of a person who left or withdrew."
    )
    example = """
    manage.py exports --project demo
    manage.py exports --diff 12 17
    manage.py exports --diff 5b2f9c 17 --json
    manage.py exports --without-trainer ada@example.org --project demo
    manage.py exports --without-trainer 5f0c1d2e3a4b5c6d --of 17
    """

    def add_arguments(self, parser):
        parser.add_argument("--project", help="its slug; all projects where it is left out")
        parser.add_argument(
            "--diff",
            nargs=2,
            metavar=("A", "B"),
            help="two exports of the same thing, by number or by the beginning of the digest: what came and what went, "
            "why, and what their manifests say otherwise",
        )
        parser.add_argument(
            "--without-trainer",
            metavar="ID",
            help="a pseudonym, a user's number or an e-mail address: make a new export of each latest one of the "
            "project in which there is work of this person, with what was in it less that",
        )
        parser.add_argument("--of", metavar="EXPORT", help="only of this export, by number or digest")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args, **options):
        if options["of"] and not options["without_trainer"]:
            raise Invalid("--of names the export that --without-trainer is made of; give both.")
        if options["diff"] and options["without_trainer"]:
            raise Invalid("Ask for either --diff or --without-trainer.")
        if options["project"] is not None:
            options["project"] = projects.project_named(options["project"])
        if options["diff"]:
            self._diff(options)
        elif options["without_trainer"]:
            self._without(options)
        else:
            self._list(options)

    def _list(self, options: dict) -> None:
        found = list(exports.listed(options["project"]).prefetch_related("parents"))
        if options["json"]:
            self._print([_as_json(export) for export in found])
            return
        if not found:
            self.stdout.write("No exports yet. `manage.py export` makes one.")
        for line in _table([_row(export) for export in found]):
            self.stdout.write(line)
        for export in found:
            if hint := _how_to_go_on(export):
                self.stdout.write(f"export {export.pk}: {hint}")

    def _diff(self, options: dict) -> None:
        a, b = (exports.named(text, project=options["project"]) for text in options["diff"])
        found = versions.difference(a, b)
        if options["json"]:
            self._print(found.as_json())
            return
        for line in _told_difference(found):
            self.stdout.write(line)

    def _without(self, options: dict) -> None:
        if options["of"]:
            chosen = [exports.named(options["of"], project=options["project"])]
            project = chosen[0].project
        elif options["project"]:
            project = options["project"]
            chosen = exports.latest(project)
        else:
            raise Invalid("Name the --project, or the export that is meant with --of.")
        user = versions.person(project, options["without_trainer"])
        if not chosen:
            raise Invalid(f"Project {project.slug} has no export that is done.")
        made = [self._made_without(export, user) for export in chosen]
        if options["json"]:
            self._print([one.as_json() for one in made])
            return
        for one in made:
            for line in _told_left(one):
                self.stdout.write(line)

    def _made_without(self, export: Export, user: User) -> Left:
        with tqdm(desc=f"export {export.pk}", unit=" lines", disable=None) as bar:

            def show(step: str, done: int, total: int | None) -> None:
                bar.total = total
                bar.set_description(f"export {export.pk}: {step}", refresh=False)
                bar.update(done - bar.n)

            return versions.without(export, user=user, progress=show)

    def _print(self, value) -> None:
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _by_split(export: Export) -> dict[str, int]:
    by_split = export.manifest.get("counts", {}).get("by_split", {})
    return {name: split["rows"] for name, split in by_split.items()}


def _interrupted(export: Export) -> bool:
    """Whether whoever ran it is no more, so that it can be gone on with at once."""
    running = export.state == Export.State.RUNNING
    return running and (jobs.was_lost(export) or checkpoint.died_here(export.pk, export.token))


def _how_far(export: Export) -> str:
    if _interrupted(export):
        return "interrupted"
    if export.state != Export.State.RUNNING:
        return export.state
    share = jobs.share_done(export)
    done = f"{export.done:,}" if share is None else f"{share:.0%}"
    return ", ".join(part for part in (export.state, export.step, done) if part)


def _how_to_go_on(export: Export) -> str:
    """What to do about one that is not done."""
    reason = f" ({' '.join(export.reason.split())})" if export.reason else ""
    if _interrupted(export) and export.background:
        return "whoever wrote it died; a worker goes on with it"
    if _interrupted(export):
        return f"interrupted; go on with it: manage.py export --go-on {export.pk}"
    if export.state in (Export.State.FAILED, Export.State.STOPPED):
        way = "in the admin site or by REST" if export.background else f"by manage.py export --go-on {export.pk}"
        return f"{export.state}{reason}; it can be gone on with {way}"
    return ""


HEAD = ("id", "when", "project", "what", "format", "rows", "splits", "digest", "state")


def _row(export: Export) -> tuple[str, ...]:
    done = export.state == Export.State.DONE
    return (
        str(export.pk),
        f"{export.created_at:%Y-%m-%d %H:%M}",
        export.project.slug,
        export.what,
        export.format,
        f"{export.rows:,}" if done else "-",
        ", ".join(f"{name} {rows:,}" for name, rows in _by_split(export).items()) or "-",
        export.digest[:12] or "-",
        _how_far(export),
    )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        widths = [max(len(row[place]) for row in (HEAD, *rows)) for place in range(len(HEAD))]
        for row in (HEAD, *rows):
            yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _as_json(export: Export) -> dict:
    return {
        "id": export.pk,
        "project": export.project.slug,
        "created_at": export.created_at.isoformat(),
        "what": export.what,
        "format": export.format,
        "filters": export.filters,
        "files": exports.written_as(export),
        "state": export.state,
        "interrupted": _interrupted(export),
        "background": export.background,
        "step": export.step,
        "done": export.done,
        "total": export.total,
        "reason": export.reason,
        "rows": export.rows,
        "by_split": _by_split(export),
        "digest": export.digest,
        "location": export.location,
        "parents": [parent.pk for parent in export.parents.all()],
    }


def _told_difference(found: Difference) -> Iterator[str]:
    noun = versions.NOUNS[found.a.what]
    yield f"from export {found.a.pk} to export {found.b.pk}, {found.a.what}: {found.same:,} {noun} in both"
    yield from _told_changes("came", found.came)
    yield from _told_changes("went", found.went)
    before, after = _by_split(found.a), _by_split(found.b)
    for name in dict.fromkeys([*before, *after]):
        yield f"rows of {name}: {before.get(name, 0):,} -> {after.get(name, 0):,}"
    for name, (a, b) in found.manifest.items():
        yield f"{name}: {_short(a)} -> {_short(b)}"


def _told_changes(word: str, changes: Changes) -> Iterator[str]:
    splits = ", ".join(f"{name or 'unknown'} {count:,}" for name, count in changes.by_split().items())
    yield f"{word}: {len(changes.keys):,}{f' ({splits})' if splits else ''}"
    for reason, count in changes.by_reason().items():
        keys = [key for key, why in zip(changes.keys, changes.reasons, strict=True) if why == reason]
        more = f" and {count - SHOWN:,} more" if count > SHOWN else ""
        yield f"  {reason}: {count:,} ({', '.join(map(str, keys[:SHOWN]))}{more})"


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _told_left(left: Left) -> Iterator[str]:
    noun, parent = versions.NOUNS[left.parent.what], left.parent
    if left.made is None:
        why = "all of it is theirs, so that no new one is made" if left.theirs else "nothing in it is theirs"
        yield f"export {parent.pk} ({parent.what} {parent.format}): {why}"
        return
    theirs = f"{left.theirs:,} {noun} of theirs{' and ranks that they gave' if left.ranks else ''}"
    yield (
        f"export {parent.pk} ({parent.what} {parent.format}): {theirs}; without them it is "
        f"export {left.made.pk}, {left.made.rows:,} rows, sha256 {left.made.digest}"
    )
    yield from _told_changes("left", left.difference.went)
