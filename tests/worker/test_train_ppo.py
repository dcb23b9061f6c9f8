"""`train ppo`: a policy learns to write what a reward model likes, near to where it began, whatever interrupts it."""

import io
import math
import shutil

import pytest
from django.core.management import CommandError, call_command

from annotate import derive, recipes, training
from annotate.datasets import filters, snapshots
from annotate.errors import Invalid
from annotate.models import Export, Policy, Project, Prompt, TrainingRun
from tests import factory, tiny
from tests.worker import liking, preferences

pytest.importorskip("trl")
import torch
import transformers

from tests.worker.trainings import failed, first_step_of_going_on, run_it, stop_at
from worker.training import players, ppo, rollouts, scoring, work

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

UPDATES = 10
QUICK = {
    "episodes": 16 * UPDATES,
    "batch_size": 16,
    "at_once": 16,
    "max_new_tokens": 12,
    "max_tokens": 200,
    "learning_rate": 1e-3,
    "save_steps": 3,
    "ppo_epochs": 2,
    "missing_end": 0.0,
    "temperature": 1.0,
}


@pytest.fixture(scope="module")
def rows(module_rows, tmp_path_factory):
    """A project with openings in every split, a policy and a reward model, the same ones for all tests."""
    folder = tmp_path_factory.mktemp("models")
    tiny.build(folder / "tiny")
    liking.build(folder / "liking", folder / "tiny")
    base = factory.policy(name="tiny", location="tiny")
    project = factory.project(served_by=base, review_share=0, secret="00" * 32)
    for opening in preferences.openings(project, {"train": 20, "validation": 8}):
        comparison = factory.comparison_about(project, opening)
        factory.ranking(comparison)
    export = preferences.exported(project, "prompt_only")
    ranked = preferences.exported(project, "ranked")
    run = liking.run(ranked, base)
    return folder, project.pk, export.pk, run.pk


@pytest.fixture(autouse=True)
def home(tmp_path, settings, rows):
    settings.BOTHSIDES_HOME = tmp_path
    shutil.copytree(rows[0], tmp_path / "models")
    return tmp_path


@pytest.fixture
def export(rows) -> Export:
    return Export.objects.get(pk=rows[2])


@pytest.fixture
def reward(rows) -> TrainingRun:
    return TrainingRun.objects.get(pk=rows[3])


@pytest.fixture
def base() -> Policy:
    return Policy.objects.get(name="tiny")


@pytest.fixture
def asked(base, export, reward):
    def make(*exports, **more) -> TrainingRun:
        return training.prepare(kind="ppo", exports=exports or [export], base=base, reward=reward, options=QUICK | more)

    return make


def measured(run: TrainingRun) -> dict[int, dict[str, float]]:
    return {point.step: point.values for point in run.points.all()}


def test_it_learns_what_is_rewarded_and_registers_a_policy_that_can_be_served(asked, base, home):
    from worker.engines.transformers import TransformersEngine

    run = run_it(asked())
    points = measured(run)
    assert set(points) == set(range(1, UPDATES + 1))
    assert abs(points[1]["kl"]) < 1e-3
    told = run.metrics
    assert told["reward_gain"] > 4 * told["reward_gain_error"] > 0
    assert told["after"]["reward"] - told["before"]["reward"] == pytest.approx(told["reward_gain"])
    assert abs(told["before"]["kl"]) < 1e-3 < told["after"]["kl"] == told["kl"]
    assert (told["updates"], told["episodes"], told["prompts"]) == (UPDATES, 16 * UPDATES, 20)
    assert (told["ended_by"], told["compared_on"], len(told["samples"])) == ("episodes", "validation", ppo.SHOWN)
    assert (run.policy.parent, run.policy.active, run.policy.run) == (base, False, run)
    assert run.policy.run.reward.kind == "reward"
    for config in (transformers.AutoConfig, transformers.GenerationConfig):
        before, after = (config.from_pretrained(home / "models" / place) for place in ("tiny", run.location))
        assert after.eos_token_id == before.eos_token_id
    engine = TransformersEngine(str(home / "models" / run.location), device="cpu")
    engine.close()


