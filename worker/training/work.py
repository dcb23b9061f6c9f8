"""One training while a process runs it: where its files lie, what it learns from, and whom it tells how far it is."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings

from annotate import jobs, recipes, training
from annotate.errors import Invalid
from annotate.models import TrainingRun
from worker.training import examples

Progress = Callable[[str, int, int | None, dict[str, float]], None]
"""Told the step that is being done, how much of it is done, of how much where that is known, and what was measured."""

WHOLE = "whole"
"""A file in each checkpoint that is written last: one without it was cut short."""


class Work:
    """What a trainer is given. It leaves the model in `made`, and its checkpoints in `checkpoints`."""

    def __init__(self, run: TrainingRun, held: jobs.Run, progress: Progress):
        self.run = run
        self.options = recipes.parse(run.kind, {key: value for key, value in run.options.items() if key != "name"})
        self.folder = folder_of(run)
        self.checkpoints = self.folder / "checkpoints"
        self.made = self.folder / "made"
        self._held, self._progress = held, progress
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def tell(self, step: str, done: int, total: int | None = None, values: dict[str, float] | None = None) -> None:
        """Say how far it is. Raises jobs.Stopped or jobs.Lost where it must not go on."""
        self._held.tell(done=done, total=total, step=step)
        self._progress(step, done, total, values or {})

    def measure(self, step: int, values: dict[str, float]) -> None:
        """Keep what was measured at a step. Raises Invalid where that is no number: training has diverged."""
        lost = [name for name, value in values.items() if not math.isfinite(value)]
        if lost:
            told = ", ".join(name.replace("_", " ") for name in lost)
            told += " is no number" if len(lost) == 1 else " are no numbers"
            raise Invalid(f"Training diverged: {told} at step {step}. A lower learning_rate may help.")
        training.measure(run=self.run, step=step, values=values)

    def rows(self, split: str, what: str | None = None) -> Iterator[dict]:
        """The lines of all exports that it learns from, or of those of one kind, of one split.

        See `examples.bring` for what is raised.
        """
        for export in self.run.exports.filter(**{"what": what} if what else {}).order_by("pk"):
            yield from examples.rows(examples.bring(export, self.folder / "exports"), split)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole; others are removed, as they were cut short."""
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
        for path in found:
            if not (path / WHOLE).exists():
                shutil.rmtree(path)
        return next((path for path in reversed(found) if path.exists()), None)

    def is_whole(self, checkpoint: Path) -> None:
        """Say of a checkpoint that all of it is written."""
        (checkpoint / WHOLE).touch()


def folder_of(run: TrainingRun) -> Path:
    """Where a run keeps what it needs until it is done.

    Its number alone does not name it: a database that is restored gives numbers again.
    """
    return settings.BOTHSIDES_HOME / "training" / f"{run.pk}-{run.created_at:%Y%m%d%H%M%S%f}"
