"""Direct preference optimisation on comparisons by TRL's DPOTrainer, against the base as it was."""

from collections.abc import Iterator
from itertools import combinations

import datasets
import trl

from annotate.errors import Invalid
from worker.training import conversations, models, ranked
from worker.training.watching import Watching, run_to_the_end
from worker.training.work import Work

READING, SAVING = "Reading pairs", "Writing the model"


class _Trainer(trl.DPOTrainer):
    """Takes pairs that are tokens already: the library's own way asks more of a chat template than ours, and cuts long
    texts where we leave them out."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset


def train(work: Work) -> dict:
    """Train the base on the strict pairs of the split train; leaves it in `work.made`.

    Returns what is true of the validation split at the end (accuracy and margin of the implicit rewards, loss in nats a
    pair), and what was read or left out.
    """
    options = work.options
    model, tokenizer = models.load(work.run.base)
    sets, left_out = {}, {}
    for split in ("train", "validation"):
        sets[split], left_out[split] = _examples(work, tokenizer, split)
    if not len(sets["train"]):
        raise Invalid(f"No strict pair of the split train has at most {options.max_tokens} tokens: raise max_tokens.")
    validation = sets["validation"] if len(sets["validation"]) else None
    trainer = _Trainer(
        model=models.with_lora(model, options, "CAUSAL_LM"),
        # Without its adapters a model with LoRA is its own reference.
        ref_model=None if options.lora_rank else models.load(work.run.base)[0],
        processing_class=tokenizer,
        train_dataset=sets["train"],
        eval_dataset=validation,
        args=trl.DPOConfig(
            output_dir=str(work.checkpoints),
            beta=options.beta,
            max_length=None,
            eval_strategy="epoch" if validation else "no",
            **models.arguments(options),
        ),
        callbacks=[Watching(work)],
    )
    metrics = run_to_the_end(trainer, work)
    if validation:
        told = trainer.evaluate()
        metrics |= {
            "validation_loss": told["eval_loss"],
            "validation_accuracy": told["eval_rewards/accuracies"],
            "validation_margin": told["eval_rewards/margins"],
        }
    work.tell(SAVING, 0)
    models.save(trainer.model, tokenizer, work.made)
    counts = {f"{split}_pairs": len(pairs) for split, pairs in sets.items()}
    return metrics | counts | {"too_long": sum(left_out.values())}


def _examples(work: Work, tokenizer, split: str) -> tuple[datasets.Dataset, int]:
    """The pairs of a split as ids, and how many were too long. Of what it does not learn from only those of comparisons
    that were drawn at random, which alone measure honestly."""
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    too_long = 0
    for number, row in enumerate(work.rows(split)):
        work.tell(READING, number + 1)
        if split != "train" and not ranked.at_random(row):
            continue
        for before, better, worse in pairs(row):
            prompt = conversations.opened(tokenizer, before)
            sides = [conversations.answered(tokenizer, before, text) for text in (better, worse)]
            if max(map(len, sides)) > work.options.max_tokens:
                too_long += 1
                continue
            for column, ids in zip(columns, (prompt, *(side[len(prompt) :] for side in sides)), strict=True):
                columns[column].append(ids)
    return datasets.Dataset.from_dict(columns), too_long


def pairs(row: dict) -> Iterator[tuple[list[dict], str, str]]:
    """The strict pairs of a line of an export: the messages before, the better answer, the worse one. Ties are none."""
    if "completions" in row:
        before = _said(row["context"])
        places = sorted(row["completions"], key=lambda place: (place["rank"], place["candidate_id"]))
        for better, worse in combinations(places, 2):
            texts = better["completion"][0]["content"], worse["completion"][0]["content"]
            if better["rank"] < worse["rank"] and texts[0] != texts[1]:
                yield before, *texts
        return
    chosen, rejected = row["chosen"], row["rejected"]
    before = row["prompt"] if "prompt" in row else chosen[:-1]
    yield _said(before), chosen[-1]["content"], rejected[-1]["content"]


def _said(messages: list[dict]) -> list[dict]:
    return [{"role": one["role"], "content": one["content"]} for one in messages]
