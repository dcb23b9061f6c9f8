"""`manage.py export`: write a dataset version."""

import argparse
from datetime import datetime
from pathlib import Path

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from tqdm import tqdm

from annotate import projects
from annotate.datasets import comparisons, manifest, snapshots
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand
from annotate.models import Project


class Command(RefusingCommand):
    help = "Write the work that counts as a dataset version: registered, hashed, never changed; --out is a copy of it."
    example = """
    manage.py export comparisons --project demo --format ranked --out data/ranked
    manage.py export comparisons --project demo --format preference --split train --out data/pairs
    """

    def add_arguments(self, parser):
        parser.add_argument("what", metavar="WHAT", choices=[snapshots.WHAT], help="comparisons")
        parser.add_argument("--format", required=True, choices=list(comparisons.FORMATS))
        parser.add_argument("--out", type=Path, metavar="DIR", help="a folder that does not exist or is empty")
        parser.add_argument("--project", help="its slug; may be left out where there is one project only")
        parser.add_argument("--iteration", type=int, metavar="N", help="only this round")
        parser.add_argument("--split", choices=manifest.SPLITS, help="only this split")
        parser.add_argument("--since", type=_moment, metavar="DATE", help="only rankings from then on, in UTC")
        parser.add_argument(
            "--include",
            nargs="+",
            choices=comparisons.INCLUDE,
            default=[],
            help="also rankings of open comparisons, and those that came in too late (surplus)",
        )

    def handle(self, *args, **options):
        export = snapshots.export_comparisons(
            project=_project(options["project"]),
            format=options["format"],
            filters=comparisons.Filters(
                iteration=options["iteration"],
                split=options["split"],
                since=options["since"],
                include=frozenset(options["include"]),
            ),
            out=options["out"],
            progress=lambda rows, total: tqdm(rows, total=total, unit=" rankings", disable=None),
        )
        counts = export.manifest["counts"]
        splits = ", ".join(f"{name} {split['rows']:,}" for name, split in counts["by_split"].items())
        self.stdout.write(
            f"rows: {counts['rows']:,} ({splits}); rankings: {counts['rankings']:,}; "
            f"comparisons: {counts['comparisons']:,}; tied pairs dropped: {counts['dropped_tied_pairs']:,}\n"
            f"export {export.pk}, sha256 {export.digest}, stored as {export.location}"
        )


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
