"""`manage.py export`: write a dataset version."""

import re
from pathlib import Path

from tqdm import tqdm

from annotate import exports, projects
from annotate.datasets import filters, shapes, shards, snapshots
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand
from annotate.models import Conversation, Export, Message, Project

FLAGS = {"review_states": "--review-state", "personal": "--personal-data"}
"""The flags of filters that are called otherwise; the flag of any other has its name."""

GIVEN = tuple(filters.READ)
"""The filters, each of which has a flag."""


class Command(RefusingCommand):
    help = (
        "Write what counts as a dataset version: registered, hashed, never changed; --out is a copy of it. The same "
        "query over the same record gives the same bytes. One that was interrupted can go on with --go-on. "
        "A conversation that is in an export of demonstrations can no longer be revised. "
        "docs/export-formats.md describes every format and what reads it."
    )
    example = """
    manage.py export comparisons --project demo --format ranked --out data/ranked
    manage.py export comparisons --project demo --format preference --split train --rankings consensus --margin rank
    manage.py export comparisons --project demo --format unpaired --origins imported --files parquet --out data/kto
    manage.py export demonstrations --project demo --format messages --mix seed_tasks.jsonl:0.5 --out data/sft
    manage.py export demonstrations --project demo --format prompt_completion --sources written edited --out data/turns
    manage.py export conversations --project demo --format oasst --personal-data redact --out data/trees
    manage.py export prompts --project demo --format prompt_only --use-case "open QA" --out data/openings
    manage.py export --go-on 17 --out data/ranked
    """

    def add_arguments(self, parser):
        formats = "; ".join(f"of {what}: {', '.join(names)}" for what, names in shapes.FORMATS.items())
        parser.add_argument(
            "what", metavar="WHAT", nargs="?", choices=list(shapes.FORMATS), help=" or ".join(shapes.FORMATS)
        )
        parser.add_argument(
            "--format", metavar="FORMAT", choices=sorted({one for all in shapes.FORMATS.values() for one in all}),
            help=formats,
        )  # fmt: skip
        parser.add_argument("--out", type=Path, metavar="DIR", help="a folder that does not exist or is empty")
        parser.add_argument("--project", help="its slug; may be left out where there is one project only")
        parser.add_argument(
            "--files", choices=shards.KINDS, help="kind of files; jsonl, one JSON object a line, where it is left out"
        )
        parser.add_argument("--shard-rows", type=int, metavar="N", help="the most rows in one file; 100,000 by default")
        parser.add_argument(
            "--go-on",
            type=int,
            metavar="ID",
            help="go on with an export that waits, was stopped or was interrupted, as it was asked for; of one that is "
            "done, write another copy to --out",
        )
        self._add_filters(parser.add_argument_group("what is wanted of it"))
        self._add_of_comparisons(parser.add_argument_group("of comparisons"))
        self._add_of_demonstrations(parser.add_argument_group("of demonstrations"))
        others = parser.add_argument_group("of conversations and prompts")
        others.add_argument("--kinds", nargs="+", metavar="KIND", choices=filters.KINDS, help=_any(filters.KINDS))
        others.add_argument("--use-case", metavar="NAME", help="of prompts: only those of this use case")

    def _add_filters(self, group) -> None:
        group.add_argument("--iteration", type=int, metavar="N", help="only this round")
        group.add_argument(
            "--split",
            choices=shapes.SPLITS,
            help="only this split; held_out, what is near to two splits, is in no export that does not ask for it",
        )
        group.add_argument(
            "--since", metavar="DATE", help="only what was ranked or finished from then on: a day or moment, in UTC"
        )
        group.add_argument(
            "--include",
            nargs="+",
            metavar="MORE",
            choices=sorted(set().union(*filters.INCLUDE.values())),
            help="also what does not count; of comparisons: open, surplus (came in too late); of demonstrations: "
            "unreviewed, returned, surplus, superseded (a newer version stands in its place); of prompts: inactive",
        )
        group.add_argument(
            "--without", nargs="+", metavar="PSEUDONYM", help="nothing of these people, named as exports name them"
        )
        group.add_argument(
            "--personal-data",
            dest="personal",
            choices=filters.PERSONAL,
            help="look for personal data in all texts: report counts it, redact also puts its kind in its place",
        )

    def _add_of_comparisons(self, group) -> None:
        group.add_argument(
            "--origins", nargs="+", metavar="ORIGIN", choices=filters.ORIGINS, help=_any(filters.ORIGINS, "rankings ")
        )
        group.add_argument(
            "--selection",
            choices=filters.SELECTIONS,
            help="only comparisons that were drawn at random, which alone measure honestly, or only those that were "
            "chosen because the reward model was uncertain of them",
        )
        group.add_argument(
            "--rankings",
            choices=filters.RANKINGS,
            help="each ranking by itself, which is the default, or those of one comparison as one, by their median "
            "ranks and with their agreement beside it",
        )
        group.add_argument(
            "--pairs",
            choices=filters.PAIRS,
            help="all strict pairs, which is the default; those whose ranks are adjacent; or best against worst",
        )
        group.add_argument(
            "--margin",
            choices=filters.MARGINS,
            help=f"a margin in every row, the difference of the ranks or ratings; of {', '.join(shapes.MARGIN)}",
        )

    def _add_of_demonstrations(self, group) -> None:
        group.add_argument(
            "--sources",
            nargs="+",
            metavar="SOURCE",
            choices=Message.Source.values,
            help=f"only turns of the assistant that are {', '.join(Message.Source.values)}; "
            "prompt_completion leaves the others out, other formats keep the conversations that have no other",
        )
        group.add_argument(
            "--review-state",
            dest="review_states",
            nargs="+",
            metavar="STATE",
            choices=Conversation.ReviewState.values,
            help=f"in place of the project's rule: only those that are {', '.join(Conversation.ReviewState.values)}",
        )
        group.add_argument(
            "--mix",
            nargs="+",
            metavar="NAME:AMOUNT",
            help="mix in a file that can be imported, or export:ID; 5000 means so many conversations of it, 0.5 half "
            "as many as the export's own",
        )
        group.add_argument("--mix-seed", type=int, metavar="N", help="what the draw from them depends on; 0 by default")

    def handle(self, *args, **options):
        export = self._begin(options) if options["go_on"] is None else self._go_on(options)
        self.stdout.write(f"{_told(export)}\nexport {export.pk}, sha256 {export.digest}, stored as {export.location}")

    def _begin(self, options: dict) -> Export:
        what, format = options["what"], options["format"]
        if what is None or format is None:
            raise Invalid(f"Name what to export, {' or '.join(shapes.FORMATS)}, and its --format.")
        given = {"kind": options["files"], "shard_rows": options["shard_rows"]}
        project = _project(options["project"])
        try:
            wanted = filters.parse(what, {name: options[name] for name in GIVEN})
            files = shards.parse({name: value for name, value in given.items() if value is not None})
            filters.check(what=what, format=format, filters=wanted, kind=files.kind)
        except Invalid as refusal:
            raise Invalid(_with_flag(refusal.message)) from refusal
        before = Export.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        try:
            with _Bars() as bars:
                return snapshots.export(
                    what,
                    project=project,
                    format=format,
                    filters=wanted,
                    files=files,
                    out=options["out"],
                    progress=bars.show,
                )
        except KeyboardInterrupt:
            asked = Export.objects.filter(pk__gt=before, project=project, what=what, state=Export.State.STOPPED)
            if export := asked.order_by("-pk").first():
                self.stderr.write(f"Stopped. manage.py export --go-on {export.pk} goes on with it.")
            raise

    def _go_on(self, options: dict) -> Export:
        asked = [name for name in ("what", "format", "project", "files", "shard_rows", *GIVEN) if options[name]]
        if asked:
            raise Invalid("--go-on takes an export as it was asked for; leave all but --out out.")
        export = exports.named(str(options["go_on"]))
        with _Bars() as bars:
            return snapshots.go_on(export, out=options["out"], progress=bars.show)


