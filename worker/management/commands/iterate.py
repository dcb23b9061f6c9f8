"""`manage.py iterate`: end the open round, train what the project's recipe says, and open the next round with it."""

import sys

from annotate import passages, projects
from annotate.errors import BothsidesError, Conflict, Invalid
from annotate.management.refusal import RefusingCommand
from annotate.models import Passage, Project
from worker.management.progress import Bar, figures
from worker.training import passage as walking

State = Passage.State


class Command(RefusingCommand):
    help = (
        "Close a project's open iteration, export it, train what the project's recipe says, register the new policy "
        "and open the next iteration with it beside the last one. Called again after a crash, a stop or a failure it "
        "goes on where it was. docs/training.md says what a recipe is."
    )
    example = """
    manage.py iterate --project demo
    manage.py iterate --project demo --ask
    manage.py iterate --project demo --background --ask
    manage.py iterate --project demo --background --yes
    manage.py iterate --project demo --reopen
    """

    def add_arguments(self, parser):
        parser.add_argument("--project", help="its slug")
        parser.add_argument("--ask", action="store_true", help="stop before every step for a yes")
        parser.add_argument("--yes", action="store_true", help="the yes to the step for which it waits")
        parser.add_argument("--background", action="store_true", help="leave it to a worker that trains")
        parser.add_argument(
            "--reopen",
            action="store_true",
            help="give up one that has not got through, and open the next iteration with the policies as they were",
        )
        parser.add_argument("--go-on", metavar="ID", help="go on with the passage of this number, in this process")

    def handle(self, *args, **options):
        if options["go_on"]:
            if options["project"] or options["ask"] or options["yes"] or options["reopen"] or options["background"]:
                raise Invalid("--go-on takes a passage as it was asked for; leave all else out.")
            self._run(passages.named(options["go_on"]))
            return
        if not options["project"]:
            raise Invalid("Name a --project.")
        project = projects.project_named(options["project"])
        if options["reopen"]:
            opened = passages.reopen(project=project)
            self.stdout.write(f"Iteration {opened.number} is open, with the policies that the project had.")
            return
        passage = self._asked(project, options)
        if options["background"]:
            self.stdout.write(f"passage {passage.pk} is left to a worker that listens to the queue training")
            return
        self._run(passage)

    def _asked(self, project: Project, options: dict) -> Passage:
        """The passage that was not finished, ready to be gone on with, or a new one."""
        passage, background = passages.current(project), options["background"]
        if passage is None:
            if options["yes"]:
                raise Conflict(f"Project {project.slug} has no passage that waits for a yes.")
            return passages.prepare(project=project, asks=options["ask"], background=background)
        if options["yes"]:
            step = passages.waiting_for(passage)
            if step is None:
                raise Conflict(f"{passage} does not wait for a yes.")
            passages.agree(passage=passage, step=step, background=background)
        elif passage.state in Passage.ENDED:
            passages.take_up(passage=passage, background=background)
        elif background:
            told = "waits for a yes: --yes" if passages.waiting_for(passage) else f"is {passage.state} already"
            raise Conflict(f"{passage} {told}.")
        if options["ask"]:
            passages.ask_from_now_on(passage)
        return passage

    def _run(self, passage: Passage) -> None:
        try:
            with Bar() as bar:
                asking = sys.stdin is not None and sys.stdin.isatty()
                walking.go_on(passage, progress=bar.show, agreed=self._agreed if asking else None)
        except BothsidesError as error:
            passage.refresh_from_db()
            if passage.state in Passage.ENDED and passages.current(passage.project):
                raise type(error)(f"{error.message} {_what_now(passage)}") from error
            raise
        step = passages.waiting_for(passage)
        if step:
            told = passages.TOLD[step].lower()
            self.stdout.write(f"It waits for a yes: {told}. manage.py iterate --project {passage.project.slug} --yes")
            return
        self._tell(passage)

    def _agreed(self, step: str) -> bool:
        try:
            return input(f"{passages.TOLD[step]}? [y/N] ").strip().lower() in ("y", "yes")
        # Ctrl-D is no answer, and so no yes.
        except EOFError:
            return False

    def _tell(self, passage: Passage) -> None:
        """What came of it."""
        for name in ("sft", "reward", "policy"):
            if run := passages.made_by(passage, name):
                self.stdout.write(f"{name}: run {run.pk}, {figures(run.metrics)}")
        policies = ", ".join(f"{row.policy} {row.weight}" for row in passage.opens.iterationpolicy_set.all())
        self.stdout.write(
            f"Iteration {passage.opens.number} is open. Trainers chat with {passage.opens.reply_policy}; "
            f"weights of the candidates: {policies}. Slots for chats and writing are opened on the project's page."
        )


def _what_now(passage: Passage) -> str:
    slug = passage.project.slug
    return (
        f"What is served stays as it was. When the cause is mended manage.py iterate --project {slug} goes on; "
        "with --reopen it opens the next iteration without a new policy."
    )
