"""A reward model from comparisons: K-wise as InstructGPT trains it, or on pairs by TRL's RewardTrainer."""

import gc
import math
import random
import shutil
from array import array
from collections.abc import Sequence

import datasets
import numpy as np
import torch
import transformers
import trl
from trl.trainer.reward_trainer import suppress_seqcls_warning
from trl.trainer.utils import disable_dropout_in_model

from annotate.errors import Invalid
from worker.training import conversations, kwise, measuring, models, ranked, scoring
from worker.training.ranked import Comparison
from worker.training.watching import Watching, run_to_the_end
from worker.training.work import Work

READING, SAVING, MEASURING = "Reading comparisons", "Writing the model", "Measuring"
SPLITS = ("train", "validation", "test")
UNSEEN = ("validation", "test")
MOST_FOR_ZERO = 1000
"""Texts of which the mean is taken: it is known then to a thirtieth of their standard deviation."""

Ids = dict[int, list[Sequence[int]]]
"""By comparison the tokens of its completions."""


def train(work: Work) -> dict:
    """Train a reward model on the comparisons of the split train; leaves it in `work.made`.

    Returns the figures of docs/training.md. The figures are of the model that was written, read again.
    """
    options = work.options
    # The heads begin at random.
    transformers.set_seed(options.seed)
    heads = options.heads if options.loss == "kwise" else 1
    make = transformers.AutoModelForSequenceClassification
    # That there is no head yet is no news.
    with suppress_seqcls_warning():
        model, tokenizer = models.load(work.run.base, make, num_labels=heads)
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise Invalid(f"Policy {work.run.base.name} is of a kind whose classifier has no head called score.")
    sets, ids, left_out = _read(work, tokenizer, getattr(model.config, "max_position_embeddings", math.inf))
    models.pad_apart(model, tokenizer, {tokens[-1] for held in ids.values() for tokens in held})
    # What it does not learn from measures it, which only random ones do honestly.
    kept = {split: [one for one in held if one.at_random or split == "train"] for split, held in sets.items()}
    disable_dropout_in_model(model)
    make_trainer = _kwise if options.loss == "kwise" else _pairwise
    trainer = make_trainer(work, models.with_lora(model, options, "SEQ_CLS"), tokenizer, kept, ids)
    trained = run_to_the_end(trainer, work)
    work.tell(SAVING, 0)
    shutil.rmtree(work.made, ignore_errors=True)
    scoring.save(trainer.model, tokenizer, work.made)
    # Before the same model is read again.
    del trainer, model
    gc.collect()
    counts = {f"{split}_comparisons": len(held) for split, held in sets.items()}
    return trained | {"heads": heads} | counts | left_out | _measured(work, kept)


def _read(work: Work, tokenizer, most: float) -> tuple[dict[str, list[Comparison]], Ids, dict[str, int]]:
    """The comparisons of each split with their tokens, and how many were left out of all; the model reads `most`."""
    most = min(most, work.options.max_tokens)
    sets, ids, left_out = {}, {}, {"too_long": 0, "all_tied": 0}
    for split in SPLITS:
        sets[split] = []
        for number, one in enumerate(ranked.comparisons(work.rows(split, "comparisons"))):
            work.tell(READING, number + 1)
            if not kwise.pairs_of(one.places()):
                left_out["all_tied"] += 1
                continue
            tokens = [array("i", conversations.answered(tokenizer, one.context, text)) for text in one.texts.values()]
            if max(map(len, tokens)) > most:
                left_out["too_long"] += 1
                continue
            sets[split].append(one)
            ids[one.pk] = tokens
    if not sets["train"]:
        raise Invalid(
            f"No comparison of the split train has an order and at most {most} tokens: of all splits "
            f"{left_out['all_tied']} have ties only, {left_out['too_long']} are longer; max_tokens may be raised."
        )
    return sets, ids, left_out


def _kwise(work: Work, model, tokenizer, sets, ids: Ids) -> transformers.Trainer:
    options = work.options

    def elements(split: str) -> list[kwise.Element]:
        return [
            kwise.Element(ids[one.pk], kwise.pairs_of(one.places()), _weights(options, one, split))
            for one in sets[split]
        ]

    return kwise.KwiseTrainer(
        model=model,
        train_dataset=elements("train"),
        eval_dataset=elements("validation") or None,
        data_collator=lambda batch: kwise.collated(batch, tokenizer.pad_token_id),
        args=transformers.TrainingArguments(
            output_dir=str(work.checkpoints), remove_unused_columns=False, **_arguments(work, sets)
        ),
        callbacks=[Watching(work)],
    )


