"""Engines by the names that policies give them."""

from importlib import import_module
from pathlib import Path

from worker.engines.base import Engine, LoadError, Server, Size

# By name, because importing one brings torch with it.
ENGINES = {
    "transformers": "worker.engines.transformers.TransformersEngine",
    "openai_compatible": "worker.engines.openai_compatible.OpenAICompatibleEngine",
}


def load(
    *,
    engine: str,
    location: str,
    revision: str,
    models: Path,
    capacity: int,
    device: str,
    dtype: str = "auto",
    attention: str = "auto",
    quantisation: str = "",
    thinking: str = "",
    memory: int | None = None,
) -> Engine:
    """Load a policy's model; takes seconds to minutes. Raises LoadError with a sentence for people.

    `location` is a folder or a hub id; a relative name is first looked for under `models`. `capacity` is how many
    texts at once, `device` a torch device or `auto`; `dtype`, `attention` and `quantisation` are as in
    `loading.load`, `thinking` is what the policy says of it, `memory` are the bytes that it may take, where it has not
    what there is.
    """
    if engine not in ENGINES:
        raise LoadError(f"There is no engine {engine!r}; known: {', '.join(ENGINES)}.")
    return _engine(engine)(
        place_of(location, models),
        revision=revision,
        capacity=capacity,
        device=device,
        dtype=dtype,
        attention=attention,
        quantisation=quantisation,
        thinking=thinking,
        memory=memory,
    )


def meet(*, location: str, server: Server) -> Engine:
    """An engine that asks a server, whose base URL is `location`. Raises LoadError with a sentence for people."""
    return _engine("openai_compatible")(location, server)


def _engine(name: str):
    module, _, attribute = ENGINES[name].rpartition(".")
    return getattr(import_module(module), attribute)


def weigh(*, location: str, models: Path, **how) -> Size | None:
    """The size of a model before `load` is called with the same; None where it cannot be known. Raises LoadError."""
    return import_module("worker.engines.sizes").size_of(place_of(location, models), **how)


def memory_of(device: str) -> int:
    """Bytes that the models on a device may take together. Raises LoadError where there is no such device."""
    return import_module("worker.engines.sizes").memory_of(device)


def place_of(location: str, models: Path) -> str:
    """Where a model's files are: a folder, of a relative name one under `models`, or a hub id."""
    local = models / location
    return str(local) if local.is_dir() else location
