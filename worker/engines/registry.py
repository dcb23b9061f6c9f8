"""Engines by the names that policies give them."""

from importlib import import_module
from pathlib import Path

from worker.engines.base import Engine, LoadError, Server

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
    server: Server | None = None,
) -> Engine:
    """Load a policy's model; takes seconds to minutes. Raises LoadError with a sentence for people.

    `location` is a folder or a hub id; a relative name is first looked for under `models`. `capacity` is how many
    texts at once, `device` a torch device or `auto`; `dtype`, `attention` and `quantisation` are as in
    `loading.load`, `thinking` is what the policy says of it. With a `server`, which is asked instead, `location` is its
    base URL, and none of them matters.
    """
    if engine not in ENGINES:
        raise LoadError(f"There is no engine {engine!r}; known: {', '.join(ENGINES)}.")
    module, _, name = ENGINES[engine].rpartition(".")
    make = getattr(import_module(module), name)
    if server:
        return make(location, server)
    local = models / location
    place = str(local) if local.is_dir() else location
    return make(
        place,
        revision=revision,
        capacity=capacity,
        device=device,
        dtype=dtype,
        attention=attention,
        quantisation=quantisation,
        thinking=thinking,
    )
