"""How things are trained: the options of each kind of training, with defaults, and a project's recipe of them."""

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin

from annotate.errors import Invalid
from annotate.models import TrainingRun

Kind = TrainingRun.Kind


MOST_EPOCHS = 10_000
MOST_WHOLE = 2**31 - 1
"""The highest whole number, a seed too: what the libraries take."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all kinds have in common."""

    seed: int = 0
    epochs: float = 1.0
    learning_rate: float = 1e-5
    batch_size: int = 16  # examples a step of the optimiser
    at_once: int = 4  # examples that go through the model together; memory decides
    max_tokens: int = 1024  # of one example; longer ones are left out and counted
    warm_up: float = 0.03  # the share of steps in which the learning rate rises
    lora_rank: int = 0  # 0 trains all weights
    save_steps: int = 50  # steps between two checkpoints

    def __post_init__(self):
        least = {"epochs": 0.0, "learning_rate": 0.0, "batch_size": 1, "at_once": 1, "max_tokens": 8, "save_steps": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value < bound or not value:
                raise Invalid(f"{name} is {value}; {'more than 0' if not bound else f'at least {bound}'} is needed.")
        if self.epochs > MOST_EPOCHS:
            raise Invalid(f"epochs is {self.epochs:g}; at most {MOST_EPOCHS:,} are done.")
        if self.seed < 0:
            raise Invalid(f"seed is {self.seed}; at least 0 is needed.")
        if not 0 <= self.warm_up < 1 or self.lora_rank < 0:
            raise Invalid("warm_up is 0 or more and less than 1, lora_rank 0 or more.")
        if self.batch_size % self.at_once:
            raise Invalid(f"batch_size {self.batch_size} is no multiple of at_once {self.at_once}.")


@dataclass(frozen=True, kw_only=True)
class SFT(Options):
    """Supervised fine-tuning; InstructGPT took 16 epochs and chose by the reward model, two are enough for most."""

    epochs: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Reward(Options):
    """A reward model; one epoch, as InstructGPT: more overfit. An example is a comparison with all its completions."""

    batch_size: int = 8
    at_once: int = 1
    loss: Literal["kwise", "pairwise"] = "kwise"
    heads: int = 4  # scalar heads on one body, whose spread says how sure they are; pairwise has one

    def __post_init__(self):
        super().__post_init__()
        if self.heads < 1:
            raise Invalid(f"heads is {self.heads}; at least 1 is needed.")


@dataclass(frozen=True, kw_only=True)
class DPO(Options):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290). An example is a pair."""

    learning_rate: float = 1e-6
    beta: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.beta <= 0:
            raise Invalid(f"beta is {self.beta}; more than 0 is needed.")


@dataclass(frozen=True, kw_only=True)
class PPO(Options):
    """PPO against a reward model with a KL penalty (arXiv 1707.06347, 1909.08593). An example is an episode: a prompt
    with the answer that is written to it, both within max_tokens."""

    learning_rate: float = 3e-6
    batch_size: int = 64  # episodes an update
    episodes: int = 2048
    kl_coef: float = 0.05
    max_new_tokens: int = 128
    temperature: float = 0.7
    ppo_epochs: int = 4
    mini_batches: int = 1
    missing_end: float = 1.0  # taken off the reward of a text that does not end
    max_kl: float = 0.0  # ends the run before the policy is farther from its start than this; 0 never
    save_steps: int = 10  # updates

    def __post_init__(self):
        super().__post_init__()
        if self.epochs != 1:
            raise Invalid("epochs is no option of ppo: episodes says how long it trains.")
        if self.episodes < self.batch_size:
            raise Invalid(f"episodes is {self.episodes}; at least batch_size, {self.batch_size}, is needed.")
        for name in ("max_new_tokens", "ppo_epochs", "mini_batches"):
            if getattr(self, name) < 1:
                raise Invalid(f"{name} is {getattr(self, name)}; at least 1 is needed.")
        if self.max_new_tokens >= self.max_tokens:
            raise Invalid(f"max_new_tokens {self.max_new_tokens} leaves no room for a prompt in max_tokens.")
        if self.batch_size % (self.at_once * self.mini_batches):
            raise Invalid(
                f"batch_size {self.batch_size} is no multiple of at_once {self.at_once} times mini_batches "
                f"{self.mini_batches}."
            )
        if self.temperature <= 0:
            raise Invalid("temperature is more than 0.")
        for name in ("kl_coef", "missing_end", "max_kl"):
            if getattr(self, name) < 0:
                raise Invalid(f"{name} is {getattr(self, name)}; at least 0 is needed.")


OPTIONS: dict[str, type[Options]] = {Kind.SFT: SFT, Kind.REWARD: Reward, Kind.DPO: DPO, Kind.PPO: PPO}


def parse(kind: str, given: dict) -> Options:
    """The options of a training, defaults for what is not given. Raises Invalid, with the name of what is wrong."""
    made = OPTIONS[kind]
    fields = {field.name: field.type for field in dataclasses.fields(made)}
    for name, value in given.items():
        if name not in fields:
            raise Invalid(f"{kind} has no option {name}. Options: {', '.join(fields)}.")
        _check(name, value, fields[name])
    return made(**{name: float(value) if fields[name] is float else value for name, value in given.items()})


def as_json(options: Options) -> dict:
    """All options with their values."""
    return dataclasses.asdict(options)


# A project's recipe -----------------------------------------------------------------------------------------------

NAMES = "demonstrations", "comparisons", "prompts"
"""The exports of a recipe."""

MOST = 1000
"""The highest weight of a policy."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The parts of the next round's candidates that the new policy and the last one have."""

    new: int = 1
    last: int = 1

    def __post_init__(self):
        if not (0 <= self.new <= MOST and 0 <= self.last <= MOST):
            raise Invalid(f"weights: new and last are 0 to {MOST}.")
        if not self.new + self.last:
            raise Invalid("weights: new and last are both 0, so that the next round would sample from nothing.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is exported and trained between two rounds, and what the next one samples from.

    Of the three exports their filters; of the trainings their options, where None leaves one out. `policy` says which
    training makes the new policy.
    """

    rounds: Literal["all", "this"] = "all"
    demonstrations: dict = field(default_factory=dict)
    comparisons: dict = field(default_factory=dict)
    prompts: dict = field(default_factory=dict)
    prompts_of: Literal["comparisons", "prompts"] = "comparisons"
    begins_with: str = ""  # the name of a policy; empty is the newest one of the round
    sft: dict | None = None
    reward: dict | None = field(default_factory=dict)
    policy: Literal["ppo", "dpo", "sft"] = "ppo"
    ppo: dict = field(default_factory=dict)
    dpo: dict = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    replies: Literal["new", "last"] = "new"
    drops_older: bool = True
    scores: bool = True

    def __post_init__(self):
        for kind in OPTIONS:
            if (options := getattr(self, kind)) is not None:
                _in(kind, lambda kind=kind, options=options: parse(kind, options))
        if self.policy == Kind.PPO and self.reward is None:
            raise Invalid("policy is ppo, which needs a reward model: give reward its options, {} for the defaults.")
        if self.policy == Kind.SFT and self.sft is None:
            raise Invalid("policy is sft, which is left out: give sft its options, {} for the defaults.")

    def trainings(self) -> list[str]:
        """The steps that train, in their order: sft, reward, policy."""
        wanted = {"sft": self.sft is not None, "reward": self.reward is not None, "policy": self.policy != Kind.SFT}
        return [step for step, is_wanted in wanted.items() if is_wanted]

    def exports(self) -> dict[str, tuple[str, str]]:
        """The exports from which these learn: by name what is exported and in which format."""
        found = {}
        if self.sft is not None:
            found["demonstrations"] = ("demonstrations", "messages")
        if self.reward is not None or self.policy == Kind.DPO:
            found["comparisons"] = ("comparisons", "ranked")
        if self.policy == Kind.PPO:
            found["prompts"] = (self.prompts_of, "prompt_only")
        return found


def recipe(given: dict) -> Recipe:
    """A project's recipe, defaults for what is not given. Raises Invalid, with the name of what is wrong.

    The filters of its exports are looked at by `passages.recipe_of`.
    """
    if not isinstance(given, dict):
        raise Invalid('A recipe is an object in JSON, such as {"policy": "dpo"}.')
    made = {}
    known = {one.name: one.type for one in dataclasses.fields(Recipe)}
    for name, value in given.items():
        if name not in known:
            raise Invalid(f"A recipe has no {name}. It may have: {', '.join(known)}.")
        made[name] = _part(name, value, known[name])
    return Recipe(**made)


def _part(name: str, value, kind):
    if kind is Weights:
        known = [one.name for one in dataclasses.fields(Weights)]
        if not isinstance(value, dict) or set(value) - set(known):
            raise Invalid(f"weights is {value!r}; it is an object with {' and '.join(known)}.")
        for part, weight in value.items():
            _in("weights", lambda part=part, weight=weight: _check(part, weight, int))
        return Weights(**value)
    if kind is dict or kind == dict | None:
        if not isinstance(value, dict) and not (value is None and kind is not dict):
            told = "an object" if kind is dict else "an object, or null, which leaves it out"
            raise Invalid(f"{name} is {value!r}; it is {told}.")
    elif kind in (bool, str):
        if not isinstance(value, kind) or (kind is str and "\0" in value):
            raise Invalid(f"{name} is {value!r}; it is {'true or false' if kind is bool else 'a text'}.")
    else:
        _check(name, value, kind)
    return value


def _in(name: str, act) -> None:
    """Do it; a refusal says in which part of the recipe it is."""
    try:
        act()
    except Invalid as error:
        raise Invalid(f"{name}: {error.message}") from error


def _check(name: str, value, kind) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise Invalid(f"{name} is {value!r}; it is one of {', '.join(get_args(kind))}.")
    elif kind is int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Invalid(f"{name} is {value!r}; it is a whole number.")
        if abs(value) > MOST_WHOLE:
            raise Invalid(f"{name} is {_short(value)}; it is at most {MOST_WHOLE:,}.")
    elif kind is float and not _is_number(value):
        raise Invalid(f"{name} is {_short(value)}; it is a number.")


def _is_number(value) -> bool:
    """Whether it is one that a record can keep: neither infinite nor, as JSON allows, beyond all floats."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def _short(value) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:60]}…"
