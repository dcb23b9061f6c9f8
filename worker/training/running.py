"""Running a training: from the record to a registered model, whole or not at all.

The model is written into the run's own folder, moved in one step to the folder of models, and registered. Killed at
any point, the run is gone on with: from its last checkpoint, or from a model that lies in its place already.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from django.conf import settings
from safetensors import SafetensorError

from annotate import jobs, training
from annotate.datasets import manifest
from annotate.errors import BothsidesError, Invalid
from annotate.models import Policy, TrainingRun
from worker.training.work import Progress, Work

TRAINERS = {
    "sft": "worker.training.sft",
    "reward": "worker.training.reward",
    "dpo": "worker.training.dpo",
    "ppo": "worker.training.ppo",
}
"""By kind the module whose `train(work)` leaves a model in `work.made` and returns its metrics. By name, because
importing one brings torch with it."""

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft")
HOW_TO_INSTALL = (
    ".venv/bin/python -m pip install --constraint constraints.txt --editable '.[train]' in the folder of Bothsides "
    "brings what trains."
)
NOT_WRITTEN = ("No space left on device", "inline_container", "PytorchStreamWriter")
"""What is in the errors of safetensors and torch where a file could not be written; they are none of the system's."""
MADE_BY = "bothsides.json"
"""A file in the folder of a model that says which run made it."""


def go_on(run: TrainingRun, *, progress: Progress) -> TrainingRun:
    """Run a training that waits, or was cut short, and register what comes of it.

    Raises Conflict where it is running elsewhere or has ended, Invalid where it cannot be done: with an empty split, a
    model that cannot be trained, a full disk, a loss that diverges. The run is failed then, and nothing is registered.
    """
    if run.state in TrainingRun.ENDED and run.state != TrainingRun.State.DONE and not run.background:
        jobs.put_back(run)
    with jobs.running(run) as held, said_clearly():
        work = Work(run, held, progress)
        place = place_of(run)
        metrics = _metrics_of_model_in_place(run, place)
        if metrics is None:
            # Found out now rather than after a day of training.
            _check_free(run, place)
            metrics = import_module(TRAINERS[run.kind]).train(work)
            put_in_place(run, work.made, metrics)
        work.tell("Registering", 0)
        register(run, held, metrics)
    shutil.rmtree(work.folder, ignore_errors=True)
    return run


def place_of(run: TrainingRun) -> Path:
    """Where the model of a run lies once it is whole."""
    return settings.BOTHSIDES_HOME / "models" / training.name_of_result(run)


def register(run: TrainingRun, held: jobs.Run, metrics: dict) -> None:
    """End a run whose model lies in its place. See `training.register` for what is raised."""
    place = place_of(run)
    training.register(
        run=run,
        token=held.token,
        location=place.name,
        digest=_digest(place),
        metrics=metrics,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of this code, and of the libraries that train."""
    found = {"bothsides": manifest.code_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def require_libraries() -> None:
    """Raises Invalid where what trains is not installed."""
    for name in LIBRARIES:
        if find_spec(name) is None:
            raise Invalid(f"{name} is not installed: {HOW_TO_INSTALL}")


@contextmanager
def said_clearly() -> Iterator[None]:
    """A full disk and a missing library as Invalid, in a sentence."""
    try:
        yield
    except BothsidesError:
        raise
    except ModuleNotFoundError as error:
        raise Invalid(f"{error.name} is not installed: {HOW_TO_INSTALL}") from error
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error
        raise Invalid(f"The training cannot go on: {told}.") from error
    except (RuntimeError, SafetensorError) as error:
        line = str(error).partition("\n")[0]
        if not any(sign in line for sign in NOT_WRITTEN):
            raise
        raise Invalid(
            f"The training cannot go on: a file cannot be written, most likely the disk is full: {line}"
        ) from error


def put_in_place(run: TrainingRun, made: Path, metrics: dict) -> None:
    """Move the model that was made among the models, in one step. Raises Invalid where another has that name."""
    place = place_of(run)
    _check_free(run, place)
    (made / MADE_BY).write_text(json.dumps(_named(run) | {"metrics": metrics}))
    place.parent.mkdir(parents=True, exist_ok=True)
    if not _are_on_one_disk(made, place.parent):
        made = _copied(made, place.with_name(f".{place.name}"))
    for path in made.rglob("*"):
        if path.is_file():
            # A server of models runs as somebody else, and safetensors writes for its owner alone.
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    made.rename(place)


def _are_on_one_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _copied(made: Path, beside: Path) -> Path:
    """A copy on the disk of the models, from where it can be moved in one step."""
    # No model has a name that begins with a dot.
    shutil.rmtree(beside, ignore_errors=True)
    return Path(shutil.copytree(made, beside))


def _check_free(run: TrainingRun, place: Path) -> None:
    if place.exists():
        raise Invalid(
            f"There is a folder {place} already, which is not of this run. Move it away, or train under another --name."
        )
    if run.kind != TrainingRun.Kind.REWARD and Policy.objects.filter(name=place.name).exists():
        raise Invalid(f"There is a policy {place.name} already. Train under another --name.")


def _metrics_of_model_in_place(run: TrainingRun, place: Path) -> dict | None:
    """The metrics of the run's model where that was put in its place before the run was cut short."""
    try:
        found = json.loads((place / MADE_BY).read_text())
    except (OSError, ValueError):
        return None
    return found["metrics"] if found.items() >= _named(run).items() else None


def _named(run: TrainingRun) -> dict:
    """What tells a run from all others, those too that had its number before a database was restored."""
    return {"run": run.pk, "kind": run.kind, "asked": run.created_at.isoformat()}


def _digest(place: Path) -> str:
    """SHA-256 over the names and digests of a folder's files."""
    total = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{digest}  {path.relative_to(place)}\n".encode())
    return total.hexdigest()
