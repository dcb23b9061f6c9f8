"""`manage.py sample_comparisons`: have messages of finished and imported conversations ranked."""

from annotate import comparisons, projects
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand


class Command(RefusingCommand):
    help = (
        "Draw messages of finished conversations that no comparison has yet, uniformly, and have alternatives sampled "
        "beside them in the open iteration. They are there to rank as soon as a worker has sampled them. Of imported "
        "conversations every answer of the assistant may be drawn, one that several share once."
    )
    example = """
    manage.py sample_comparisons --project demo --count 50
    manage.py sample_comparisons --project demo --count 50 --messages model
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

    def handle(self, *args, **options):
        if options["count"] < 1:
            raise Invalid("--count is 1 or more.")
        project = projects.project_named(options["project"])
        made = comparisons.sample(project=project, count=options["count"], messages=options["messages"])
        where = "finished chat" if options["messages"] == "model" else "finished chat or imported conversation"
        if not made:
            self.stdout.write(
                f"nothing is left to draw from in {project.slug}: no {where} has a complete reply without a comparison"
            )
            return
        self.stdout.write(f"comparisons begun in {project.slug}: {len(made):,}; their alternatives are being sampled")
        if len(made) < options["count"]:
            self.stdout.write(f"there is no further message to draw: no {where} has another complete reply")
