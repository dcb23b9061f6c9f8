"""Training that outgrows one machine: what OpenRLHF is to be told to train from the same exports and models, and what
came of it, brought back into the record."""

import math
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.numpy
from django.conf import settings
from django.db import transaction

from annotate import jobs, recipes, training
from annotate.errors import Invalid
from annotate.models import Export, Policy, TrainingRun
from worker.training import examples, models, running, scoring

OPENRLHF = "0.11.2"
"""The version whose flags these are."""

Kind = TrainingRun.Kind

PAIRS = 64
"""Pairs a step of the reward model; here we count comparisons."""

COLUMNS = {
    ("demonstrations", "messages"): {"data.input_key": "messages", "data.multiturn": True},
    ("demonstrations", "prompt_completion"): {"data.input_key": "prompt", "data.output_key": "completion"},
    ("comparisons", "preference"): {
        "data.prompt_key": "prompt",
        "data.chosen_key": "chosen",
        "data.rejected_key": "rejected",
    },
    ("comparisons", "preference_implicit"): {"data.chosen_key": "chosen", "data.rejected_key": "rejected"},
    ("comparisons", "prompt_only"): {"data.input_key": "prompt"},
    ("prompts", "prompt_only"): {"data.input_key": "prompt"},
}
"""By export the columns that OpenRLHF is to read."""

