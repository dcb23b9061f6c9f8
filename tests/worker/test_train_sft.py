"""`train sft`: demonstrations become a policy, with the loss on the assistant's turns only, whatever interrupts it."""

import io
import json
import re
import shutil

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotate import derive, jobs, recipes, training
from annotate.datasets import filters, snapshots
from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Policy, TrainingRun
from tests import factory, tiny

pytest.importorskip("trl")

from tests.worker.trainings import failed, first_step_of_going_on, measured, run_it, stop_at
from worker.training import conversations, models, running, sft, work

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

ANSWER = "this is what they said"
QUICK = {"epochs": 8.0, "learning_rate": 3e-3, "batch_size": 4, "at_once": 2, "max_tokens": 200, "save_steps": 2}


@pytest.fixture(autouse=True)
def home(tmp_path, settings):
    settings.BOTHSIDES_HOME = tmp_path
    return tmp_path


@pytest.fixture
def base(home) -> Policy:
    tiny.build(home / "models" / "tiny")
    return factory.policy(name="tiny", location="tiny")


@pytest.fixture
def export(base):
    """Written conversations whose answers are all alike: four to learn from and one to validate with."""
    project = factory.project(served_by=base, review_share=0, secret="00" * 32)
    wanted = {"train": 4, "validation": 1}
    texts = (f"Question {number}" for number in range(10_000))
    while any(wanted.values()):
        opening = next(texts)
        split = derive.split_of(project.secret, derive.family_of(opening))
        if wanted.get(split):
            wanted[split] -= 1
            turns = [factory.written_turn("user", opening), factory.written_turn("assistant", ANSWER)]
            factory.finished_piece(project, None, *turns)
    return snapshots.export(
        "demonstrations", project=project, format="messages", filters=filters.parse("demonstrations", {})
    )


def asked(export, base, **more) -> TrainingRun:
    return training.prepare(kind="sft", exports=[export], base=base, options=QUICK | more)


def test_it_learns_and_registers_a_policy_that_can_be_served(export, base, home):
    from worker.engines.transformers import TransformersEngine

    run = run_it(asked(export, base))
    assert run.state == "done"
    assert set(measured(run)) == set(range(1, 9))
    assert measured(run)[8] < measured(run)[1] / 2
    assert (run.metrics["train_examples"], run.metrics["validation_examples"]) == (4, 1)
    assert 0 < run.metrics["validation_loss"] < measured(run)[1]
    policy = run.policy
    assert (policy.parent, policy.active, policy.engine) == (base, False, "transformers")
    assert policy.location == policy.name == f"{run.project.slug}-sft-{run.pk}"
    assert list((home / "training").iterdir()) == []
    assert {path.stat().st_mode & 0o777 for path in (home / "models" / policy.location).iterdir()} == {0o644}
    engine = TransformersEngine(str(home / "models" / policy.location), device="cpu")
    engine.close()
    assert set(run.versions) >= {"bothsides", "torch", "trl"}


def test_the_same_seed_gives_the_same_model(export, base):
    one, other = run_it(asked(export, base)), run_it(asked(export, base))
    assert measured(one) == measured(other)


def test_the_loss_is_on_what_the_assistant_wrote(base, home):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "models" / "tiny")
    said = [("system", "be good"), ("user", "who"), ("assistant", "they"), ("user", "and"), ("assistant", "we")]
    [(ids, marks)] = conversations.encoded(tokenizer, [{"role": role, "content": text} for role, text in said])
    learnt = tokenizer.decode([token for token, mark in zip(ids, marks, strict=True) if mark])
    assert learnt == "they<|im_end|>\nwe<|im_end|>\n"
    whole = tokenizer.apply_chat_template([{"role": role, "content": text} for role, text in said], tokenize=False)
    assert tokenizer.decode(ids) == whole


