"""`train dpo`: comparisons become a policy without a reward model, whatever interrupts it."""

import io
import math
import shutil

import pytest
from django.core.management import call_command
from django.db.models import F

from annotate import training
from annotate.errors import Invalid
from annotate.models import Export, Policy, Project, TrainingRun
from tests import factory, tiny
from tests.worker import preferences

pytest.importorskip("trl")

from tests.worker.trainings import failed, first_step_of_going_on, measured, run_it, stop_at
from worker.training import conversations, dpo, models, ranked, work

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

QUICK = {"epochs": 2.0, "learning_rate": 1e-3, "batch_size": 24, "at_once": 12, "max_tokens": 200, "save_steps": 2}
PAIRS = {"train": 12 * 11, "validation": 4 * 11}
"""Of each comparison six pairs and five."""


@pytest.fixture(scope="module")
def rows(module_rows, tmp_path_factory):
    """A project with comparisons and a model to begin with, the same ones for all tests."""
    folder = tiny.build(tmp_path_factory.mktemp("models") / "tiny")
    project = factory.project(
        served_by=factory.policy(name="tiny", location="tiny"), overlap=2, review_share=0, secret="00" * 32
    )
    preferences.compare(project)
    return folder, project.pk, {name: preferences.exported(project, name).pk for name in dpo_formats()}


def dpo_formats() -> tuple[str, ...]:
    return training.LEARNS_FROM["dpo"]["comparisons"]


@pytest.fixture(autouse=True)
def home(tmp_path, settings, rows):
    settings.BOTHSIDES_HOME = tmp_path
    shutil.copytree(rows[0], tmp_path / "models" / "tiny")
    return tmp_path


@pytest.fixture
def export(rows) -> Export:
    return Export.objects.get(pk=rows[2]["ranked"])


@pytest.fixture
def base() -> Policy:
    return Policy.objects.get(name="tiny")


def asked(base, export, **more) -> TrainingRun:
    return training.prepare(kind="dpo", exports=[export], base=base, options=QUICK | more)


def test_it_learns_what_trainers_prefer_and_registers_a_policy(export, base):
    run = run_it(asked(base, export))
    told = run.metrics
    assert (told["train_pairs"], told["validation_pairs"], told["too_long"]) == (*PAIRS.values(), 0)
    assert told["steps"] == 2 * math.ceil(PAIRS["train"] / 24)
    assert measured(run)[1] == pytest.approx(math.log(2), abs=1e-3)
    assert measured(run)[told["steps"]] < math.log(2) / 2
    # Of openings that it was not trained on.
    assert told["validation_accuracy"] > 0.9
    assert told["validation_margin"] > 1
    assert told["validation_loss"] < math.log(2) / 2
    assert set(measured(run, "validation_accuracy")) == {6, 12}
    assert set(measured(run, "margin")) == set(range(1, 13))
    # All that is measured on validation has the name of the same on train, and how fast that went is not kept.
    names = {name for point in run.points.all() for name in point.values}
    assert {name.removeprefix("validation_") for name in names if name.startswith("validation_")} <= names
    assert not [name for name in names if "eval" in name or "per_second" in name]
    assert (run.policy.parent, run.policy.active, run.policy.run) == (base, False, run)


def test_what_was_chosen_as_uncertain_is_learnt_from_but_measures_nothing(rows, base):
    project = Project.objects.get(pk=rows[1])
    project.comparisons.update(pool=F("id"), selection="uncertain")
    told = run_it(asked(base, preferences.exported(project), epochs=0.1)).metrics
    assert (told["train_pairs"], told["validation_pairs"], "validation_loss" in told) == (PAIRS["train"], 0, False)
    for name in rows[2]:
        one = work.Work(asked(base, preferences.exported(project, name)), None, None)
        assert not any(ranked.at_random(row) for row in one.rows("validation"))