TAKES = {
    Kind.SFT: [("demonstrations", "messages"), ("demonstrations", "prompt_completion")],
    Kind.REWARD: [("comparisons", "preference"), ("comparisons", "preference_implicit")],
    Kind.PPO: [("prompts", "prompt_only"), ("comparisons", "prompt_only")],
}


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What it is to be trained on."""

    nodes: int
    gpus: int
    """Of each node."""
    tensor_parallel: int
    """GPUs that one engine of vLLM is spread over."""

    def __post_init__(self):
        if min(self.nodes, self.gpus, self.tensor_parallel) < 1:
            raise Invalid("nodes, gpus and tensor_parallel are 1 or more.")
        if self.all % self.tensor_parallel:
            raise Invalid(f"{self.all} GPUs cannot be shared out to engines of {self.tensor_parallel}.")

    @property
    def all(self) -> int:
        """How many GPUs there are."""
        return self.nodes * self.gpus


def write(
    *,
    folder: Path,
    policy: Policy,
    exports: dict[str, Export],
    reward: TrainingRun | None,
    machines: Machines,
) -> list[str]:
    """Write a script for each kind of training of which there is an export, with the data; returns their names.

    The policy that SFT makes is what the others begin with, and the reward model that is made what PPO optimises,
    where there is no run of one. The folder appears whole or not at all. Raises Invalid where one cannot learn from
    these exports or begin with this policy, or the folder is there.
    """
    training.check_base(policy)
    _check(exports, reward, machines)
    if folder.exists():
        raise Invalid(f"{folder} is there already; name a folder that is not.")
    with running.said_clearly():
        _write_whole(folder, policy, exports, reward, machines)
    return sorted(path.name for path in folder.glob("*.sh"))


def _write_whole(folder: Path, policy: Policy, exports: dict[str, Export], reward, machines: Machines) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".scale-") as begun:
        place = Path(begun) / "whole"
        place.mkdir()
        for export in exports.values():
            examples.bring(export, place / "data")
        base = models.source_of(policy)["pretrained_model_name_or_path"]
        if Kind.SFT in exports:
            _script(place, "sft", _sft(exports[Kind.SFT], base, machines))
            base = "$HERE/made/sft"
        if Kind.REWARD in exports:
            _script(place, "reward", _reward(exports[Kind.REWARD], base, machines))
        if Kind.PPO in exports:
            _script(place, "ppo", _ppo(exports[Kind.PPO], base, reward, machines))
        place.rename(folder)


def _check(exports: dict[str, Export], reward: TrainingRun | None, machines: Machines) -> None:
    if not exports:
        raise Invalid("Name at least one export to learn from.")
    for kind, export in exports.items():
        if (export.what, export.format) not in TAKES[kind]:
            wanted = " or ".join(f"{what} as {format}" for what, format in TAKES[kind])
            raise Invalid(f"Export {export.pk} is {export.what} as {export.format}; {kind} at scale takes {wanted}.")
        if export.state != Export.State.DONE or not _rows(export, "train"):
            raise Invalid(f"Export {export.pk} has no line in the split train, or is not done.")
        if machines.all > min(PAIRS, recipes.OPTIONS[kind]().batch_size if kind != Kind.REWARD else PAIRS):
            raise Invalid(f"A step of {kind} has fewer examples than there are GPUs, {machines.all}: take fewer.")
    if len({export.project_id for export in exports.values()}) > 1:
        raise Invalid("All exports are of one project: splits of another may leak into it.")
    if reward and (reward.kind != Kind.REWARD or reward.state != TrainingRun.State.DONE):
        raise Invalid(f"Run {reward.pk} is {reward.kind} and {reward.state}; a reward model that is done is needed.")
    if Kind.PPO in exports and not reward and Kind.REWARD not in exports:
        raise Invalid("PPO needs a reward model: the run of one, or comparisons to train one from.")


def _rows(export: Export, split: str) -> int:
    return export.manifest["counts"]["by_split"].get(split, {}).get("rows", 0)


def _sft(export: Export, base: str, machines: Machines) -> dict:
    options = recipes.SFT()
    return _both("sft", export, base, options, options.batch_size) | {
        "train.max_epochs": math.ceil(options.epochs),
        "adam.lr": options.learning_rate,
    }


def _reward(export: Export, base: str, machines: Machines) -> dict:
    options = recipes.Reward()
    margin = {"model.margin_loss_enable": True} if export.filters.get("margin") else {}
    return (
        _both("reward", export, base, options, PAIRS)
        | {"train.max_epochs": math.ceil(options.epochs), "adam.lr": options.learning_rate}
        | {"ds.value_head_prefix": "score"}
        | margin
    )


def _both(name: str, export: Export, base: str, options: recipes.Options, batch_size: int) -> dict:
    """What SFT and the reward model have in common."""
    data = f"$HERE/data/{export.pk}"
    seen = {"eval.dataset": data, "eval.split": "validation"} if _rows(export, "validation") else {}
    return {
        "model.model_name_or_path": base,
        "model.gradient_checkpointing_enable": True,
        "data.dataset": data,
        "data.dataset_split": "train",
        "data.apply_chat_template": True,
        "data.max_len": options.max_tokens,
        **COLUMNS[export.what, export.format],
        **seen,
        "train.batch_size": batch_size,
        "train.micro_batch_size": 1,
        "train.seed": options.seed,
        "lr_warmup_ratio": options.warm_up,
        **_saving(name, options),
    }


def _ppo(export: Export, base: str, reward: TrainingRun | None, machines: Machines) -> dict:
    options = recipes.PPO()
    zero = _zero(reward) if reward else 0.0
    # It stands for the whole reward where it is below 0, and is a factor where it is not.
    missing = {"reward.stop_properly_penalty_coef": zero - options.missing_end} if zero < options.missing_end else {}
    rows = _rows(export, "train")
    parts = {
        f"{part}.{name}": number
        for part in ("actor", "critic", "ref", "reward")
        for name, number in (("num_nodes", machines.nodes), ("num_gpus_per_node", machines.gpus))
    }
    return {
        **parts,
        "train.colocate_all": True,
        "vllm.num_engines": machines.all // machines.tensor_parallel,
        "vllm.tensor_parallel_size": machines.tensor_parallel,
        "vllm.gpu_memory_utilization": 0.5,
        "vllm.enable_sleep": True,
        "ds.enable_sleep": True,
        "actor.model_name_or_path": base,
        "actor.gradient_checkpointing_enable": True,
        "reward.model_name_or_path": str(_folder_of(reward)) if reward else "$HERE/made/reward",
        "reward.clip_range": [zero - 10, zero + 10],
        "ds.value_head_prefix": "score",
        "data.prompt_dataset": f"$HERE/data/{export.pk}",
        "data.prompt_split": "train",
        "data.apply_chat_template": True,
        "data.max_len": options.max_tokens,
        "data.max_samples": min(rows, options.episodes),
        **COLUMNS[export.what, export.format],
        "rollout.batch_size": min(options.batch_size, rows),
        "rollout.micro_batch_size": 1,
        "rollout.n_samples_per_prompt": 1,
        "rollout.max_new_tokens": options.max_new_tokens,
        "rollout.temperature": options.temperature,
        "train.num_episodes": max(1, round(options.episodes / rows)),
        "train.max_epochs": options.ppo_epochs,
        "train.batch_size": min(options.batch_size, rows) // options.mini_batches,
        "train.micro_batch_size": 1,
        "train.seed": options.seed,
        "actor.adam.lr": options.learning_rate,
        "actor.lr_warmup_ratio": options.warm_up,
        "critic.adam.lr": options.learning_rate,
        "critic.lr_warmup_ratio": options.warm_up,
        "actor.eps_clip": 0.2,
        "critic.value_clip": 0.2,
        "algo.advantage.estimator": "gae",
        "algo.advantage.lambd": 0.95,
        "algo.kl.init_coef": options.kl_coef,
        **missing,
        "vllm.sync_backend": "nccl",
        **_saving("ppo", options),
    }


def _saving(name: str, options: recipes.Options) -> dict:
    return {
        "ds.zero_stage": 3,
        "ds.param_dtype": "bf16",
        "ckpt.output_dir": f"$HERE/made/{name}",
        "ckpt.path": f"$HERE/checkpoints/{name}",
        "ckpt.save_steps": options.save_steps,
        "ckpt.load_enable": True,
        "logger.logging_steps": 1,
        "logger.tensorboard_dir": f"$HERE/log/{name}",
    }


BEGIN = {
    "sft": 'deepspeed ${HOSTFILE:+--hostfile "$HOSTFILE"} --module openrlhf.cli.train_sft',
    "reward": 'deepspeed ${HOSTFILE:+--hostfile "$HOSTFILE"} --module openrlhf.cli.train_rm',
    "ppo": 'ray job submit --address "${RAY_ADDRESS:-http://127.0.0.1:8265}" -- python3 -m openrlhf.cli.train_ppo_ray',
}


def _script(folder: Path, name: str, flags: dict) -> None:
    lines = [f"  --{flag}{'' if value is True else ' ' + _quoted(value)}" for flag, value in flags.items()]
    path = folder / f"{name}.sh"
    path.write_text(
        f"#!/usr/bin/env bash\n# For OpenRLHF {OPENRLHF}, written by manage.py train_at_scale.\nset -euo pipefail\n"
        'HERE="$(cd "$(dirname "$0")" && pwd)"\n\n' + " \\\n".join([BEGIN[name], *lines]) + "\n"
    )
    path.chmod(0o755)


def _quoted(value) -> str:
    """A value for the shell, which is to fill in where the folder is."""
    if isinstance(value, list):
        return " ".join(map(_quoted, value))
    text = str(value)
    return f'"{text}"' if text.startswith("$HERE/") else shlex.quote(text)


def _zero(reward: TrainingRun) -> float:
    """What the run's reward model gives demonstrations on average, as it lies in its folder."""
    return float(safetensors.numpy.load_file(_folder_of(reward) / scoring.HEADS)["shift"].mean())


