"""`manage.py sample_comparisons`: have messages of finished and imported conversations ranked."""

from annotate import comparisons, projects, uncertain
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand
from annotate.models import Comparison, Project


class Command(RefusingCommand):
    help = (
        "Draw messages of finished conversations that no comparison has yet, uniformly, and have alternatives sampled "
        "beside them in the open iteration. They are there to rank as soon as a worker has sampled them. Of imported "
        "conversations every answer of the assistant may be drawn, one that several share once."
    )
    example = """
    manage.py sample_comparisons --project demo --count 50
    manage.py sample_comparisons --project demo --count 50 --messages model
    manage.py sample_comparisons --project demo --count 50 --select uncertain --share 0.5 --pool 4
    """

    def add_arguments(self, parser):
        parser.add_argument("--project", required=True, help="its slug")
        parser.add_argument("--count", type=int, required=True, metavar="N", help="how many at most")
        parser.add_argument(
            "--messages",
            choices=comparisons.MESSAGES,
            default="any",
            help="any: also those of imported conversations; model: only the policy's own replies in chats",
        )
        parser.add_argument(
            "--select",
            choices=Comparison.Selection.values,
            default="random",
            help="random: all are ranked as they were drawn; uncertain: of a share those are chosen on which the "
            "heads of the project's reward model disagree, each from a pool that is sampled and scored whole",
        )
        parser.add_argument(
            "--share", type=float, metavar="SHARE", help="of the uncertain ones, above 0, at most 1; 0.5 by default"
        )
        parser.add_argument(
            "--pool", type=int, metavar="N", help="of how many one is chosen; 4 by default, so that 4 are sampled for 1"
        )

    def handle(self, *args, **options):
        if options["count"] < 1:
            raise Invalid("--count is 1 or more.")
        project = projects.project_named(options["project"])
        if options["select"] == "uncertain":
            made = uncertain.sample(
                project=project,
                count=options["count"],
                share=0.5 if options["share"] is None else options["share"],
                pool_size=4 if options["pool"] is None else options["pool"],
                messages=options["messages"],
            )
        elif options["share"] is not None or options["pool"] is not None:
            raise Invalid("--share and --pool go with --select uncertain.")
        else:
            made = comparisons.sample(project=project, count=options["count"], messages=options["messages"])
        self._tell(project, made, options)

    def _tell(self, project: Project, made: list[Comparison], options: dict) -> None:
        where = "finished chat" if options["messages"] == "model" else "finished chat or imported conversation"
        if not made:
            self.stdout.write(
                f"nothing is left to draw from in {project.slug}: no {where} has a complete reply without a comparison"
            )
            return
        self.stdout.write(f"comparisons begun in {project.slug}: {len(made):,}; their alternatives are being sampled")
        pools = {one.pool_id for one in made} - {None}
        ranked = len(pools) + sum(one.pool_id is None for one in made)
        if pools:
            self.stdout.write(
                f"to be ranked: {ranked:,}, of which {ranked - len(pools):,} are drawn at random; each of the others "
                "is chosen from a pool, once that is sampled and scored"
            )
        if ranked < options["count"]:
            self.stdout.write(f"there is no further message to draw: no {where} has another complete reply")
