"""`train_at_scale`: scripts that OpenRLHF's own parsers take, over data that it reads, and back into the record."""

import io
import json
import shlex
import shutil
from itertools import takewhile
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotate.models import Export, Policy, Project, TrainingRun
from tests import factory, tiny
from tests.worker import preferences

pytest.importorskip("trl")

import datasets

from tests.worker import liking
from worker.training import running, scale, scoring

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

KNOWN = json.loads((Path(__file__).parent / "openrlhf_flags.json").read_text())
"""By script the flags of OpenRLHF's parsers, and what each takes: read out of the source of that version."""
NUMBERS = {"int": int, "float": float, "str": str}


@pytest.fixture(scope="module")
def rows(module_rows, tmp_path_factory):
    """A project with exports of all kinds and a reward model, the same ones for all tests."""
    folder = tmp_path_factory.mktemp("models")
    tiny.build(folder / "tiny")
    liking.build(folder / liking.NAME, folder / "tiny")
    base = factory.policy(name="tiny", location="tiny")
    project = factory.project(served_by=base, overlap=2, review_share=0, secret="00" * 32)
    preferences.compare(project)
    made = {
        "sft": preferences.demonstrations(project),
        "reward": preferences.exported(project, "preference"),
        "ppo": preferences.exported(project, "prompt_only"),
        "ranked": preferences.exported(project),
    }
    run = liking.run(made["ranked"], base)
    return folder, project.pk, {kind: export.pk for kind, export in made.items()}, run.pk


@pytest.fixture(autouse=True)
def home(tmp_path, settings, rows):
    settings.BOTHSIDES_HOME = tmp_path
    shutil.copytree(rows[0], tmp_path / "models")
    return tmp_path


@pytest.fixture
def exports(rows) -> dict[str, Export]:
    return {kind: Export.objects.get(pk=pk) for kind, pk in rows[2].items()}


@pytest.fixture
def reward(rows) -> TrainingRun:
    return TrainingRun.objects.get(pk=rows[3])


def told(folder: Path, name: str) -> dict[str, str | bool]:
    """The flags of a script, each as a shell gives it. Fails where OpenRLHF's parser would not take one."""
    text = (folder / f"{name}.sh").read_text().replace("\\\n", " ").replace("$HERE", str(folder))
    words = shlex.split(text[text.index("openrlhf.cli.") :])
    found: dict[str, str | bool] = {}
    known = KNOWN["flags"][name]
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        kind, flag = known[word[2:]], word[2:]
        after = words[place + 1] if place + 1 < len(words) else "--"
        if kind == "flag":
            assert after.startswith("--")
            found[flag] = True
            continue
        if kind == "several":
            found[flag] = " ".join(takewhile(lambda one: not one.startswith("--"), words[place + 1 :]))
            continue
        assert after in kind if isinstance(kind, list) else NUMBERS[kind](after) is not None
        found[flag] = after
    return found


def write(home, exports, kinds=("sft", "reward", "ppo"), **more) -> Path:
    flags = [f"--{flag}={exports[kind].pk}" for kind, flag in DATA.items() if kind in kinds]
    flags += [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
    call_command("train_at_scale", str(home / "cluster"), "--policy=tiny", *flags, stdout=io.StringIO())
    return home / "cluster"


DATA = {"sft": "demonstrations", "reward": "comparisons", "ppo": "prompts"}


def test_its_scripts_are_what_openrlhf_takes(home, exports):
    assert KNOWN["openrlhf"] == scale.OPENRLHF
    folder = write(home, exports, nodes=2, gpus=4, tensor_parallel=2)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "ppo.sh", "reward.sh", "sft.sh"]
    sft, rewarding, ppo = (told(folder, name) for name in ("sft", "reward", "ppo"))
    assert sft["model.model_name_or_path"] == str(home / "models" / "tiny")
    # What one makes the next begins with.
    assert rewarding["model.model_name_or_path"] == ppo["actor.model_name_or_path"] == sft["ckpt.output_dir"]
    assert ppo["reward.model_name_or_path"] == rewarding["ckpt.output_dir"]
    assert (ppo["actor.num_nodes"], ppo["critic.num_gpus_per_node"], ppo["vllm.num_engines"]) == ("2", "4", "4")
    assert int(ppo["rollout.batch_size"]) <= 12
    assert rewarding["eval.split"] == "validation"
    assert "eval.dataset" not in sft


def test_it_reads_the_columns_that_are_there(home, exports):
    folder = write(home, exports)
    for name, flag in (("sft", "data.dataset"), ("reward", "data.dataset"), ("ppo", "data.prompt_dataset")):
        flags = told(folder, name)
        loaded = datasets.load_dataset(flags[flag], cache_dir=str(home / "cache"))
        assert flags.get("data.dataset_split", flags.get("data.prompt_split")) in loaded
        row = loaded["train"][0]
        columns = [value for key, value in flags.items() if key.startswith("data.") and key.endswith("_key")]
        assert columns
        for column in columns:
            assert {"role", "content"} <= set(row[column][0])
        if "eval.split" in flags:
            assert len(loaded[flags["eval.split"]])


