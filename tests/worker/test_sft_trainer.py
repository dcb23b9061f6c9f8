"""Exported demonstrations are what Hugging Face's datasets load and what TRL's SFTTrainer learns from, as they are."""

import json
import os
from pathlib import Path

import pytest

from annotate import derive
from annotate.datasets import demonstration_formats, filters, snapshots
from annotate.datasets.check import check
from tests import factory, tiny

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FORMATS = list(demonstration_formats.FORMATS)

DATA = os.environ.get("BOTHSIDES_TEST_DATA")


@pytest.fixture
def project():
    """Written conversations of two answers, the first of which is edited; every split has some, only train hints."""
    made = factory.project(review_share=0, secret="00" * 32)
    wanted = {"train": 4, "validation": 1}
    texts = (f"Question {number}" for number in range(10_000))
    while any(wanted.values()):
        opening = next(texts)
        split = derive.split_of(made.secret, derive.family_of(opening))
        if not wanted.get(split):
            continue
        wanted[split] -= 1
        slot, came_from = factory.held_piece(made), {}
        if split == "train":
            asked = factory.suggested(slot, "this is what", "that is not", hint="shorter")
            came_from = {"from": [asked.pk, 0], "shown": [[asked.pk, 0], [asked.pk, 1]]}
        turns = [
            factory.written_turn("user", opening),
            factory.written_turn("assistant", f"this is what people said about {opening}", **came_from),
            factory.written_turn("user", "and more"),
            factory.written_turn("assistant", "no more than that"),
        ]
        factory.finished_piece(made, None, *turns, slot=slot)
    return made


def exported(project, format: str, folder, **given) -> "datasets.DatasetDict":
    out = folder / format
    wanted = filters.parse("demonstrations", given)
    snapshots.export("demonstrations", project=project, format=format, filters=wanted, out=out)
    return datasets.load_dataset(str(out), cache_dir=str(folder / "cache"))


def test_types_are_the_same_in_all_splits(project, tmp_path):
    loaded = exported(project, "messages", tmp_path)
    assert loaded.num_rows == {"train": 4, "validation": 1}
    assert loaded["train"].features == loaded["validation"].features
    edited, written = loaded["train"][0]["turns"][2], loaded["validation"][0]["turns"][2]
    assert (edited["hint"], edited["sampling"], len(edited["passed"])) == ("shorter", project.sampling(), 1)
    assert (written["hint"], written["sampling"], written["passed"]) == (None, None, [])


def trained(loaded, folder) -> "trl.SFTTrainer":
    """A trainer of the tiny model on what was loaded, which has made no step yet."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = str(tiny.build(folder / "model"))
    return trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=loaded["train"],
        eval_dataset=loaded["validation"],
        args=trl.SFTConfig(
            output_dir=str(folder / "sft"),
            max_steps=2,
            per_device_train_batch_size=4,
            learning_rate=3e-3,
            logging_steps=1,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
        ),
    )


@pytest.mark.parametrize("format", FORMATS)
def test_sft_trainer_learns_from_it(project, tmp_path, format):
    trainer = trained(exported(project, format, tmp_path), tmp_path)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.evaluate()["eval_loss"] < before
    batch = trainer.data_collator([trainer.train_dataset[0]])
    learnt = batch["labels"] != -100
    # Of prompt and completion only the completion is learnt, of messages all.
    assert learnt.sum() < learnt.numel() if format == "prompt_completion" else learnt.all()


INSTRUCTIONS = [
    {"id": f"task_{number}", "instruction": f"Say {number}", "instances": [{"input": "", "output": f"It is {number}."}]}
    for number in range(60)
]


@pytest.fixture
def instructions(tmp_path) -> Path:
    """A file of instructions: the real one where it is, else one of the same shape."""
    if DATA:
        return Path(DATA) / "instructions_seed.jsonl"
    file = tmp_path / "instructions.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in INSTRUCTIONS))
    return file


@pytest.mark.parametrize("format", FORMATS)
def test_sft_trainer_learns_from_a_mix_with_instructions(project, instructions, tmp_path, format):
    given = {"mix": [f"{instructions}:40"], "mix_seed": 3}
    loaded = exported(project, format, tmp_path, **given)
    assert check(tmp_path / format).problems == []
    found = json.loads((tmp_path / format / "manifest.json").read_text())
    assert found["counts"]["conversations"] == 45
    assert found["parents"][0]["name"] == instructions.name
    if format != "openai_sft":
        sets = [name for split in loaded.values() for name in split["source"]]
        assert sets.count(instructions.name) == 40
        assert set(sets) == {"demonstrations", instructions.name}
    trainer = trained(loaded, tmp_path)
    trainer.train()
    assert trainer.state.global_step == 2
