"""A reward model that nobody trained: it likes some words, whatever stands around them."""

from pathlib import Path

import torch
import transformers
from django.utils import timezone

from annotate import training
from annotate.models import Export, Policy, TrainingRun
from worker.training import scoring

LIKED = ("the", "a", "is", "of", "and")
NAME = "liking"


def build(folder: Path, base: Path) -> None:
    """Write a reward model that likes some words: its reward grows with their share among all tokens."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    liked = [tokenizer(f" {word}").input_ids[0] for word in LIKED]
    with torch.no_grad():
        first, second = (layer.self_attn for layer in model.model.layers)
        embedded = model.model.embed_tokens.weight
        embedded[:, 0] = 0
        embedded[liked, 0] = 8
        # Of all tokens alike the first number goes on to the last.
        for matrix in (first.q_proj, first.v_proj, first.o_proj, second.o_proj):
            matrix.weight.zero_()
        first.v_proj.weight[0, 0] = first.o_proj.weight[0, 0] = 1
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
        model.score.weight.zero_()
        model.score.weight[:, 0] = torch.tensor([0.8, 1.2])
    scoring.save(model, tokenizer, folder)
    scoring.normalise(folder, [0.2, 0.4])


def run(ranked: Export, base: Policy) -> TrainingRun:
    """As if a training had made it, under its name among the models."""
    made = training.prepare(kind="reward", exports=[ranked], base=base, options={})
    done = {"state": "done", "location": NAME, "digest": "0" * 64, "ended_at": timezone.now()}
    TrainingRun.objects.filter(pk=made.pk).update(**done)
    made.refresh_from_db()
    return made
