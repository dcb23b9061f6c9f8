"""Running a passage: close the round, export, train, register, open the next round; each once, whatever interrupts it.

Trainings run in this process, one after another. One that a dead process held is waited for until its lease is over.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from annotate import assignments, comparisons, generation, iterations, jobs, passages, recipes
from annotate.datasets import snapshots
from annotate.errors import BothsidesError, Conflict
from annotate.models import Job, Passage
from worker.training import running
from worker.training.work import Progress

LOOK_SECONDS = 0.5
"""Pause between two looks at what is waited for."""

STEP_CHARACTERS = 80

WAITS = {
    "held": ("task that is held", "tasks that are held"),
    "to be reviewed": ("review", "reviews"),
    "being sampled": ("sampling", "samplings"),
}
"""What a round waits for, one and several of it."""


def go_on(passage: Passage, *, progress: Progress, agreed: Callable[[str], bool] | None = None) -> Passage:
    """Run a passage that waits, or was cut short, until it is done or waits for a person's yes.

    Where it asks before every step `agreed` is called with the step's name; without it, or where it says False, the
    passage is let go of until `passages.agree`. Raises what ends it, with the step in the reason; Conflict where it
    runs elsewhere or is over.
    """
    if passage.state in Passage.ENDED and passage.state != Passage.State.DONE and not passage.background:
        passages.take_up(passage=passage)
    with jobs.running(passage) as held:
        walk = _Walk(passage, held, progress)
        while (step := passages.next_step(passage)) and walk.may(step, agreed):
            with _saying(step):
                walk.take(step)
    return passage


@contextmanager
def _saying(step: str) -> Iterator[None]:
    """The reason of a failure begins with the step."""
    try:
        yield
    except (jobs.Stopped, jobs.Lost):
        raise
    except BothsidesError as error:
        raise type(error)(f"{passages.TOLD[step]}: {error.message}") from error


class _Walk:
    """A passage while this process runs it."""

    def __init__(self, passage: Passage, held: jobs.Run, progress: Progress):
        self.passage, self.held, self.progress = passage, held, progress
        self.by = {"passage": passage, "token": held.token}

    def may(self, step: str, agreed: Callable[[str], bool] | None) -> bool:
        """Whether a person said yes to the step, or none is asked."""
        if not self.passage.asks or self.passage.agreed_to == step:
            return True
        if agreed is not None and agreed(step):
            passages.note_yes(**self.by, step=step)
            return True
        passages.wait_for_yes(**self.by, step=step)
        return False

    def take(self, step: str) -> None:
        """Do a step, or what is left of it."""
        self.tell(step, "", 0)
        if step == passages.CLOSE:
            self._close()
        elif step == passages.EXPORT:
            self._export()
        elif step == passages.OPEN:
            passages.open_next(**self.by)
        else:
            self._train(step)

    def tell(self, step: str, what: str, done: int, total: int | None = None, values: dict | None = None) -> None:
        """Say how far it is. Raises jobs.Stopped or jobs.Lost where it must not go on."""
        told = passages.TOLD[step] + (f": {what[:1].lower()}{what[1:]}" if what else "")
        self.held.job.total = total
        self.held.tell(done=done, total=total, step=told[:STEP_CHARACTERS])
        self.progress(told, done, total, values or {})

    def _close(self) -> None:
        """Close the round, and wait until nothing of it is held: the sweep does the same where one runs.

        Raises Invalid before, where nothing could be trained here: a closed round never opens again.
        """
        running.require_libraries()
        passages.begin_close(**self.by)
        while True:
            assignments.expire()
            generation.expire_leases()
            comparisons.repair()
            iterations.close_finished()
            if passages.next_step(self.passage) != passages.CLOSE:
                return
            waits = passages.held_up_by(self.passage)
            told = ", ".join(f"{count:,} {WAITS[name][count > 1]}" for name, count in waits.items())
            self.tell(passages.CLOSE, f"waits for {told}" if told else "", 0)
            time.sleep(LOOK_SECONDS)

    def _export(self) -> None:
        for name in recipes.recipe(self.passage.recipe).exports():
            export = passages.begin_export(**self.by, name=name)

            def told(what: str, done: int, total: int | None, name: str = name) -> None:
                self.tell(passages.EXPORT, f"{name}, {what}", done, total)

            def run(export=export, told=told) -> None:
                snapshots.go_on(export, progress=told)

            self._run(passages.EXPORT, export, run)

    def _train(self, step: str) -> None:
        run = passages.begin_training(**self.by, step=step)

        def told(what: str, done: int, total: int | None, values: dict) -> None:
            self.tell(step, what, done, total, values)

        self._run(step, run, lambda: running.go_on(run, progress=told))
        _forget_models()

    def _run(self, step: str, job: Job, run: Callable[[], None]) -> None:
        """Run what the passage had asked for, unless it is done, by whomever."""
        job.refresh_from_db()
        while job.state != Job.State.DONE:
            if job.background and job.state in Job.ENDED:
                # A person had a worker go on with it by itself, and that has ended too.
                jobs.put_back(job)
            try:
                return run()
            except Conflict:
                job.refresh_from_db()
                if job.state != Job.State.RUNNING:
                    raise
                self.tell(step, "waits until whoever held it gives it up", 0)
                time.sleep(LOOK_SECONDS)
                job.refresh_from_db()


def _forget_models() -> None:
    """Give back what the models of a training took, on a GPU too, before the next one begins."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