class _Bars:
    """A progress bar a step, on a terminal."""

    def __init__(self):
        self.step, self.bar = "", None

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, step: str, done: int, total: int | None) -> None:
        """Show how far it is."""
        if step != self.step:
            self.__exit__()
            self.step, self.bar = step, tqdm(desc=step, total=total, disable=None)
        self.bar.total = total
        self.bar.update(done - self.bar.n)


def _any(names: tuple[str, ...], of: str = "") -> str:
    return f"only {of}{' or '.join(names)}"


def _with_flag(message: str) -> str:
    """A refusal that begins with the name of a filter, with its flag in that place."""
    name = re.match(r"\w+", message)
    if name is None or name[0] not in (*GIVEN, "files", "shard_rows"):
        return message
    return FLAGS.get(name[0], f"--{name[0].replace('_', '-')}") + message[name.end() :]


def _told(export: Export) -> str:
    counts = export.manifest["counts"]
    by_split = counts["by_split"]
    splits = ", ".join(f"{name} {by_split[name]['rows']:,}" for name in shapes.SPLITS if name in by_split)
    told = [f"rows: {counts['rows']:,} ({splits})"]
    for name in ("rankings", "comparisons", "trees", "conversations", "messages"):
        if name in counts:
            told.append(f"{name}: {counts[name]:,}")
    if counts.get("dropped_tied_pairs"):
        told.append(f"tied pairs dropped: {counts['dropped_tied_pairs']:,}")
    if counts.get("by_set"):
        told.append("from " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts["by_set"].items())))
    if "by_source" in counts:
        told.append(f"by source: {_list(counts['by_source'])}")
    told.append(f"left out: {_list(counts['left_out'])}")
    return "; ".join(told)


def _list(counts: dict[str, int]) -> str:
    # The database keeps no order of names.
    named = sorted(counts.items())
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in named if count) or "none"


def _project(slug: str | None) -> Project:
    if slug is None:
        slugs = list(Project.objects.order_by("slug").values_list("slug", flat=True)[:20])
        if len(slugs) != 1:
            raise Invalid(f"Name a project with --project: {', '.join(slugs) or 'there is none yet'}.")
        slug = slugs[0]
    return projects.project_named(slug)
