"""A trained reward model: how it lies in its folder, and what it gives to texts.

The folder holds a model of one number that any reader of transformers loads, whose head is the mean of the heads.
Beside it lie the heads themselves, and what is taken off each so that demonstrations have 0 on average: a comparison
says nothing of where 0 is, and each head has its own.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, pstdev

import safetensors.torch
import torch
import transformers
from safetensors import SafetensorError

from annotate.errors import Invalid
from worker.engines import loading
from worker.training import conversations, models

HEADS = "heads.safetensors"

TOKENS_AT_ONCE = 8192
"""That a batch may have, padding counted: what it takes of memory grows with the square of its longest text. A text
that is longer is a batch by itself, which is not padded and takes far less."""

Text = tuple[list[dict], str]
"""The messages before, and what the assistant answers."""
Reward = tuple[float, float]
"""The mean over the heads, and their standard deviation."""


def save(model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model with any number of heads, which have 0 wherever training left it. The model is changed."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    heads = model.score.weight.detach().float().cpu().clone()
    model.score = torch.nn.Linear(heads.shape[1], 1, bias=False, dtype=model.dtype)
    model.score.weight.data = heads.mean(0, keepdim=True).to(model.dtype)
    model.config.num_labels = model.num_labels = 1
    folder.mkdir(parents=True, exist_ok=True)
    models.save(model, tokenizer, folder)
    _write(folder, heads, torch.zeros(len(heads)))


def normalise(folder: Path, shift: Sequence[float]) -> None:
    """Have so much taken off each head, besides what is already."""
    heads, before = _read(folder)
    _write(folder, heads, before + torch.tensor(shift))


def with_zero(folder: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """The model of one number, whose head has the normalisation as its bias, and the tokenizer: what PPO takes.

    Raises Invalid where the folder holds no reward model.
    """
    model, tokenizer = _loaded(folder)
    _, shift = _read(folder)
    score = torch.nn.Linear(model.score.in_features, 1, bias=True, dtype=model.dtype)
    score.weight.data = model.score.weight.data
    score.bias.data = -shift.mean().reshape(1).to(model.dtype)
    model.score = score
    return model, tokenizer


def summed(by_head: Sequence[float]) -> Reward:
    """What the heads make together."""
    return fmean(by_head), pstdev(by_head)


class Scorer:
    """Gives texts what a reward model thinks of them."""

    def __init__(self, folder: Path, *, device: str | None = None, at_once: int = 8):
        """Load the model of a run's folder. Raises Invalid where it holds no reward model."""
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, self._tokenizer = _loaded(folder)
        self._body = getattr(model, model.base_model_prefix).to(self._device).eval()
        self._heads, self._shift = (tensor.to(self._device) for tensor in _read(folder))
        self._most = getattr(model.config, "max_position_embeddings", None)
        self._at_once = at_once

    def score(self, texts: Sequence[Text], told: Callable[[int], None] | None = None) -> list[Reward | None]:
        """The reward of each text and its spread.

        None for a text that is longer than the model reads, or to which it gives no number. `told` hears how many are
        done. Raises Invalid where the chat template refuses one.
        """
        found = self.by_head(texts, told)
        return [summed(values) if values and all(map(math.isfinite, values)) else None for values in found]

    def by_head(self, texts: Sequence[Text], told: Callable[[int], None] | None = None) -> list[list[float] | None]:
        """The reward that each head gives to each text; None for one that is longer than the model reads."""
        ids = [conversations.answered(self._tokenizer, before, text) for before, text in texts]
        found: list[list[float] | None] = [None] * len(ids)
        # Those of like length together, so that little is padded; the longest first, whose length is that of a batch.
        order = sorted(
            (n for n in range(len(ids)) if not self._most or len(ids[n]) <= self._most), key=lambda n: -len(ids[n])
        )
        done = 0
        while done < len(order):
            fit = max(1, TOKENS_AT_ONCE // len(ids[order[done]]))
            numbers = order[done : done + min(self._at_once, fit)]
            for number, values in zip(numbers, self._batch([ids[number] for number in numbers]), strict=True):
                found[number] = values
            done += len(numbers)
            if told:
                told(done)
        return found

    @torch.no_grad()
    def _batch(self, ids: list[list[int]]) -> list[list[float]]:
        longest = max(map(len, ids))
        tokens = torch.tensor([[*one, *[0] * (longest - len(one))] for one in ids], device=self._device)
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids], device=self._device)
        hidden = self._body(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(ids)), [len(one) - 1 for one in ids]]
        return (last.float() @ self._heads.T - self._shift).tolist()


def _loaded(folder: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    if not folder.is_dir():
        raise Invalid(f"The reward model in {folder} cannot be loaded: there is no such folder.")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    # Whatever transformers and its file formats raise; all of it means the same here.
    except Exception as error:
        raise Invalid(f"The reward model in {folder} cannot be loaded: {loading.in_one_line(error)}") from error
    return model.eval(), tokenizer


def _read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The heads (heads, hidden), and what is taken off each (heads,)."""
    try:
        held = safetensors.torch.load_file(folder / HEADS)
    except (OSError, SafetensorError) as error:
        raise Invalid(f"{folder} holds no reward model of ours: {error}") from error
    if not all(held[name].isfinite().all() for name in ("weight", "shift")):
        raise Invalid(f"The reward model in {folder} has a head that is no numbers.")
    return held["weight"], held["shift"]


def _write(folder: Path, heads: torch.Tensor, shift: torch.Tensor) -> None:
    safetensors.torch.save_file({"weight": heads, "shift": shift}, folder / HEADS)
