"""A Hugging Face model and its tokenizer from a folder or the hub, or a sentence that says what is wrong."""

import logging
import threading
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from transformers.cache_utils import get_layer_types_and_kwargs

from worker.engines.base import LoadError

CORES = torch.get_num_threads()
"""What torch would take: the cores that this process may use, or OMP_NUM_THREADS."""
REASON_CHARACTERS = 300
ROWS_ELSEWHERE = 2 << 30
"""Bytes of keys and values that an engine may keep where it shares a machine's own memory."""
FULL, SLIDING = "full_attention", "sliding_attention"
ATTENTIONS = ("sdpa", "eager")
"""Implementations that honour a mask of ours. Those of flash attention take none, and find the texts in another way."""
BITS = {"int8": 8, "int4": 4}
_one_at_a_time = threading.Lock()
"""While transformers makes a model, torch's default precision is that model's, for all threads. Of two that are made at
once one would be made in the other's, and the default could stay changed for good."""


def load(
    location: str,
    revision: str = "",
    device: str = "auto",
    *,
    dtype: str = "auto",
    attention: str = "auto",
    quantisation: str = "",
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """Load model (on its device, ready to sample) and tokenizer. Raises LoadError.

    `device` is a torch device or `auto`, `dtype` the name of one of torch or `auto`, `attention` one of ATTENTIONS or
    `auto`, `quantisation` a key of BITS or empty.
    """
    if Path(location).is_absolute() and not Path(location).is_dir():
        raise LoadError(f"There is no folder {location}.")
    origin = source(location, revision)
    transformers.utils.logging.disable_progress_bar()
    place = find_device(device)
    how = {"dtype": precision(place) if dtype == "auto" else getattr(torch, dtype)}
    if attention != "auto":
        how["attn_implementation"] = attention
    if quantisation:
        # Weights are quantised on their way to the device, which so never holds them whole.
        how |= {"quantization_config": _in_bits(location, BITS[quantisation], how["dtype"]), "device_map": {"": place}}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(location, **origin)
        with _one_at_a_time:
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                location, output_loading_info=True, **how, **origin
            )
        model = (model if quantisation else model.to(place)).eval()
    # Whatever transformers, its file formats and the device's driver raise; all of it means the same here.
    except Exception as error:
        raise unreadable(location, error, origin) from error
    if info["missing_keys"]:
        raise LoadError(f"{location} lacks weights: {', '.join(sorted(info['missing_keys'])[:3])} …")
    if model.config._attn_implementation not in ATTENTIONS:
        raise LoadError(f"{location} attends by {model.config._attn_implementation}: set WORKER_ATTENTION to sdpa.")
    try:
        tokenizer.get_chat_template()
    except ValueError:
        raise LoadError(f"{location} has no chat template.") from None
    unknown = set(layer_types(model)) - {FULL, SLIDING}
    if unknown:
        raise LoadError(f"{location} has layers that this engine does not serve: {', '.join(sorted(unknown))}.")
    return model, tokenizer


def unreadable(location: str, error: Exception, origin: dict) -> LoadError:
    """What it means that transformers raised this for a location that was read with these arguments of `source`."""
    reason = in_one_line(error)
    # transformers says both at length: that it can make no tokenizer, and that nobody answers.
    if Path(location).is_dir() and not (Path(location) / "config.json").is_file():
        reason = f"there is no config.json in {location}."
    elif origin.get("local_files_only") and isinstance(error, OSError):
        reason = "it is no folder, the hub does not answer, and not all of it is kept here."
    return LoadError(f"{location} cannot be loaded: {reason}")


def source(location: str, revision: str) -> dict:
    """What transformers' loaders need to be told of a location. Raises LoadError as `_reach` does."""
    return ({"revision": revision} if revision else {}) | _reach(location, revision)


def _reach(location: str, revision: str) -> dict:
    """How to read a location: of the hub only what is kept here, where the hub does not answer.

    transformers itself asks six times, for three quarters of a minute. Raises LoadError where the hub has no such
    model.
    """
    if Path(location).is_dir():
        return {}
    try:
        huggingface_hub.HfApi().model_info(location, revision=revision or None, timeout=10)
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise LoadError(f"{location} is no folder, and the hub says: {in_one_line(error)}") from error
    # Which errors mean that nobody answers depends on the HTTP library that the hub's client uses.
    except Exception:
        return {"local_files_only": True}
    return {}


def layer_types(model: transformers.PreTrainedModel) -> list[str]:
    """What each layer attends to, in the words of transformers' configurations."""
    return get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))[0]


def context_tokens(model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase) -> int:
    """The longest context, in tokens. Raises LoadError where neither model nor tokenizer says."""
    longest = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    # A tokenizer that knows of no limit says 10**30.
    longest = longest or tokenizer.model_max_length
    if longest > 10**9:
        raise LoadError(f"{tokenizer.name_or_path} does not say how long its context is.")
    return longest


def ends_of_turn(model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase) -> set[int]:
    """All tokens with which the model may end its turn."""
    named = [model.generation_config.eos_token_id, model.config.get_text_config(decoder=True).eos_token_id]
    named.append(tokenizer.eos_token_id)
    return {token for one in named for token in (one if isinstance(one, list) else [one]) if token is not None}


def find_device(wanted: str) -> torch.device:
    """The device of that name. Raises LoadError where torch finds none such here."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise LoadError(f"WORKER_DEVICE is {wanted}, which is no device that torch knows.") from None
    # `cuda` alone is the first one.
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 1):
        raise LoadError(f"WORKER_DEVICE is {wanted}, and torch finds no such device on this machine.")
    return device


def _in_bits(location: str, bits: int, dtype: torch.dtype | str) -> transformers.BitsAndBytesConfig:
    """How to store so many bits a weight. Raises LoadError without the library for it."""
    if not transformers.utils.is_bitsandbytes_available():
        raise LoadError(
            f"{location} is to be stored in {bits} bits a weight, which needs the package bitsandbytes: install the "
            "extra `quantised`."
        )
    # It says for every layer of every step that it computes in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if bits == 8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    # NF4 spaces its 16 values as weights are spread, and loses the least. The weights are multiplied in the model's
    # precision; that of a stored model is not known before it is loaded.
    if dtype == "auto":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def precision(device: torch.device) -> torch.dtype | str:
    """As the model was stored; on a CPU bfloat16 where it multiplies that in hardware (twice as fast), else float32."""
    if device.type != "cpu":
        return "auto"
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else torch.float32


def memory_for_rows(device: torch.device) -> int:
    """Bytes of keys and values that the engine may keep: most of what a GPU has left, ROWS_ELSEWHERE elsewhere."""
    return torch.cuda.mem_get_info(device)[0] * 8 // 10 if device.type == "cuda" else ROWS_ELSEWHERE


def share_the_cores() -> None:
    """Called by the thread that computes: leave a core to the rest of the site."""
    torch.set_num_threads(max(1, CORES - 1))


def in_one_line(error: Exception) -> str:
    """What an error says, its lines joined, as far as one reads; its name where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= REASON_CHARACTERS else f"{text[: REASON_CHARACTERS - 2].rstrip()} …"
