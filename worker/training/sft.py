"""Supervised fine-tuning on demonstrations by TRL's SFTTrainer, with the loss on the assistant's turns only."""

import datasets
import trl

from annotate.errors import Invalid
from worker.training import conversations, models
from worker.training.watching import Watching, run_to_the_end
from worker.training.work import Work

READING, SAVING = "Reading examples", "Writing the model"


def train(work: Work) -> dict:
    """Fine-tune the base on the demonstrations of the split train; leaves the model in `work.made`.

    Returns the losses at the end, in nats a token of the assistant, the one of the split validation as the mean over
    its examples, and what was read or left out.
    """
    options = work.options
    model, tokenizer = models.load(work.run.base)
    sets, left_out = {}, {}
    for split in ("train", "validation"):
        sets[split], left_out[split] = _examples(work, tokenizer, split)
    if not len(sets["train"]):
        raise Invalid(f"No example of the split train has at most {options.max_tokens} tokens: raise max_tokens.")
    validation = sets["validation"] if len(sets["validation"]) else None
    trainer = trl.SFTTrainer(
        model=models.with_lora(model, options, "CAUSAL_LM"),
        processing_class=tokenizer,
        train_dataset=sets["train"],
        eval_dataset=validation,
        args=trl.SFTConfig(
            output_dir=str(work.checkpoints),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            eval_strategy="epoch" if validation else "no",
            **models.arguments(options),
        ),
        callbacks=[Watching(work)],
    )
    metrics = run_to_the_end(trainer, work)
    if validation:
        metrics["validation_loss"] = trainer.evaluate()["eval_loss"]
    work.tell(SAVING, 0)
    models.save(trainer.model, tokenizer, work.made)
    counts = {f"{split}_examples": len(examples) for split, examples in sets.items()}
    return metrics | counts | {"too_long": sum(left_out.values())}


def _examples(work: Work, tokenizer, split: str) -> tuple[datasets.Dataset, int]:
    """The conversations of a split as ids and labels, and how many were too long."""
    ids, labels, too_long = [], [], 0
    for number, row in enumerate(work.rows(split)):
        # Earlier turns of the assistant were left out, or have lines of their own.
        before = [] if "messages" in row else row["prompt"]
        messages = row["messages"] if "messages" in row else [*before, *row["completion"]]
        said = [{"role": one["role"], "content": one["content"]} for one in messages]
        for tokens, marks in conversations.encoded(tokenizer, said, learnt_from=len(before)):
            if len(tokens) > work.options.max_tokens:
                too_long += 1
                continue
            ids.append(tokens)
            labels.append([token if mark else -100 for token, mark in zip(tokens, marks, strict=True)])
        work.tell(READING, number + 1)
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels}), too_long