def test_of_single_turns_the_loss_is_on_that_turn(export, base):
    turns = [("user", "Question 0"), ("assistant", "first"), ("user", "and"), ("assistant", "second")]
    factory.finished_piece(export.project, None, *(factory.written_turn(*turn) for turn in turns))
    single = snapshots.export(
        "demonstrations",
        project=export.project,
        format="prompt_completion",
        filters=filters.parse("demonstrations", {}),
    )
    run = asked(single, base)
    with jobs.running(run) as held:
        held_work = work.Work(run, held, lambda *_: None)
        tokenizer = models.load(base)[1]
        examples = [
            one for split in ("train", "validation", "test") for one in sft._examples(held_work, tokenizer, split)[0]
        ]
    learnt = [tokenizer.decode([one for one in example["labels"] if one >= 0]) for example in examples]
    assert sorted(learnt)[:2] == ["first<|im_end|>\n", "second<|im_end|>\n"]
    assert [tokenizer.decode(one["input_ids"]).count("first") for one in examples].count(1) == 2


def test_templates_that_forget_thoughts_give_an_example_a_turn(base, home):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "models" / "tiny")
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if loop.last and message['role'] == 'assistant' %}(thought){% endif %}"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    said = [("user", "who"), ("assistant", "they"), ("user", "and"), ("assistant", "we")]
    found = list(conversations.encoded(tokenizer, [{"role": role, "content": text} for role, text in said]))
    learnt = [tokenizer.decode([one for one, mark in zip(*each, strict=True) if mark]) for each in found]
    assert learnt == ["(thought)they<|im_end|>\n", "(thought)we<|im_end|>\n"]


def test_the_validation_loss_is_the_mean_over_examples_however_many_go_through_at_once(export, base):
    openings = (f"Query {number}" for number in range(1000))
    split = {"validation": []}
    while len(split["validation"]) < 2:
        opening = next(openings)
        split.setdefault(derive.split_of(export.project.secret, derive.family_of(opening)), []).append(opening)
    for opening in split["validation"]:
        turns = [factory.written_turn("user", opening), factory.written_turn("assistant", "quite another answer")]
        factory.finished_piece(export.project, None, *turns)
    more = snapshots.export(
        "demonstrations", project=export.project, format="messages", filters=filters.parse("demonstrations", {})
    )
    once = {"epochs": 1.0, "learning_rate": 1e-12}
    one, other = (run_it(asked(more, base, at_once=at_once, **once)) for at_once in (1, 2))
    assert one.metrics["validation_examples"] == 3
    assert one.metrics["validation_loss"] == pytest.approx(other.metrics["validation_loss"])


def test_lora_trains_adapters_and_leaves_a_whole_model(export, base, home):
    pytest.importorskip("peft")
    run = run_it(asked(export, base, lora_rank=4, learning_rate=3e-2))
    assert measured(run)[8] < measured(run)[1]
    names = {path.name for path in (home / "models" / run.policy.location).iterdir()}
    assert "model.safetensors" in names
    assert not any("adapter" in name for name in names)


def test_one_that_is_stopped_goes_on_from_its_checkpoint(export, base):
    whole = run_it(asked(export, base))
    run = asked(export, base)
    stop_at(run, 5)
    # From the checkpoint after the fourth step.
    assert first_step_of_going_on(run) == 5
    assert measured(run) == pytest.approx(measured(whole), rel=1e-3)


def test_one_that_was_cut_short_behind_its_last_checkpoint_has_the_loss_of_all_steps(export, base, monkeypatch):
    run = asked(export, base)
    with monkeypatch.context() as patched:
        patched.setattr(models, "save", lambda *_: (_ for _ in ()).throw(jobs.Stopped("It was stopped.")))
        with pytest.raises(jobs.Stopped):
            run_it(run)
    run_it(run)
    assert run.metrics["train_loss"] == pytest.approx(sum(measured(run).values()) / 8)


