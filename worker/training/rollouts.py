"""What a policy writes to prompts, and what a reward model gives it, all of it in tokens."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
import transformers

with warnings.catch_warnings():
    # It says that it may change; which version is installed is pinned.
    warnings.simplefilter("ignore")
    from trl.experimental import utils
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
from trl.trainer.utils import selective_log_softmax

from worker.training.players import Players

__all__ = ["Answer", "PPOConfig", "PPOTrainer", "Sampling", "answers", "error", "figures", "padded"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One text of a policy."""

    text: str
    reward: float
    kl: float
    """Of the policy from its reference, over the whole text in nats; an estimate, which may be below 0."""
    tokens: int
    ended: bool
    """Whether it ended by itself."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a policy writes."""

    max_new_tokens: int
    temperature: float
    at_once: int
    seed: int


@torch.no_grad()
def answers(
    players: Players, writer: str, prompts: Sequence[list[int]], how: Sampling, told: Callable[[int], None]
) -> list[Answer]:
    """What the writer, `policy` or `reference`, answers to prompts, always the same under the same seed.

    `told` hears how many are done.
    """
    transformers.set_seed(how.seed)
    config = transformers.GenerationConfig(
        max_new_tokens=how.max_new_tokens, do_sample=True, temperature=how.temperature, top_k=0, top_p=1.0
    )
    found: list[Answer] = []
    tokenizer = players.tokenizer
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    for first in range(0, len(prompts), how.at_once):
        queries = padded(prompts[first : first + how.at_once], pad).to(players.device)
        begin = queries.shape[1]
        with players.reads(writer) as model:
            both, logits = ppo_trainer.batch_generation(model, queries, len(queries), pad, config)
        written = both[:, begin:]
        with players.reads("reference") as model:
            beside = ppo_trainer.forward(model, both, pad).logits[:, begin - 1 : -1]
        apart = selective_log_softmax(logits, written) - selective_log_softmax(beside / how.temperature, written)
        _, rewards, _ = utils.get_reward(players.reward, both, pad, begin)
        mask = written != pad
        for ids, there, kl, value in zip(written, mask, apart * mask, rewards, strict=True):
            found.append(
                Answer(
                    text=tokenizer.decode(ids[there], skip_special_tokens=True),
                    reward=value.item(),
                    kl=kl.sum().item(),
                    tokens=int(there.sum()),
                    ended=bool((ids == end).any()),
                )
            )
        told(len(found))
    return found


def padded(prompts: Sequence[list[int]], pad: int) -> torch.Tensor:
    """Prompts as a batch, padded before."""
    longest = max(map(len, prompts))
    return torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])


def figures(found: Sequence[Answer]) -> dict[str, float]:
    """What is true of answers on average; `reward_error` is the standard error of the mean."""
    rewards = [one.reward for one in found]
    return {
        "reward": fmean(rewards),
        "reward_error": error(rewards),
        "kl": fmean(one.kl for one in found),
        "length": fmean(one.tokens for one in found),
        "ended": fmean(one.ended for one in found),
    }


def error(values: Sequence[float]) -> float | None:
    """The standard error of a mean; None of a single value."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
