"""`manage.py export`: write a dataset version."""

from pathlib import Path

from tqdm import tqdm

from annotate import projects
from annotate.datasets import filters, shapes, snapshots
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
        parser.add_argument("--split", choices=shapes.SPLITS, help="only this split")
        parser.add_argument("--since", metavar="DATE", help="only what was ranked or finished from then on, in UTC")
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
            dest="review_states",
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
            choices=sorted(set().union(*filters.INCLUDE.values())),
            help="also what does not count; of comparisons: open, surplus (came in too late); of demonstrations: "
            "unreviewed, returned, surplus, superseded (a newer version stands in its place)",
        )

    def handle(self, *args, **options):
        what = options["what"]
        if options["format"] not in shapes.FORMATS[what]:
            known = ", ".join(shapes.FORMATS[what])
            raise Invalid(f"There is no format {options['format']} of {what}. Formats: {known}.")
        names = ("iteration", "split", "since", "include", "sources", "review_states")
        wanted = filters.parse(what, {name: options[name] for name in names})
        export = snapshots.export(
            snapshots.WHATS[what],
            project=_project(options["project"]),
            format=options["format"],
            filters=wanted,
            out=options["out"],
            progress=_Bars().show,
        )
        self.stdout.write(f"{_told(export)}\nexport {export.pk}, sha256 {export.digest}, stored as {export.location}")


class _Bars:
    """A progress bar a step, on a terminal."""

    def __init__(self):
        self.step, self.bar = "", None

    def show(self, step: str, done: int, total: int | None) -> None:
        """Show how far it is."""
        if step != self.step:
            if self.bar is not None:
                self.bar.close()
            self.step, self.bar = step, tqdm(desc=step, total=total, disable=None)
        self.bar.total = total
        self.bar.update(done - self.bar.n)


def _told(export: Export) -> str:
    counts = export.manifest["counts"]
    by_split = counts["by_split"]
    splits = ", ".join(f"{name} {by_split[name]['rows']:,}" for name in shapes.SPLITS if name in by_split)
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


def _project(slug: str | None) -> Project:
    if slug is None:
        slugs = list(Project.objects.order_by("slug").values_list("slug", flat=True)[:20])
        if len(slugs) != 1:
            raise Invalid(f"Name a project with --project: {', '.join(slugs) or 'there is none yet'}.")
        slug = slugs[0]
    return projects.project_named(slug)