def test_a_checkpoint_that_was_cut_short_is_not_gone_on_from(export, base):
    run = asked(export, base)
    folder = work.folder_of(run) / "checkpoints" / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{")
    assert run_it(run).state == "done"


def test_a_model_that_was_put_in_place_is_registered_without_training(export, base, monkeypatch):
    run = asked(export, base)
    with monkeypatch.context() as patched:
        patched.setattr(training, "register", lambda **_: (_ for _ in ()).throw(jobs.Lost("gone")))
        with pytest.raises(jobs.Lost):
            run_it(run)
    TrainingRun.objects.filter(pk=run.pk).update(state="waiting", token=None, lease_until=None)
    run.refresh_from_db()
    told = []
    assert run_it(run, told).state == "done"
    assert [step for step, _ in told] == ["Registering"]
    assert Policy.objects.filter(run=run).count() == 1
    with pytest.raises(Conflict, match="cannot be begun"):
        run_it(run)


def test_what_was_made_is_served_as_what_it_began_with(export, base, monkeypatch):
    monkeypatch.setattr(running, "TRAINERS", {"sft": "tests.worker.quick_trainer"})
    Policy.objects.update(quantisation="int8", thinking="off")
    base.refresh_from_db()
    made = run_it(asked(export, base)).policy
    assert (made.quantisation, made.thinking) == ("int8", "off")


def test_a_model_gets_to_another_disk_whole(export, base, home, monkeypatch):
    monkeypatch.setattr(running, "TRAINERS", {"sft": "tests.worker.quick_trainer"})
    monkeypatch.setattr(running, "_are_on_one_disk", lambda *_: False)
    # Of an attempt that was cut short.
    left = home / "models" / f".{training.name_of_result(run := asked(export, base))}"
    left.mkdir()
    (left / "half").touch()
    run_it(run)
    assert {path.name for path in (home / "models" / run.location).iterdir()} == {"model.txt", running.MADE_BY}
    assert {path.name for path in (home / "models").iterdir()} == {"tiny", run.location}


def test_what_another_run_of_the_same_number_left_is_not_taken_for_its_own(export, base, home):
    run = asked(export, base)
    left = work.folder_of(run) / "checkpoints" / "checkpoint-3"
    left.mkdir(parents=True)
    (left / work.WHOLE).touch()
    place = running.place_of(run)
    place.mkdir()
    (place / running.MADE_BY).write_text(json.dumps(running._named(run) | {"metrics": {"train_loss": 9.0}}))
    # As after a database was restored that did not have the run yet.
    TrainingRun.objects.filter(pk=run.pk).update(created_at=timezone.now())
    run.refresh_from_db()
    with pytest.raises(Invalid, match="which is not of this run"):
        run_it(run)
    shutil.rmtree(place)
    assert set(measured(run_it(run))) == set(range(1, 9))


def test_a_loss_that_is_no_number_ends_it(export, base):
    with pytest.raises(Invalid, match="diverged"):
        run_it(run := asked(export, base, learning_rate=1e30))
    assert re.search(r"loss.* no numbers? at step \d+\. A lower learning_rate", failed(run))


def test_a_base_without_a_template_is_refused(export, base, home):
    (home / "models" / "tiny" / "chat_template.jinja").unlink()
    with pytest.raises(Invalid, match="has no chat template"):
        run_it(asked(export, base))


def test_a_base_that_was_trained_here_is_not_looked_for_elsewhere(export, base, home, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(running, "TRAINERS", {"sft": "tests.worker.quick_trainer"})
        made = run_it(asked(export, base)).policy
    shutil.rmtree(home / "models" / made.location)
    with pytest.raises(Invalid, match=r"it was trained here, and its folder .* is gone"):
        run_it(asked(export, made))


def test_too_long_examples_are_counted_and_none_left_is_refused(export, base):
    with pytest.raises(Invalid, match="raise max_tokens"):
        run_it(asked(export, base, max_tokens=8))


def test_a_full_disk_is_said(export, base, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/models/x")

    monkeypatch.setattr(running, "put_in_place", full)
    run = asked(export, base)
    with pytest.raises(Invalid, match="No space left on device"):
        run_it(run)
    run.refresh_from_db()
    assert run.state == "failed"
    assert "No space left" in run.reason


def test_a_changed_export_is_refused(export, base, home):
    from django.core.files.base import ContentFile
    from django.core.files.storage import default_storage

    name = f"{export.location}/train.jsonl"
    default_storage.delete(name)
    default_storage.save(name, ContentFile(b"{}\n"))
    with pytest.raises(Invalid, match="its hash differs"):
        run_it(asked(export, base))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"beta": 1}, "no option beta"),
        ({"batch_size": 3, "at_once": 2}, "no multiple"),
        ({"seed": "x"}, "whole number"),
        ({"learning_rate": float("nan")}, "is a number"),
        ({"learning_rate": float("inf")}, "is a number"),
    ],
)
def test_wrong_options_are_refused(options, told):
    with pytest.raises(Invalid, match=told):
        recipes.parse("sft", options)


