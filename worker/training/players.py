"""Who takes part in PPO: the policy, what it is kept near to, what rewards it and what foretells that; and the prompts,
as all of them read them."""

import copy
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from django.conf import settings

from annotate import prompts
from annotate.errors import Invalid
from annotate.models import Message
from annotate.recipes import PPO
from worker.training import conversations, models, scoring
from worker.training.work import Work

READING = "Reading prompts"


class Prompt(NamedTuple):
    """What a policy is given to answer."""

    text: str
    """The last message."""
    ids: list[int]


class Players:
    """The policy, what it is kept near to, the model that rewards it and the one that foretells the reward."""

    def __init__(self, work: Work):
        run, options = work.run, work.options
        # Adapters begin at random.
        transformers.set_seed(options.seed)
        self.lora = bool(options.lora_rank)
        model, self._tokenizer = models.load(run.base)
        self._as_it_was = (model.config.pad_token_id, model.generation_config)
        self.reward, theirs = scoring.with_zero(settings.BOTHSIDES_HOME / "models" / run.reward.location)
        self.tokenizer = copy.deepcopy(self._tokenizer)
        _check_alike(run, self.tokenizer, theirs)
        end = _end_of_turn(self.tokenizer)
        models.pad_apart(model, self.tokenizer, {end})
        # TRL takes what the tokenizer calls the end for the end of an answer.
        self.tokenizer.eos_token = self.tokenizer.convert_ids_to_tokens(end)
        self.tokenizer.padding_side = "left"
        # Whatever else the policy is served with would be no part of what PPO takes it for.
        model.generation_config = transformers.GenerationConfig(
            eos_token_id=end, pad_token_id=self.tokenizer.pad_token_id
        )
        self.most = min(
            options.max_tokens,
            *(getattr(one.config, "max_position_embeddings", options.max_tokens) for one in (model, self.reward)),
        )
        self.value = _value_model(self.reward, options)
        self.reward.requires_grad_(False).eval()
        self.reference = None if self.lora else copy.deepcopy(model).requires_grad_(False).eval()
        self.policy = models.with_lora(model, options, "CAUSAL_LM")

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return next(self.policy.parameters()).device

    def reads(self, who: str) -> AbstractContextManager[torch.nn.Module]:
        """The policy or its reference, while the block runs: with adapters that is the policy without them."""
        return self._without_adapters() if who == "reference" else nullcontext(self.policy)

    @contextmanager
    def _without_adapters(self) -> Iterator[torch.nn.Module]:
        with self.policy.disable_adapter() if self.lora else nullcontext():
            yield self.policy if self.lora else self.reference

    def learning(self) -> dict[str, torch.nn.Parameter]:
        """All that training changes, by name."""
        both = {"policy": self.policy, "value": self.value}
        return {
            f"{name}.{inner}": parameter
            for name, model in both.items()
            for inner, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    def save(self, folder: Path) -> None:
        """Write the policy as one that is served."""
        policy = self.policy.merge_and_unload() if self.lora else self.policy
        policy.config.pad_token_id, policy.generation_config = self._as_it_was
        shutil.rmtree(folder, ignore_errors=True)
        models.save(policy, self._tokenizer, folder)


def _check_alike(run, tokenizer, theirs) -> None:
    """Refuse a reward model that reads otherwise than the policy writes."""
    said, answer = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "Who?"}], "They."
    alike = tokenizer.get_vocab() == theirs.get_vocab() and conversations.answered(
        tokenizer, said, answer
    ) == conversations.answered(theirs, said, answer)
    if not alike:
        raise Invalid(
            f"Policy {run.base.name} and the reward model of run {run.reward_id} have other tokenizers or chat "
            "templates; train the reward model from a policy of the same family."
        )


def _end_of_turn(tokenizer) -> int:
    """The token with which an answer ends. Raises Invalid where the template has none."""
    said = [{"role": "user", "content": "Who?"}]
    ends = {conversations.answered(tokenizer, said, text)[-1] for text in ("They", "1", "!")}
    if len(ends) > 1:
        raise Invalid("The model's chat template ends no turn, so that PPO would not know where an answer ends.")
    return ends.pop()


def _value_model(reward: torch.nn.Module, options: PPO) -> torch.nn.Module:
    """The model that foretells the reward, which begins as the reward model, with adapters where the policy has."""
    value = copy.deepcopy(reward)
    if options.lora_rank:
        import peft

        config = peft.LoraConfig(
            r=options.lora_rank, lora_alpha=2 * options.lora_rank, target_modules=models.LORA_TARGETS
        )
        # In its place: TRL looks for the parts of a plain model.
        getattr(value, value.base_model_prefix).requires_grad_(False)
        peft.inject_adapter_in_model(config, getattr(value, value.base_model_prefix))
    value.score.requires_grad_(True)
    return value


def prompts_of(work: Work, players: Players, split: str) -> tuple[list[Prompt], int]:
    """The prompts of a split, each once, and how many were too long to be answered."""
    found: dict[tuple[int, ...], Prompt] = {}
    too_long = 0
    system = work.run.project.system_message
    for number, row in enumerate(work.rows(split)):
        work.tell(READING, number + 1)
        said = [Message(role=one["role"], text=one["content"]) for one in row["prompt"]]
        messages = prompts.render_for_sampling(said, system=system)
        ids = conversations.opened(players.tokenizer, messages)
        if len(ids) + work.options.max_new_tokens > players.most:
            too_long += 1
            continue
        found[tuple(ids)] = Prompt(messages[-1]["content"], ids)
    return list(found.values()), too_long