def test_every_update_is_measured(asked):
    first, *_, last = measured(run_it(asked(episodes=32, missing_end=2.0, mini_batches=2, at_once=4))).values()
    names = {"reward", "reward_less_penalties", "kl", "entropy", "length", "ended", "policy_loss", "value_loss"}
    assert set(first) == names | {"clip_fraction", "learning_rate"}
    # Nothing is taken off yet for the distance, but for those that do not end.
    assert first["reward_less_penalties"] == pytest.approx(first["reward"] - 2 * (1 - first["ended"]), abs=1e-4)
    assert 0 < first["ended"] < 1
    assert 1 < first["length"] <= QUICK["max_new_tokens"]
    assert 0 < first["entropy"] < math.log(429)
    assert (first["learning_rate"], last["learning_rate"]) == (1e-3, pytest.approx(5e-4))


def test_small_batches_step_by_themselves(asked, monkeypatch):
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: steps.append(1) or step(self, *args))
    run_it(asked(episodes=16, at_once=4, mini_batches=2))
    assert len(steps) == QUICK["ppo_epochs"] * 2


def test_the_reward_is_that_of_the_scorer(asked, base, reward, home):
    run = asked()
    they = players.Players(work.Work(run, None, None))
    prompts = players.prompts_of(Quiet(run), they, "train")[0]
    how = rollouts.Sampling(max_new_tokens=30, temperature=1.0, at_once=7, seed=0)
    found = rollouts.answers(they, "policy", [prompt.ids for prompt in prompts], how, lambda done: None)
    # Words that are read back may be other tokens; the end of the turn is one more.
    tokenizer = they.tokenizer
    kept = [
        (prompt, one)
        for prompt, one in zip(prompts, found, strict=True)
        if one.ended
        and len(tokenizer(one.text).input_ids) + 1 == one.tokens
        and "\N{REPLACEMENT CHARACTER}" not in one.text
    ]
    assert len(kept) > 3
    system = {"role": "system", "content": run.project.system_message}
    texts = [([system, {"role": "user", "content": prompt.text}], one.text) for prompt, one in kept]
    scored = scoring.Scorer(home / "models" / reward.location, device="cpu").score(texts)
    assert [value for value, _ in scored] == pytest.approx([one.reward for _, one in kept], abs=1e-3)


class Quiet(work.Work):
    """Outside a run."""

    def __init__(self, run):
        super().__init__(run, None, None)

    def tell(self, *args, **kwargs):
        """To nobody."""


def test_a_prompt_counts_once_and_the_system_message_stands_before_it(asked, rows, export):
    project = Project.objects.get(pk=rows[1])
    for text in preferences.openings(project, {"train": 22}):
        Prompt.objects.create(project=project, text=text, digest=text, family=derive.family_of(text))
    openings = snapshots.export("prompts", project=project, format="prompt_only", filters=filters.parse("prompts", {}))
    run = asked(export, openings)
    they = players.Players(work.Work(run, None, None))
    found, too_long = players.prompts_of(Quiet(run), they, "train")
    # Twenty of them stand before comparisons too.
    assert (len(found), too_long) == (22, 0)
    told = they.tokenizer.decode(found[0].ids)
    assert told.startswith(f"<|im_start|>system\n{project.system_message}<|im_end|>\n<|im_start|>user\nQuestion")
    assert told.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}], ids=["whole", "lora"])
def test_the_same_seed_gives_the_same_policy(asked, options):
    options = options | {"episodes": 48}
    one, other = run_it(asked(**options)), run_it(asked(**options))
    assert measured(one) == measured(other)
    assert one.metrics == other.metrics
    assert measured(run_it(asked(**options, seed=1))) != measured(one)


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}, {"max_kl": 1000.0}], ids=["whole", "lora", "max_kl"])
def test_one_that_is_stopped_goes_on_and_ends_as_if_it_had_not_been(asked, options):
    options = options | {"episodes": 16 * 7}
    whole = run_it(asked(**options))
    run = asked(**options)
    stop_at(run, 5)
    assert [path.name for path in (work.folder_of(run) / "checkpoints").iterdir()] == ["checkpoint-3"]
    assert first_step_of_going_on(run) == 4
    for step, values in measured(whole).items():
        assert measured(run)[step] == pytest.approx(values, rel=1e-3, abs=1e-5)
    assert run.metrics["samples"] == whole.metrics["samples"]