def test_what_cannot_be_learnt_from_is_refused(export, base):
    server = factory.policy(
        engine="openai_compatible", location="http://localhost:1/v1", served_as="x", concurrency=1, context_tokens=9
    )
    with pytest.raises(Invalid, match="is on a server"):
        asked(export, server)
    with pytest.raises(Invalid, match="learns from comparisons as ranked"):
        training.prepare(kind="reward", exports=[export], base=base, options={})
    export.manifest["counts"]["by_split"].pop("train")
    with pytest.raises(Invalid, match="no line in the split train"):
        asked(export, base)


@pytest.mark.parametrize("name", ["../x", ".", "/x", "a b", "ä", "x" * 101])
def test_a_name_that_is_no_folder_among_the_models_is_refused(export, base, name):
    with pytest.raises(Invalid, match="is no name for a model"):
        training.prepare(kind="sft", exports=[export], base=base, options={}, name=name)


def test_a_name_that_was_taken_meanwhile_is_told_before_it_trains(export, base, home):
    run = training.prepare(kind="sft", exports=[export], base=base, options=QUICK, name="taken")
    policy = factory.policy(name="taken")
    told = []
    with pytest.raises(Invalid, match="There is a policy taken already"):
        run_it(run, told)
    policy.delete()
    (home / "models" / "taken").mkdir()
    with pytest.raises(Invalid, match=r"There is a folder .*taken already"):
        run_it(run, told)
    assert told == []


def test_the_command_trains_and_says_what_came_of_it(export, base):
    out = io.StringIO()
    flags = [f"--{name.replace('_', '-')}={value:g}" for name, value in QUICK.items()]
    call_command("train", "sft", "--export", str(export.pk), "--base", "tiny", "--foreground", *flags, stdout=out)
    run = TrainingRun.objects.get()
    assert f"policy {run.policy.name}, not active yet" in out.getvalue()
    assert run.digest in out.getvalue()


def test_the_command_leaves_it_to_a_worker(export, base, monkeypatch):
    from annotate import bell

    heard = []
    monkeypatch.setattr(bell, "ring_for_job", lambda kind, pk: heard.append((kind, pk)))
    call_command("train", "sft", "--export", export.digest[:8], "--base", "tiny", stdout=io.StringIO())
    run = TrainingRun.objects.get()
    assert (run.state, run.background, heard) == ("waiting", True, [("training", run.pk)])


def test_the_command_goes_on_with_what_failed_in_a_worker(export, base, monkeypatch):
    monkeypatch.setattr(running, "TRAINERS", {"sft": "tests.worker.quick_trainer"})
    run = training.prepare(kind="sft", exports=[export], base=base, options={}, background=True)
    TrainingRun.objects.update(state="failed", ended_at=timezone.now())
    # As a bell that comes late has a worker do.
    with pytest.raises(CommandError, match="is failed and cannot be begun"):
        call_command("train", "--go-on", str(run.pk))
    call_command("train", "--go-on", str(run.pk), "--foreground", stdout=io.StringIO())
    run.refresh_from_db()
    assert run.state == "done"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["sft"], "Name what to train"),
        (["sft", "--export", "99999", "--base", "tiny"], "no export 99999"),
        (["--go-on", "99999"], "no training run 99999"),
        (["--go-on", "99999", "--name", "x"], "leave all else out"),
        (["--go-on", "99999", "--epochs", "3"], "leave all else out"),
    ],
)
def test_the_command_refuses(given, told):
    with pytest.raises(CommandError, match=told):
        call_command("train", *given)


def test_an_unknown_base_is_refused():
    with pytest.raises(NotFound, match="no policy nobody"):
        training.policy_named("nobody")
