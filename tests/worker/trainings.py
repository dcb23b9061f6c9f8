"""Trainings that are run here and now: watched, stopped at a step, and gone on with."""

import pytest

from annotate import jobs
from annotate.models import Policy, TrainingRun
from worker.training import running, work


def run_it(run: TrainingRun, told: list[tuple[str, int]] | None = None) -> TrainingRun:
    """The run, once it is over; `told` gets each word of progress."""

    def progress(step, done, total, values):
        if told is not None:
            told.append((step, done))

    return running.go_on(run, progress=progress)


def stop_at(run: TrainingRun, last: int) -> None:
    """Run it until somebody stops it right after a step was measured."""
    measure = work.Work.measure

    def stopping(self, step, values):
        measure(self, step, values)
        if step == last:
            raise jobs.Stopped("It was stopped.")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(work.Work, "measure", stopping)
        with pytest.raises(jobs.Stopped):
            run_it(run)
    run.refresh_from_db()
    assert (run.state, Policy.objects.filter(run=run).count()) == ("stopped", 0)


def first_step_of_going_on(run: TrainingRun) -> int:
    """Go on with a run to its end; with which step it began."""
    told = []
    run_it(run, told)
    return min(done for step, done in told if step == "Training")


def measured(run: TrainingRun, name: str = "loss") -> dict[int, float]:
    """A measure by step."""
    return {point.step: point.values[name] for point in run.points.all() if name in point.values}


def failed(run: TrainingRun) -> str:
    """The reason of a run that failed and left everything else as it was: of policies its base alone is there."""
    run.refresh_from_db()
    assert (run.state, run.location, run.metrics) == ("failed", "", {})
    assert list(Policy.objects.all()) == [run.base]
    return run.reason