def test_ppo_takes_the_reward_model_of_a_run_with_its_zero(home, exports, reward):
    folder = write(home, exports, kinds=["ppo"], reward=reward.pk)
    ppo = told(folder, "ppo")
    assert ppo["reward.model_name_or_path"] == str(home / "models" / liking.NAME)
    # What demonstrations have is 0.3: a text without an end has 1 less, and rewards are clipped 10 from there.
    assert float(ppo["reward.stop_properly_penalty_coef"]) == pytest.approx(-0.7)
    assert [float(one) for one in ppo["reward.clip_range"].split()] == [pytest.approx(-9.7), pytest.approx(10.3)]
    # A reward below 0 would stand for itself, one above would be taken for a factor.
    scoring.normalise(home / "models" / liking.NAME, [2.0, 2.0])
    shutil.rmtree(folder)
    assert "reward.stop_properly_penalty_coef" not in told(write(home, exports, ["ppo"], reward=reward.pk), "ppo")


def test_a_policy_is_brought_back_with_its_lineage(home, exports, reward):
    made = tiny.build(home / "made", seed=5)
    out = io.StringIO()
    flags = ["--prompts", str(exports["ppo"].pk), "--policy", "tiny", "--reward", str(reward.pk), "--name", "big-2"]
    call_command("train_at_scale", str(made), "--bring-back", "ppo", *flags, stdout=out)
    policy = Policy.objects.get(name="big-2")
    run = policy.run
    assert (policy.parent.name, policy.active, policy.location) == ("tiny", False, "big-2")
    assert (run.kind, run.state, run.reward, list(run.exports.all())) == ("ppo", "done", reward, [exports["ppo"]])
    assert run.metrics == {"trained_by": f"OpenRLHF {scale.OPENRLHF}"}
    assert (home / "models" / "big-2" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert f"run {run.pk}, policy big-2, not active yet" in out.getvalue()
    with pytest.raises(CommandError, match="There is a policy big-2 already"):
        call_command("train_at_scale", str(made), "--bring-back", "ppo", *flags)


def test_what_cannot_be_served_is_not_brought_back(home, exports, reward, monkeypatch):
    flags = ["--bring-back", "ppo", "--policy", "tiny", "--prompts", str(exports["ppo"].pk), "--name", "x"]
    with pytest.raises(CommandError, match="There is no folder"):
        call_command("train_at_scale", str(home / "nothing"), *flags, "--reward", str(reward.pk))
    with pytest.raises(CommandError, match=r"lacks weights: lm_head\.weight"):
        call_command("train_at_scale", str(home / "models" / liking.NAME), *flags, "--reward", str(reward.pk))
    made = tiny.build(home / "made")
    with pytest.raises(CommandError, match="needs the run of a reward model"):
        call_command("train_at_scale", str(made), *flags)
    with pytest.raises(CommandError, match="Name with --prompts, and nothing else"):
        call_command("train_at_scale", str(made), *flags, "--comparisons", str(exports["reward"].pk))
    monkeypatch.setattr(running, "_digest", lambda place: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(CommandError, match="No space left"):
        call_command("train_at_scale", str(made), *flags, "--reward", str(reward.pk))
    monkeypatch.undo()
    (made / "chat_template.jinja").unlink()
    with pytest.raises(CommandError, match="has no chat template"):
        call_command("train_at_scale", str(made), *flags, "--reward", str(reward.pk))
    assert list(Policy.objects.values_list("name", flat=True)) == ["tiny"]
    assert TrainingRun.objects.count() == 1
    assert {path.name for path in (home / "models").iterdir()} == {"tiny", liking.NAME}
    assert list((home / "training").iterdir()) == []


def test_what_does_not_fit_is_refused(home, exports, rows):
    def refused(*kinds, **more):
        with pytest.raises(CommandError) as found:
            write(home, exports, kinds, **more)
        assert not (home / "cluster").exists()
        return str(found.value)

    assert "Name at least one export" in refused()
    assert "PPO needs a reward model" in refused("ppo")
    assert "fewer examples than there are GPUs" in refused("sft", gpus=32)
    assert "cannot be shared out to engines of 3" in refused("sft", tensor_parallel=3)
    assert "no training run 99999" in refused("ppo", reward=99999)
    on_server = {"engine": "openai_compatible", "served_as": "x", "concurrency": 1, "context_tokens": 9}
    factory.policy(name="far", location="http://localhost:1/v1", **on_server)
    assert "is on a server" in refused("sft", policy="far")
    exports["sft"] = exports["ranked"]
    assert "sft at scale takes demonstrations as messages" in refused("sft")
    other = factory.project(served_by=Policy.objects.get(name="tiny"), overlap=2, secret="00" * 32)
    preferences.compare(other)
    exports["ppo"] = preferences.exported(other, "prompt_only")
    assert "are of one project" in refused("reward", "ppo")
    only = preferences.exported(Project.objects.get(pk=rows[1]), "preference", split="test")
    exports["reward"] = only
    assert "no line in the split train" in refused("reward")


def test_a_folder_that_is_there_is_left_as_it_is(home, exports):
    (home / "cluster").mkdir()
    with pytest.raises(CommandError, match="is there already"):
        write(home, exports)
    assert list((home / "cluster").iterdir()) == []
