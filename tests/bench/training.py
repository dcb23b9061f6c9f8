"""Reward models: the K-wise form beside TRL's pairs on the same export, and both beside bare passes of the same texts.

On a small model made for it, whose two layers are fast: it shows more of the overhead of our trainer and of TRL's than
a large one would.
"""

import os
import random
import statistics
import time

import torch
import transformers
from django.conf import settings

from annotate import derive, training
from annotate.models import Export, Policy, TrainingRun
from tests import factory, tiny
from tests.worker import preferences
from worker.training import conversations, examples, kwise, models, ranked, running

SPLITS = {"train": 48, "validation": 48, "test": 48}
EPOCHS, BATCH = 4, 8
LEARNING_RATE = 1e-3
SIGN = "people"
"""The word that makes an answer good."""
SEEDS = (0, 1)
LENGTH = 40
"""Words of a question, and of an answer."""
NOISE = 1.5
"""Of trainers, in words: so that not everything can be foretold."""


def main() -> None:
    """Print one table; some minutes on two cores."""
    # A second thread gains nothing on a model this small, and loses much where cores are busy.
    torch.set_num_threads(1)
    tiny.build(settings.BOTHSIDES_HOME / "models" / "tiny")
    base = factory.policy(name="tiny", location="tiny")
    print(f"\nReward models of {SPLITS['train']} comparisons, {EPOCHS} epochs, load {os.getloadavg()[0]:.1f}")
    print(f"{'K':>2} {'loss':>9} {'passes':>7} {'s an epoch':>11} {'floor':>7} {'ratio':>6} {'unseen accuracy':>24}")
    for k in (4, 9):
        export = _exported(base, k)
        for loss, passes in (("kwise", k), ("pairwise", k * (k - 1))):
            found, floors = [], []
            for seed in SEEDS:
                found.append(_trained(export, base, k, loss, seed))
                # Right after it: the machine may be busy with other work too.
                floors.append(_floor(export, base))
            seconds, floor = statistics.median(each for each, _ in found), statistics.median(floors)
            accuracies = [run.metrics["unseen_accuracy"] for _, run in found]
            error = found[0][1].metrics["unseen_accuracy_error"]
            told = f"{statistics.mean(accuracies):.3f} ± {error:.3f} ({min(accuracies):.3f}–{max(accuracies):.3f})"
            print(f"{k:>2} {loss:>9} {passes:>7} {seconds:>11.2f} {floor:>7.2f} {seconds / floor:>6.2f} {told:>24}")
    print("The floor is forward and backward of K passes a comparison and an optimiser's step, in a bare loop.")


def _exported(base: Policy, k: int) -> Export:
    """Comparisons whose better answers say `people` more often, ranked with noise."""
    project = factory.project(served_by=base, k=k, secret="00" * 32)
    draw = random.Random(k)
    for opening in preferences.openings(project, SPLITS):
        counts = draw.sample(range(LENGTH // 2), k)
        answers = [_words(draw, count) for count in counts]
        seen = [count / 3 + draw.gauss(0, NOISE) for count in counts]
        tiers = [(answers[number],) for number in sorted(range(k), key=lambda number: -seen[number])]
        question = f"{opening} {' '.join(draw.choices(tiny.WORDS, k=LENGTH))}"
        turns = ("user", question), ("assistant", tiers[0][0])
        # The split is that of the opening.
        conversation = factory.imported(project, *turns, family=derive.family_of(opening))
        factory.imported_comparison(project, *tiers, conversation=conversation)
    return preferences.exported(project)


def _words(draw: random.Random, count: int) -> str:
    words = draw.choices([word for word in tiny.WORDS if word != SIGN], k=LENGTH)
    for place in draw.sample(range(LENGTH), count):
        words[place] = SIGN
    return " ".join(words)


def _trained(export: Export, base: Policy, k: int, loss: str, seed: int) -> tuple[float, TrainingRun]:
    """Seconds an epoch, and the run. A step has as many comparisons in both forms, and so have the passes."""
    each = 1 if loss == "kwise" else k * (k - 1) // 2
    options = {"loss": loss, "batch_size": BATCH * each, "at_once": each, "heads": 1, "seed": seed}
    options |= {"epochs": float(EPOCHS), "learning_rate": LEARNING_RATE, "save_steps": 10_000}
    run = training.prepare(kind="reward", exports=[export], base=base, options=options)
    at: dict[int, float] = {}

    def told(step: str, done: int, total: int | None, values: dict) -> None:
        if step == "Training":
            at.setdefault(done, time.monotonic())

    running.go_on(run, progress=told)
    first, last = min(at), max(at)
    return (at[last] - at[first]) / (last - first) * SPLITS["train"] / BATCH, run


def _floor(export: Export, base: Policy) -> float:
    """Seconds an epoch of nothing but the passes of each comparison's completions, and the optimiser's steps."""
    make = transformers.AutoModelForSequenceClassification
    model, tokenizer = models.load(base, make, num_labels=1)
    learnt = ranked.comparisons(examples.rows(examples.bring(export, settings.BOTHSIDES_HOME / "copies"), "train"))
    texts = [[conversations.answered(tokenizer, one.context, text) for text in one.texts.values()] for one in learnt]
    batches = [kwise.collated([kwise.Element(ids, [(0, 1, 1.0)], [1.0])], 0) for ids in texts]
    optimiser = torch.optim.AdamW(model.parameters())
    begun = time.monotonic()
    for number, batch in enumerate(batches, 1):
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        model(**tokens, use_cache=False).logits.sum().backward()
        if number % BATCH == 0:
            optimiser.step()
            optimiser.zero_grad()
    return time.monotonic() - begun