def test_lora_trains_adapters_and_leaves_a_whole_model(asked, home):
    pytest.importorskip("peft")
    run = run_it(asked(lora_rank=4, learning_rate=7e-3, episodes=16 * 12))
    assert abs(measured(run)[1]["kl"]) < 1e-3
    assert abs(run.metrics["before"]["kl"]) < 1e-3
    rewards = [values["reward"] for values in measured(run).values()]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.5
    names = {path.name for path in (home / "models" / run.location).iterdir()}
    assert "model.safetensors" in names
    assert not any("adapter" in name for name in names)


def test_it_ends_before_the_policy_is_too_far(asked):
    free = run_it(asked())
    far = next(step for step, values in measured(free).items() if values["kl"] > 2)
    run = run_it(asked(max_kl=2.0))
    assert (run.metrics["ended_by"], run.metrics["updates"]) == ("max_kl", far - 2)
    assert set(measured(run)) == set(range(1, far + 1))
    # What is kept is the policy as it was when it wrote what was measured one update before.
    assert run.metrics["kl"] < free.metrics["kl"]
    assert run.policy is not None


def test_one_that_is_too_far_only_at_its_end_goes_back_an_update(asked):
    free = run_it(asked(episodes=16 * 2))
    most = max(values["kl"] for values in measured(free).values())
    assert free.metrics["kl"] > most
    run = run_it(asked(episodes=16 * 2, max_kl=(most + free.metrics["kl"]) / 2))
    assert (run.metrics["ended_by"], run.metrics["updates"]) == ("max_kl", 1)
    assert run.metrics["kl"] < free.metrics["kl"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"length": 1.0, "entropy": 2.0}, "writes nothing any more"),
        ({"length": 9.0, "entropy": 0.01}, "writes always the same"),
        ({"length": 9.0, "entropy": 1.0}, None),
    ],
)
def test_a_policy_that_collapsed_is_said(values, told):
    if told is None:
        return ppo.check_not_collapsed(7, values, 2.0)
    with pytest.raises(Invalid, match=f"{told} at update 7"):
        ppo.check_not_collapsed(7, values, 2.0)


def test_a_collapse_ends_it(asked):
    with pytest.raises(Invalid, match="collapsed"):
        run_it(run := asked(learning_rate=3e-2, kl_coef=0.0))
    assert "A higher kl_coef or a lower learning_rate" in failed(run)


def test_weights_that_are_no_numbers_end_it(asked):
    with pytest.raises(Invalid, match="diverged"):
        run_it(run := asked(learning_rate=1e30))
    assert "lower learning_rate" in failed(run)


def test_a_checkpoint_that_was_cut_short_is_not_gone_on_from(asked):
    run = asked(episodes=32)
    folder = work.folder_of(run) / "checkpoints" / "checkpoint-1"
    folder.mkdir(parents=True)
    (folder / ppo.STATE).write_bytes(b"PK")
    assert run_it(run).metrics["updates"] == 2


def test_a_full_disk_is_said(asked, monkeypatch):
    run = asked(episodes=64)
    folder = work.folder_of(run) / "checkpoints" / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / ppo.STATE).symlink_to("/dev/full")
    # Else it is taken away as one that was cut short.
    monkeypatch.setattr(work.Work, "last_checkpoint", lambda self: None)
    with pytest.raises(Invalid, match="No space left on device"):
        run_it(run)
    assert "No space left" in failed(run)


def test_nothing_short_enough_is_refused(asked):
    with pytest.raises(Invalid, match="raise max_tokens"):
        run_it(run := asked(max_tokens=16))
    failed(run)


def test_a_base_without_a_template_is_refused(asked, home):
    (home / "models" / "tiny" / "chat_template.jinja").unlink()
    with pytest.raises(Invalid, match="has no chat template"):
        run_it(run := asked())
    failed(run)


