"""Exported comparisons are what Hugging Face's datasets load and what TRL's trainers of preferences learn from, in the
right direction."""

import pytest

from annotate import derive
from annotate.datasets import comparison_formats, filters, snapshots
from annotate.datasets.shards import Files
from tests import factory, tiny

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def project():
    """Comparisons in which the answers with `good` are better than those with `bad`; every split has some."""
    made = factory.project(overlap=1, secret="00" * 32)
    wanted = {"train": 12, "validation": 2, "test": 1}
    texts = (f"Question {number}" for number in range(10_000))
    while any(wanted.values()):
        opening = next(texts)
        split = derive.split_of(made.secret, derive.family_of(opening))
        if not wanted[split]:
            continue
        wanted[split] -= 1
        answers = [f"this is good {opening}", f"that is bad {opening}", f"bad {opening}"]
        marks = {"flags": {}} if split == "train" else {"all_bad": True}
        comparison = factory.comparison_about(made, opening, None, *answers)
        first = min(comparison.candidates.values_list("id", flat=True))
        if split == "test":
            marks |= {"ratings": {first: 2}, "flags": {first: ["moral"]}}
        factory.ranking(comparison, "B A C=D", **marks)
    return made


def exported(project, format: str, folder, *, files: Files | None = None, **given) -> "datasets.DatasetDict":
    out = folder / format
    wanted = filters.parse("comparisons", given)
    snapshots.export("comparisons", project=project, format=format, filters=wanted, files=files, out=out)
    return datasets.load_dataset(str(out), cache_dir=str(folder / "cache"))


ROWS = {"ranked": 1, "nemo_rl": 1, "prompt_only": 1, "unpaired": 4}
"""Rows that a format makes of a ranking here; of all others its five pairs."""


KINDS = [(format, "jsonl") for format in comparison_formats.FORMATS]
KINDS += [("ranked", "jsonl.zst"), ("ranked", "parquet"), ("hh", "parquet")]


@pytest.mark.parametrize(("format", "kind"), KINDS)
def test_load_dataset_finds_the_splits(project, tmp_path, format, kind):
    loaded = exported(project, format, tmp_path, files=Files(kind=kind, shard_rows=4))
    rankings = {"train": 12, "validation": 2, "test": 1}
    # Where all are bad no answer is a good one: train has the best and the worst, the others all four.
    rows = {split: count * ROWS.get(format, 5) for split, count in rankings.items()}
    if format == "unpaired":
        rows["train"] = 12 * 3
    assert loaded.num_rows == rows
    if "split" in loaded["train"].column_names:
        assert {split for split, rows in loaded.items() for split in rows["split"]} == set(rankings)


def test_types_are_the_same_in_all_splits(project, tmp_path):
    loaded = exported(project, "ranked", tmp_path)
    assert loaded["train"].features == loaded["test"].features
    assert loaded["test"][0]["completions"][0]["rating"] == 2
    assert loaded["test"][0]["completions"][0]["flags"] == ["moral"]
    assert loaded["train"][0]["completions"][0]["rating"] is None


def good_over_bad(pair: dict) -> bool:
    """The pairs from which something can be learnt; the place of the first reply, a number, says nothing."""
    return "good" in pair["chosen"][-1]["content"] and "bad" in pair["rejected"][-1]["content"]


@pytest.mark.parametrize("format", ["preference", "preference_implicit"])
def test_reward_trainer_learns_what_trainers_prefer(project, tmp_path, format):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    loaded = exported(project, format, tmp_path).filter(good_over_bad)
    assert loaded.num_rows == {"train": 24, "validation": 4, "test": 2}
    folder = str(tiny.build(tmp_path / "model"))
    trainer = trl.RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1),
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=loaded["train"],
        eval_dataset=loaded["validation"],
        args=trl.RewardConfig(
            output_dir=str(tmp_path / "reward"),
            max_steps=20,
            per_device_train_batch_size=8,
            learning_rate=3e-3,
            logging_steps=1,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
        ),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    # Of openings that it was not trained on.
    assert trainer.evaluate()["eval_accuracy"] == 1.0


def test_the_margin_reaches_the_reward_model(project, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    loaded = exported(project, "preference_implicit", tmp_path, margin="rank")
    folder = str(tiny.build(tmp_path / "model"))
    trainer = trl.RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1),
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=loaded["train"],
        args=trl.RewardConfig(output_dir=str(tmp_path / "reward"), report_to="none", use_cpu=True, disable_tqdm=True),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch["margin"].tolist()) <= {1.0, 2.0}
    assert len(batch["margin"]) == len(batch["input_ids"]) // 2


@pytest.mark.parametrize("format", ["preference", "preference_implicit", "hh"])
def test_dpo_trainer_takes_it(project, tmp_path, format):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = exported(project, format, tmp_path, pairs="best_worst")
    folder = str(tiny.build(tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        processing_class=tokenizer,
        train_dataset=loaded["train"],
        args=trl.DPOConfig(output_dir=str(tmp_path / "dpo"), report_to="none", use_cpu=True, disable_tqdm=True),
    )
    rows = trainer.train_dataset
    assert {"prompt_ids", "chosen_ids", "rejected_ids"} <= set(rows.column_names)
    assert len(rows) == 12 * 2
    assert all(row["chosen_ids"] != row["rejected_ids"] for row in rows)


def test_kto_trainer_takes_it(project, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = exported(project, "unpaired", tmp_path)
    folder = str(tiny.build(tmp_path / "model"))
    trainer = trl.KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=loaded["train"],
        args=trl.KTOConfig(
            output_dir=str(tmp_path / "kto"),
            per_device_train_batch_size=2,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
    )
    rows = trainer.train_dataset
    assert {"prompt_ids", "completion_ids", "label"} <= set(rows.column_names)
    assert sorted(rows["label"]) == [False] * 24 + [True] * 12
