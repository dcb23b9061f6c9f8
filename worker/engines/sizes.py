"""How much memory there is for models, and how much one will take, before it is loaded.

A model takes its weights, whose number and kind stand in the headers of its files, and a share for keys and values:
enough that as many texts as a worker samples at once can be of 512 tokens each, though not more than the device's rule
for rows allows. Longer texts take the share of several, and fewer are sampled at once.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import psutil
import torch
import transformers

from worker.engines import loading
from worker.engines.base import LoadError, Size

TOKENS_OF_A_TEXT = 512
"""What the share for keys and values reckons with, of each text."""
PART_OF_A_GPU = 0.9
"""Of what it has free: the rest is for what a step computes with."""
PART_OF_A_MACHINE = 0.5
"""Of all that it has: the rest is for the site."""
LIMITS_OF_A_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "U64": 8, "U32": 4, "U16": 2}
"""Of the kinds of numbers in weight files; all others take one or less."""
FLOATING = ("F64", "F32", "F16", "BF16")
SCALES = 1.07
"""What the scales of quantised weights add."""


def memory_of(device: str) -> int:
    """Bytes that the models on a device, of `loading.load`'s names, may take together.

    Most of what a GPU has free now; of a machine's own memory, or what a container may have of it, half. Raises
    LoadError where there is no such device.
    """
    place = loading.find_device(device)
    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0] * PART_OF_A_GPU)
    return int(min([psutil.virtual_memory().total, *_limits()]) * PART_OF_A_MACHINE)


def _limits() -> Iterator[int]:
    for path in map(Path, LIMITS_OF_A_CONTAINER):
        if path.is_file() and (limit := path.read_text().strip()).isdigit():
            yield int(limit)


def size_of(location: str, *, revision: str, capacity: int, device: str, dtype: str, quantisation: str) -> Size | None:
    """The size of a model that is loaded with these arguments (as of `loading.load`); None where it cannot be known.

    `capacity` is how many texts at once. Raises LoadError where there is no such folder or device, or no configuration.
    """
    if Path(location).is_absolute() and not Path(location).is_dir():
        raise LoadError(f"There is no folder {location}.")
    place = loading.find_device(device)
    wanted = loading.precision(place) if dtype == "auto" else getattr(torch, dtype)
    origin = loading.source(location, revision)
    try:
        config = transformers.AutoConfig.from_pretrained(location, **origin)
    # Whatever the hub and transformers raise. Others must not be put down to load what has no configuration.
    except Exception as error:
        raise loading.unreadable(location, error, origin) from error
    try:
        tensors = list(_tensors(location, revision))
    # The same of its files: loading says what is wrong with the model.
    except Exception:
        return None
    own = config.dtype or torch.float32
    kept = own if wanted == "auto" else wanted
    bits = loading.BITS.get(quantisation)
    weights = sum(_bytes_of(name, kind, shape, kept.itemsize, bits) for name, kind, shape in tensors)
    rows = capacity * TOKENS_OF_A_TEXT * _bytes_of_a_token(config.get_text_config(decoder=True), kept.itemsize)
    return Size(int(weights), min(int(rows), max(int(weights), loading.ROWS_ELSEWHERE)))


def _tensors(location: str, revision: str) -> Iterator[tuple[str, str, list[int]]]:
    """Name, kind and shape of all tensors in the weight files of a folder, or of the hub."""
    folder = Path(location)
    if not folder.is_dir():
        files = huggingface_hub.HfApi().get_safetensors_metadata(location, revision=revision or None).files_metadata
    elif not list(folder.glob("*.safetensors")):
        # Of other files only their sizes are known without reading them whole.
        yield from (("", "F8", [path.stat().st_size]) for path in folder.glob("*.bin"))
        return
    else:
        files = huggingface_hub.get_local_safetensors_metadata(folder).files_metadata
    for file in files.values():
        yield from ((name, tensor.dtype, tensor.shape) for name, tensor in file.tensors.items())


def _bytes_of(name: str, kind: str, shape: list[int], itemsize: int, bits: int | None) -> float:
    """Of one tensor in memory. Quantised are the matrices between embedding and head."""
    count = math.prod(shape)
    if kind not in FLOATING:
        return count * BYTES.get(kind, 1)
    if bits and len(shape) == 2 and "embed" not in name and "lm_head" not in name:
        return count * bits / 8 * SCALES
    return count * itemsize


def _bytes_of_a_token(config: transformers.PretrainedConfig, itemsize: int) -> int:
    """Keys and values of one token, in all layers."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * itemsize
