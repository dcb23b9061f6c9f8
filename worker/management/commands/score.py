"""`manage.py score`: have a reward model score what is ranked in a project."""

from annotate import projects, scores
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand
from worker.management.progress import Bar


class Command(RefusingCommand):
    help = (
        "Score, in this process, the candidates of a project that its reward model has not scored yet. Workers that "
        "listen to the queue `training` do so by themselves; this is for those who have none, or want the scores of "
        "another model. Pools that waited for just these are decided. It goes on where it was when it is called again."
    )
    example = """
    manage.py score --project demo
    manage.py score --project demo --run 2
    """

    def add_arguments(self, parser):
        parser.add_argument("--project", required=True, help="its slug")
        parser.add_argument("--run", default="", metavar="R", help="number of the run that made the reward model")
        parser.add_argument("--most", type=int, metavar="N", help="end after so many candidates")

    def handle(self, *args, **options):
        if options["most"] is not None and options["most"] < 1:
            raise Invalid("--most is 1 or more.")
        project = projects.project_named(options["project"])
        run = scores.run_of(project=project, number=options["run"])
        total = scores.counts(project=project, run=run).missing
        if options["most"] is not None:
            total = min(total, options["most"])
        # It brings torch, of which a refusal has no use.
        from worker import scoring

        with Bar() as bar:
            done = scoring.score(
                project=project,
                run=run,
                most=options["most"],
                told=lambda done: bar.show("Scoring", done, max(total, done), {}),
            )
        counts = scores.counts(project=project, run=run)
        self.stdout.write(f"candidates scored by run {run.pk} now: {done:,}; in all: {counts.scored:,}")
        if counts.unreadable:
            self.stdout.write(f"too long for the model, or refused by its chat template: {counts.unreadable:,}")
        if counts.missing:
            self.stdout.write(f"still missing: {counts.missing:,}{'+' * (counts.missing == scores.MOST_COUNTED)}")