def test_every_format_gives_the_same_pairs(rows, base):
    found = {}
    for name, pk in rows[2].items():
        run = asked(base, Export.objects.get(pk=pk))
        one = work.Work(run, None, None)
        found[name] = sorted(str(pair) for row in one.rows("train") for pair in dpo.pairs(row))
    assert len(found["ranked"]) == PAIRS["train"]
    assert found["ranked"] == found["preference"] == found["preference_implicit"]


def test_a_tie_is_no_pair_and_neither_are_equal_texts():
    def place(number: int, rank: int, text: str) -> dict:
        return {"candidate_id": number, "rank": rank, "completion": [{"role": "assistant", "content": text}]}

    row = {"context": [], "completions": [place(1, 1, "a"), place(2, 0, "b"), place(3, 1, "c"), place(4, 2, "b")]}
    assert [pair[1:] for pair in dpo.pairs(row)] == [("b", "a"), ("b", "c"), ("a", "b"), ("c", "b")]


def test_what_is_compared_is_the_answer_up_to_its_end(export, base, home):
    _, tokenizer = models.load(base)
    before = [{"role": "user", "content": "who"}]
    opened, whole = conversations.opened(tokenizer, before), conversations.answered(tokenizer, before, "they")
    assert whole[: len(opened)] == opened
    assert tokenizer.decode(whole[len(opened) :]) == "they<|im_end|>"


def test_lora_trains_adapters_and_leaves_a_whole_model(export, base, home):
    pytest.importorskip("peft")
    run = run_it(asked(base, export, lora_rank=4, learning_rate=1e-2))
    assert measured(run)[1] == pytest.approx(math.log(2), abs=1e-3)
    assert run.metrics["validation_accuracy"] > 0.9
    names = {path.name for path in (home / "models" / run.location).iterdir()}
    assert "model.safetensors" in names
    assert not any("adapter" in name for name in names)


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}], ids=["whole", "lora"])
def test_one_that_is_stopped_goes_on_from_its_checkpoint(export, base, options):
    options = options | {"epochs": 1}
    whole = run_it(asked(base, export, **options))
    run = asked(base, export, **options)
    stop_at(run, 3)
    assert first_step_of_going_on(run) == 3
    assert measured(run) == pytest.approx(measured(whole), rel=1e-3)
    # The reference is the base, not what the checkpoint holds.
    assert run.metrics["validation_margin"] == pytest.approx(whole.metrics["validation_margin"], rel=1e-2)


def test_a_loss_that_is_no_number_ends_it(export, base):
    with pytest.raises(Invalid, match="diverged"):
        run_it(run := asked(base, export, learning_rate=1e30))
    assert "A lower learning_rate" in failed(run)


def test_nothing_short_enough_is_refused(export, base):
    with pytest.raises(Invalid, match="raise max_tokens"):
        run_it(run := asked(base, export, max_tokens=8))
    failed(run)


def test_a_base_without_a_template_is_refused(export, base, home):
    (home / "models" / "tiny" / "chat_template.jinja").unlink()
    with pytest.raises(Invalid, match="has no chat template"):
        run_it(run := asked(base, export))
    failed(run)


def test_an_empty_split_is_refused(rows, base):
    only = preferences.exported(Project.objects.get(pk=rows[1]), split="test")
    with pytest.raises(Invalid, match="no line in the split train"):
        asked(base, only)


def test_a_full_disk_is_said(export, base, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/models/x")

    monkeypatch.setattr(models, "save", full)
    with pytest.raises(Invalid, match="No space left on device"):
        run_it(run := asked(base, export, epochs=1))
    assert "No space left" in failed(run)


def test_the_command_trains_and_says_what_came_of_it(export, base):
    out = io.StringIO()
    flags = ["--epochs=1", "--learning-rate=0.001", "--beta=0.2"]
    call_command("train", "dpo", "--export", str(export.pk), "--base", "tiny", "--foreground", *flags, stdout=out)
    run = TrainingRun.objects.get()
    assert run.options["beta"] == 0.2
    assert "validation_accuracy" in out.getvalue()
    assert f"policy {run.policy.name}, not active yet" in out.getvalue()
