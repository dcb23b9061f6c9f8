"""Engines by the names that policies give them."""

from importlib import import_module
from pathlib import Path

from worker.engines.base import Engine, LoadError

# By name, because importing one brings torch with it.
ENGINES = {"transformers": "worker.engines.transformers.TransformersEngine"}


def load(*, engine: str, location: str, revision: str, models: Path, capacity: int, device: str) -> Engine:
    """Load a policy's model; takes seconds to minutes. Raises LoadError with a sentence for people.

    `location` is a folder or a hub id; a relative name is first looked for under `models`. `capacity` is how many
    texts at once, `device` a torch device or `auto`.
    """
    if engine not in ENGINES:
        raise LoadError(f"There is no engine {engine!r}; known: {', '.join(ENGINES)}.")
    module, _, name = ENGINES[engine].rpartition(".")
    local = models / location
    place = str(local) if local.is_dir() else location
    return getattr(import_module(module), name)(place, revision=revision, capacity=capacity, device=device)
