"""A Celery app whose engine loses its device at the word poison, as CUDA does at an error in a kernel."""

import torch

from worker.app import app
from worker.engines.transformers import TransformersEngine

__all__ = ["app"]

_forward = TransformersEngine._forward


def _lost(self, first, tokens, starts):
    # Before its thread there is only the engine's own check.
    rows = self._seats.rows[first : first + len(tokens)] if hasattr(self, "_thread") else []
    if any("poison" in self._tokenizer.decode(row.text.ids) for row in rows):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
    return _forward(self, first, tokens, starts)


TransformersEngine._forward = _lost
