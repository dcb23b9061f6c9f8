"""`manage.py export`: write a dataset version."""

import argparse
from datetime import datetime
from pathlib import Path

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from tqdm import tqdm

from annotate import projects
from annotate.datasets import comparisons, demonstrations, manifest, shapes, snapshots
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand
from annotate.models import Conversation, Export, Message, Project


class Command(RefusingCommand):
    help = (
        "Write the work that counts as a dataset version: registered, hashed, never changed; --out is a copy of it. "
        "A conversation that is in an export of demonstrations can no longer be revised."
    )
    example = """
    manage.py export comparisons --project demo --format ranked --out data/ranked
    manage.py export comparisons --project demo --format preference --split train --out data/pairs
    manage.py export demonstrations --project demo --format messages --out data/sft
    manage.py export demonstrations --project demo --format prompt_completion --sources written edited --out data/turns
    """

    def add_arguments(self, parser):
        formats = "; ".join(f"of {what}: {', '.join(names)}" for what, names in shapes.FORMATS.items())
        parser.add_argument("what", metavar="WHAT", choices=list(snapshots.WHATS), help=" or ".join(snapshots.WHATS))
        parser.add_argument(
            "--format",
            required=True,
            metavar="FORMAT",
            choices=[name for names in shapes.FORMATS.values() for name in names],
            help=formats,
        )
        parser.add_argument("--out", type=Path, metavar="DIR", help="a folder that does not exist or is empty")
        parser.add_argument("--project", help="its slug; may be left out where there is one project only")
        parser.add_argument("--iteration", type=int, metavar="N", help="only this round")
        parser.add_argument("--split", choices=manifest.SPLITS, help="only this split")
        parser.add_argument(
            "--since", type=_moment, metavar="DATE", help="only what was ranked or finished from then on, in UTC"
        )
        parser.add_argument(
            "--sources",
            nargs="+",
            metavar="SOURCE",
            choices=Message.Source.values,
            help=f"of demonstrations: only turns of the assistant that are {', '.join(Message.Source.values)}; "
            "messages keeps the conversations in which all of them are",
        )
        parser.add_argument(
            "--review-state",
            nargs="+",
            metavar="STATE",
            choices=Conversation.ReviewState.values,
            help="of demonstrations, in place of the project's rule: only those that are "
            f"{', '.join(Conversation.ReviewState.values)}",
        )
        parser.add_argument(
            "--include",
            nargs="+",
            metavar="MORE",
            default=[],
            choices=sorted({*comparisons.INCLUDE, *demonstrations.INCLUDE}),
            help="also what does not count; of comparisons: open, surplus (came in too late); of demonstrations: "
            "unreviewed, returned, surplus, superseded (a newer version stands in its place)",
        )

    def handle(self, *args, **options):
        what = options["what"]
        if options["format"] not in shapes.FORMATS[what]:
            known = ", ".join(shapes.FORMATS[what])
            raise Invalid(f"There is no format {options['format']} of {what}. Formats: {known}.")
        filters = {"comparisons": _of_comparisons, "demonstrations": _of_demonstrations}[what](options)
        unit = {"comparisons": " rankings", "demonstrations": " conversations"}[what]
        export = snapshots.export(
            snapshots.WHATS[what],
            project=_project(options["project"]),
            format=options["format"],
            filters=filters,
            out=options["out"],
            progress=lambda rows, total: tqdm(rows, total=total, unit=unit, disable=None),
        )
        self.stdout.write(f"{_told(export)}\nexport {export.pk}, sha256 {export.digest}, stored as {export.location}")


def _of_comparisons(options: dict) -> comparisons.Filters:
    for name in ("sources", "review_state"):
        if options[name] is not None:
            raise Invalid(f"--{name.replace('_', '-')} is for demonstrations; comparisons do not have it.")
    return comparisons.Filters(**_shared(options, comparisons.INCLUDE))


def _of_demonstrations(options: dict) -> demonstrations.Filters:
    shared = _shared(options, demonstrations.INCLUDE)
    states = options["review_state"]
    both = sorted(shared["include"].intersection(demonstrations.OF_STATE.values()))
    if states is not None and both:
        raise Invalid(f"--review-state names all that is wanted; leave --include {' '.join(both)} out.")
    return demonstrations.Filters(
        **shared,
        sources=None if options["sources"] is None else frozenset(options["sources"]),
        review_states=None if states is None else frozenset(states),
    )


def _shared(options: dict, known: tuple[str, ...]) -> dict:
    unknown = [name for name in options["include"] if name not in known]
    if unknown:
        raise Invalid(f"--include {unknown[0]} is not for {options['what']}, which know {', '.join(known)}.")
    shared = {name: options[name] for name in ("iteration", "split", "since")}
    return shared | {"include": frozenset(options["include"])}


def _told(export: Export) -> str:
    counts = export.manifest["counts"]
    splits = ", ".join(f"{name} {split['rows']:,}" for name, split in counts["by_split"].items())
    rows = f"rows: {counts['rows']:,} ({splits})"
    if export.what == "comparisons":
        return (
            f"{rows}; rankings: {counts['rankings']:,}; comparisons: {counts['comparisons']:,}; "
            f"tied pairs dropped: {counts['dropped_tied_pairs']:,}"
        )
    return (
        f"{rows}; conversations: {counts['conversations']:,}; by source: {_list(counts['by_source'])}; "
        f"left out: {_list(counts['left_out'])}"
    )


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count) or "none"


def _moment(text: str) -> datetime:
    try:
        moment = parse_datetime(text) or datetime.combine(parse_date(text), datetime.min.time())
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2026-01-31") from None
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def _project(slug: str | None) -> Project:
    if slug is None:
        slugs = list(Project.objects.order_by("slug").values_list("slug", flat=True)[:20])
        if len(slugs) != 1:
            raise Invalid(f"Name a project with --project: {', '.join(slugs) or 'there is none yet'}.")
        slug = slugs[0]
    return projects.project_named(slug)