def _weights(options, comparison: Comparison, split: str) -> Sequence[float]:
    """How much a comparison counts for each head: a bootstrap sample of its own makes each a little different.

    Poisson weights stand for drawing with replacement, and need no list (Oza and Russell, Online bagging and boosting,
    AISTATS 2001). They hang on seed and comparison alone, so that a run that goes on has the same.
    """
    if options.heads == 1 or split != "train":
        return [1.0] * options.heads
    return np.random.default_rng([options.seed, comparison.pk]).poisson(1.0, options.heads).astype(float).tolist()


def _pairwise(work: Work, model, tokenizer, sets, ids: Ids) -> trl.RewardTrainer:
    def pairs(split: str) -> datasets.Dataset:
        chosen, rejected = [], []
        for one in sets[split]:
            for better, worse, _ in kwise.pairs_of(one.places()):
                chosen.append(ids[one.pk][better].tolist())
                rejected.append(ids[one.pk][worse].tolist())
        return datasets.Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})

    return trl.RewardTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=pairs("train"),
        eval_dataset=pairs("validation") if sets["validation"] else None,
        args=trl.RewardConfig(output_dir=str(work.checkpoints), max_length=None, **_arguments(work, sets)),
        callbacks=[Watching(work)],
    )


def _arguments(work: Work, sets) -> dict:
    # What is left after the last epoch is measured in any case.
    looks = sets["validation"] and work.options.epochs > 1
    return models.arguments(work.options) | {"eval_strategy": "epoch" if looks else "no"}


def _measured(work: Work, sets: dict[str, list[Comparison]]) -> dict:
    """Put 0 in its place, and say how well the model foretells what trainers prefer."""
    scorer = scoring.Scorer(work.made)
    given: dict[int, dict[int, list[float]]] = {}
    for split, held in sets.items():
        places = [(one, candidate) for one in held for candidate in one.texts]
        values = _given(
            work, scorer, f"{MEASURING} {split}", [(one.context, one.texts[place]) for one, place in places]
        )
        for (one, candidate), by_head in zip(places, values, strict=True):
            given.setdefault(one.pk, {})[candidate] = by_head
    zero, shift = _zero(work, scorer, sets["train"], given)
    scoring.normalise(work.made, shift)
    rewards = {
        pk: {candidate: scoring.summed(_less(by_head, shift)) for candidate, by_head in held.items()}
        for pk, held in given.items()
    }
    # What it learnt from measures nothing but how much it learnt by heart.
    shown = sets | {"unseen": [one for split in UNSEEN for one in sets[split]]}
    figures = {split: measuring.figures(held, rewards) for split, held in shown.items()}
    unseen = {f"unseen_{name}": figures["unseen"][name] for name in ("accuracy", "accuracy_error", "log_loss")}
    return unseen | {"zero": zero, "splits": figures}


def _zero(work: Work, scorer, learnt_from: list[Comparison], given) -> tuple[dict, list[float]]:
    """What the mean of each head is over demonstrations, and of what it was taken.

    Where the run has no export of demonstrations, the best completions of the comparisons that it learnt from stand in.
    """
    by, texts = "demonstrations", ranked.demonstrations(work.rows("train", "demonstrations"))
    texts = random.Random(work.options.seed).sample(texts, min(len(texts), MOST_FOR_ZERO))  # noqa: S311
    values = _given(work, scorer, f"{MEASURING} demonstrations", texts)
    if not values:
        by = "best_completions"
        values = [
            given[one.pk][candidate]
            for one in learnt_from
            for order in one.orders
            for candidate, rank in order.ranks.items()
            if rank == 0
        ]
    shift = [sum(head) / len(values) for head in zip(*values, strict=True)]
    return {"by": by, "texts": len(values), "shift": sum(shift) / len(shift)}, shift


def _given(work: Work, scorer: scoring.Scorer, step: str, texts: list[scoring.Text]) -> list[list[float]]:
    """What each head gives; texts that are longer than the model reads are left out. Raises Invalid where it is no
    number."""
    values = scorer.by_head(texts, lambda done: work.tell(step, done, len(texts)))
    found = [by_head for by_head in values if by_head is not None]
    if not all(math.isfinite(value) for by_head in found for value in by_head):
        raise Invalid("Training diverged: the model gives rewards that are no numbers. A lower learning_rate may help.")
    return found


def _less(by_head: list[float], shift: list[float]) -> list[float]:
    return [value - less for value, less in zip(by_head, shift, strict=True)]
