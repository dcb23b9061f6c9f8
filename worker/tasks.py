"""Celery's tasks: each is a bell that says where to look."""

from annotate import sweep
from annotate.bell import app
from annotate.datasets import checkpoint
from worker.app import job_processes, process, scoring_process


@app.task(name="worker.look")
def look(policy_id: int) -> None:
    """Something waits for this policy, or is to be stopped."""
    if process():
        process().ring(policy_id)


@app.task(name="worker.run_job")
def run_job(kind: str, job_id: int) -> None:
    """An export or import waits, or its holder died."""
    if job_processes():
        job_processes().ring(kind, job_id)


@app.task(name="worker.score")
def score(project_id: int) -> None:
    """Candidates of this project may be there to be scored."""
    if scoring_process():
        scoring_process().ring(project_id)


@app.task(name="worker.sweep")
def sweep_up() -> None:
    """Let leases run out, and ring for what waits."""
    sweep.run()
    # Exports are written on disk, so that each machine looks after its own.
    if next(checkpoint.folders(), None):
        # It brings libraries of which a worker has no other use.
        from annotate.datasets import snapshots

        snapshots.remove_leftovers()