def test_a_template_that_ends_no_turn_is_refused(asked, home):
    for place in ("tiny", "liking"):
        (home / "models" / place / "chat_template.jinja").write_text(
            "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        )
    with pytest.raises(Invalid, match="ends no turn"):
        run_it(run := asked())
    failed(run)


@pytest.mark.parametrize("what", ["tokens", "template"])
def test_a_reward_model_that_reads_otherwise_is_refused(asked, home, what):
    shutil.rmtree(home / "models" / "liking")
    if what == "tokens":
        tiny.build(home / "other", tokens=["more"])
    else:
        tiny.build(home / "other", template=tiny.CHAT_TEMPLATE.replace("<|im_end|>\n", "<|im_end|>"))
    liking.build(home / "models" / "liking", home / "other")
    with pytest.raises(Invalid, match="other tokenizers or chat templates"):
        run_it(run := asked())
    failed(run)


def test_a_reward_model_that_is_gone_is_refused(asked, home):
    shutil.rmtree(home / "models" / "liking")
    with pytest.raises(Invalid, match="cannot be loaded"):
        run_it(run := asked())
    failed(run)


def test_what_it_cannot_learn_from_is_refused(base, reward, export, rows):
    def prepared(export, reward):
        training.prepare(kind="ppo", exports=[export], base=base, reward=reward, options=QUICK)

    with pytest.raises(Invalid, match="needs the run of a reward model"):
        prepared(export, None)
    ranked = reward.exports.get()
    with pytest.raises(Invalid, match="ppo learns from prompts as prompt_only"):
        prepared(ranked, reward)
    with pytest.raises(Invalid, match="no line in the split train"):
        prepared(preferences.exported(Project.objects.get(pk=rows[1]), "prompt_only", split="validation"), reward)
    TrainingRun.objects.filter(pk=reward.pk).update(state="stopped", location="", digest="")
    reward.refresh_from_db()
    with pytest.raises(Invalid, match="needs a reward model that is done"):
        prepared(export, reward)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 2}, "episodes says how long"),
        ({"episodes": 8}, "at least batch_size"),
        ({"mini_batches": 3}, "times mini_batches 3"),
        ({"max_new_tokens": 1024}, "no room for a prompt"),
        ({"max_kl": -1}, "max_kl is -1"),
        ({"temperature": 0}, "temperature is more than 0"),
        ({"ppo_epochs": 0}, "ppo_epochs is 0"),
    ],
)
def test_wrong_options_are_refused(options, told):
    with pytest.raises(Invalid, match=told):
        recipes.parse("ppo", options)


def test_the_command_trains_and_says_what_came_of_it(export, reward):
    out = io.StringIO()
    flags = [f"--{name.replace('_', '-')}={value:g}" for name, value in (QUICK | {"episodes": 32}).items()]
    what = ["--prompts", str(export.pk), "--policy", "tiny", "--reward", str(reward.pk)]
    call_command("train", "ppo", *what, "--foreground", *flags, stdout=out)
    run = TrainingRun.objects.get(kind="ppo")
    assert run.reward == reward
    assert "reward_gain" in out.getvalue()
    assert f"policy {run.policy.name}, not active yet" in out.getvalue()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["ppo"], "Name what to train, ppo, with its --prompts, --policy and --reward"),
        (["ppo", "--export", "1", "--policy", "tiny"], "ppo takes --prompts, --policy and --reward, not --export"),
        (["sft", "--export", "1", "--policy", "tiny"], "sft takes --export and --base, not --policy"),
        (["--go-on", "1", "--reward", "1"], "leave all else out"),
        (["ppo", "--prompts", "99999", "--policy", "tiny", "--reward", "1"], "no export 99999"),
    ],
)
def test_the_command_refuses(given, told):
    with pytest.raises(CommandError, match=told):
        call_command("train", *given)


def test_no_nul_reaches_the_record():
    assert ppo._shown("a\0b") == "ab"
    assert ppo._shown("\0" + "c" * 10_000) == "c" * ppo.CHARACTERS