def _folder_of(run: TrainingRun) -> Path:
    return settings.BOTHSIDES_HOME / "models" / run.location


def bring_back(
    *,
    folder: Path,
    kind: str,
    exports: Sequence[Export],
    base: Policy,
    reward: TrainingRun | None,
    name: str,
    trained_by: str,
) -> TrainingRun:
    """Register a policy that was trained elsewhere from exports of the record, as a run that is done with its lineage.

    The folder is copied among the models. Raises Invalid where it holds no model that can be served, or one could not
    have learnt from these exports; nothing is registered then.
    """
    if kind == Kind.REWARD:
        raise Invalid("Only policies are brought back; a reward model of this record is trained here.")
    if not folder.is_dir():
        raise Invalid(f"There is no folder {folder}.")
    source = Policy(name=name or folder.name, location=str(folder.resolve()), engine=Policy.Engine.TRANSFORMERS)
    models.load(source)
    work = settings.BOTHSIDES_HOME / "training"
    work.mkdir(parents=True, exist_ok=True)
    with running.said_clearly(), tempfile.TemporaryDirectory(dir=work, prefix="brought-") as begun:
        made = Path(begun) / "made"
        shutil.copytree(folder, made)
        with transaction.atomic():
            run = training.prepare(kind=kind, exports=exports, base=base, reward=reward, options={}, name=name)
            run.options = {"name": name, "trained_by": trained_by}
            run.save(update_fields=["options"])
            running.put_in_place(run, made, {"trained_by": trained_by})
            try:
                with jobs.running(run) as held:
                    running.register(run, held, {"trained_by": trained_by})
            except BaseException:
                shutil.rmtree(running.place_of(run))
                raise
    return run
