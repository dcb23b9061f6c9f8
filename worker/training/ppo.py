"""PPO against a reward model by TRL's PPOTrainer, with a penalty for the distance from the policy that it begins with.

TRL's trainer begins at the beginning whenever it is called, so it is called for some updates at a time, `save_steps`,
each time with a seed and prompts that hang on the run's seed and the number of the update alone. What is written down
between two calls is all that there is, so that a run which goes on ends as one that was never cut short.
"""

import random
import shutil
from functools import lru_cache

import datasets
import torch
import transformers

from annotate.errors import Invalid
from annotate.recipes import PPO
from worker.training import rollouts
from worker.training.players import Players, Prompt, prompts_of
from worker.training.rollouts import PPOConfig, PPOTrainer
from worker.training.work import Work

TRAINING, COMPARING, SAVING = "Training", "Comparing before and after", "Writing the model"
STATE = "state.pt"
COMPARED = 64
"""Prompts to which the policy answers before and after."""
SHOWN = 6
"""Of these, so many are kept with both answers."""
CHARACTERS = 2000
"""So much of a text is kept."""


class TooFar(Exception):
    """The policy is farther from its beginning than it may be."""


def train(work: Work) -> dict:
    """Train the policy on the prompts of the split train against the run's reward model; leaves it in `work.made`.

    Returns what it answers before and after to the same prompts, and what that is worth.
    """
    players = Players(work)
    found, too_long = prompts_of(work, players, "train")
    if not found:
        raise Invalid(
            f"No prompt of the split train leaves room for {work.options.max_new_tokens} tokens of an answer within "
            f"{players.most}: raise max_tokens."
        )
    unseen, _ = prompts_of(work, players, "validation")
    learning = Learning(work, players, [prompt.ids for prompt in found])
    far = learning.run()
    metrics = _compared(work, players, unseen or found)
    if not far and 0 < work.options.max_kl < metrics["after"]["kl"]:
        far = True
        learning.go_back(learning.total - 1)
        metrics = _compared(work, players, unseen or found)
    work.tell(SAVING, 0)
    players.save(work.made)
    told = {
        "updates": learning.done,
        "episodes": learning.done * work.options.batch_size,
        "prompts": len(found),
        "too_long": too_long,
        "ended_by": "max_kl" if far else "episodes",
        "compared_on": "validation" if unseen else "train",
    }
    return told | metrics


class Learning:
    """The training itself, some updates at a time."""

    def __init__(self, work: Work, players: Players, prompts: list[list[int]]):
        self._work, self._players, self._prompts = work, players, prompts
        options = work.options
        self.total = -(-options.episodes // options.batch_size)
        self.done = 0
        self._parameters = players.learning()
        self._optimizer = torch.optim.AdamW(self._parameters.values(), lr=options.learning_rate, weight_decay=0.0)
        self._schedule = transformers.get_scheduler(
            "cosine", self._optimizer, int(options.warm_up * self.total), self.total
        )
        self._measuring = Measuring(work, self._parameters, players.reward)
        self._trainer = self._made_trainer()
        self._go_back_to_checkpoint()

    def run(self) -> bool:
        """Train to the end, or until the policy is too far from its beginning; whether that was so."""
        while self.done < self.total:
            updates = min(self._work.options.save_steps, self.total - self.done)
            # Of which the update hangs: nothing of before but what the checkpoint holds.
            transformers.set_seed(_seed(self._work.options.seed, self.done))
            batches = [self._batch(self.done + number) for number in range(updates)]
            self._measuring.begin(self.done, self.total, batches)
            self._trainer.dataloader = batches
            self._trainer.args.num_total_batches = updates
            try:
                self._trainer.train()
            except TooFar:
                # It was too far when this update began, and near enough when the one before did.
                self.go_back(max(self._measuring.step - 2, 0))
                return True
            self.done += updates
            self._keep()
        return False

    def go_back(self, updates: int) -> None:
        """Let the policy be what it was when it was last known to be near enough, after so many updates."""
        self.done = updates
        with torch.no_grad():
            for name, saved in self._measuring.good.items():
                self._parameters[name].copy_(saved)

    def _made_trainer(self) -> PPOTrainer:
        options, players = self._work.options, self._players
        # The trainer wants a set of prompts of its own, though it is given batches.
        stand_in = datasets.Dataset.from_dict({"input_ids": self._prompts[:1] * options.batch_size})
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            # Half precision would let what is sampled and what is learnt from differ by more than a step changes.
            torch.set_float32_matmul_precision("high")
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=str(self._work.checkpoints),
                seed=options.seed,
                learning_rate=options.learning_rate,
                per_device_train_batch_size=options.at_once,
                gradient_accumulation_steps=options.batch_size // options.at_once,
                num_mini_batches=options.mini_batches,
                num_ppo_epochs=options.ppo_epochs,
                total_episodes=self.total * options.batch_size,
                local_rollout_forward_batch_size=_without_gradients(options),
                response_length=options.max_new_tokens,
                stop_token_id=players.tokenizer.eos_token_id,
                temperature=options.temperature,
                missing_eos_penalty=options.missing_end or None,
                kl_coef=options.kl_coef,
                num_sample_generations=0,
                save_strategy="no",
                logging_steps=1,
                report_to="none",
                disable_tqdm=True,
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=not (on_gpu or torch.backends.mps.is_available()),
            ),
            processing_class=players.tokenizer,
            model=players.policy,
            ref_model=players.reference,
            reward_model=players.reward,
            value_model=players.value,
            train_dataset=stand_in,
            eval_dataset=stand_in,
            optimizers=(self._optimizer, self._schedule),
            callbacks=[self._measuring],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.accelerator.print = lambda *_: None
        # TRL counts the parts of a whole batch, so that its small batches would never step by themselves.
        trainer.accelerator.gradient_accumulation_steps = options.batch_size // options.at_once // options.mini_batches
        return trainer

    def _batch(self, update: int) -> dict[str, torch.Tensor]:
        """The prompts of an update: each comes once before one comes again."""
        size, count = self._work.options.batch_size, len(self._prompts)
        chosen = []
        for place in range(update * size, (update + 1) * size):
            again, number = divmod(place, count)
            chosen.append(self._prompts[_shuffled(count, self._work.options.seed, again)[number]])
        return {"input_ids": rollouts.padded(chosen, self._players.tokenizer.pad_token_id)}

    def _keep(self) -> None:
        """Write a checkpoint, whole, and forget the one before."""
        place = self._work.checkpoints / f"checkpoint-{self.done}"
        place.mkdir(parents=True, exist_ok=True)
        state = {
            "parameters": {name: parameter.detach() for name, parameter in self._parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "good": self._measuring.good,
            "entropy": self._measuring.entropy,
        }
        with (place / STATE).open("wb") as file:
            torch.save(state, file)
        self._work.is_whole(place)
        for other in self._work.checkpoints.glob("checkpoint-*"):
            if other != place:
                shutil.rmtree(other)

    def _go_back_to_checkpoint(self) -> None:
        place = self._work.last_checkpoint()
        if place:
            state = torch.load(place / STATE, map_location="cpu", weights_only=True)
            with torch.no_grad():
                for name, saved in state["parameters"].items():
                    self._parameters[name].copy_(saved)
            self._optimizer.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])
            self._measuring.good, self._measuring.entropy = state["good"], state["entropy"]
            self.done = int(place.name.partition("-")[2])
        self._measuring.remember()


class Measuring(transformers.TrainerCallback):
    """Measures each update, and raises what ends the run, from within TRL's loop."""

    def __init__(self, work: Work, parameters: dict[str, torch.nn.Parameter], reward: torch.nn.Module):
        self._work, self._parameters = work, parameters
        self.good: dict[str, torch.Tensor] | None = None
        """The policy when it was last measured to be near enough; kept where `max_kl` says how near that is."""
        self.entropy: float | None = None
        """Of the first update."""
        self.step = 0
        self._last = None
        self._seen: list[int] = []
        # TRL does not tell how long answers are, but shows them to the reward model.
        getattr(reward, reward.base_model_prefix).register_forward_pre_hook(self._see, with_kwargs=True)

    def begin(self, done: int, total: int, batches: list[dict[str, torch.Tensor]]) -> None:
        """A call of the trainer begins after so many updates of all."""
        self._done, self._total, self._batches = done, total, batches
        self._seen.clear()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep what was measured. Raises Invalid where training has diverged or collapsed, TooFar."""
        if "objective/kl" not in (logs or {}):
            return
        options = self._work.options
        self.step = self._done + state.global_step
        before = self._batches[state.global_step - 1]["input_ids"]
        before = (before != kwargs["processing_class"].pad_token_id).sum().item() / len(before)
        length = sum(self._seen) / len(self._seen) - before
        self._seen.clear()
        ended = logs["val/num_eos_tokens"] / options.batch_size
        values = {
            # TRL's has the penalty for no end in it.
            "reward": logs["objective/scores"] + options.missing_end * (1 - ended),
            "reward_less_penalties": logs["objective/rlhf_reward"],
            "kl": logs["objective/kl"],
            "entropy": logs["objective/entropy"] / max(length, 1.0),
            "length": length,
            "ended": ended,
            # Of TRL's places for these only one in so many is filled.
            "policy_loss": logs["loss/policy_avg"] * options.mini_batches,
            "value_loss": logs["loss/value_avg"] * options.mini_batches,
            "clip_fraction": logs["policy/clipfrac_avg"] * options.mini_batches,
            "learning_rate": logs["lr"],
        }
        self._work.measure(self.step, values)
        self._work.tell(TRAINING, self.step, self._total, values)
        self.entropy = self.entropy if self.step > 1 else values["entropy"]
        check_not_collapsed(self.step, values, self.entropy)
        if options.max_kl:
            # Of the policy as it wrote this, before it learnt from it; at first it is where it begins.
            if self.step > 1 and values["kl"] > options.max_kl:
                raise TooFar
            self.good = self._last

    def on_step_end(self, args, state, control, **kwargs):
        """Look at what came of an update. Raises Invalid where it is no number, jobs.Stopped or jobs.Lost."""
        step = self._done + state.global_step
        if not all(torch.isfinite(parameter).all() for parameter in self._parameters.values()):
            raise Invalid(f"Training diverged: weights are no numbers after update {step}. Try a lower learning_rate.")
        self._work.tell(TRAINING, step, self._total)
        self.remember()

    def remember(self) -> None:
        """Keep the policy as it is now, should it turn out to be the last that was near enough."""
        if self._work.options.max_kl:
            self._last = {
                name: parameter.detach().to("cpu", copy=True)
                for name, parameter in self._parameters.items()
                if name.startswith("policy.")
            }

    def _see(self, module, args, kwargs):
        self._seen += kwargs["attention_mask"].sum(1).tolist()


def check_not_collapsed(step: int, values: dict[str, float], entropy: float) -> None:
    """Raise Invalid where a policy writes nothing any more, or always the same; it had that `entropy` at first."""
    if values["length"] <= 1:
        told = "writes nothing any more"
    elif values["entropy"] < entropy / 100:
        told = "writes always the same"
    else:
        return
    raise Invalid(
        f"The policy has collapsed: it {told} at update {step}. A higher kl_coef or a lower learning_rate may help."
    )


def _compared(work: Work, players: Players, prompts: list[Prompt]) -> dict:
    """What the policy answered before training and answers now, to the same prompts under the same seed."""
    chosen = random.Random(0).sample(sorted(prompts), min(len(prompts), COMPARED))  # noqa: S311
    how = rollouts.Sampling(
        max_new_tokens=work.options.max_new_tokens,
        temperature=work.options.temperature,
        at_once=_without_gradients(work.options),
        seed=work.options.seed,
    )

    def answers(writer: str, done: int) -> list[rollouts.Answer]:
        return rollouts.answers(
            players,
            writer,
            [prompt.ids for prompt in chosen],
            how,
            lambda more: work.tell(COMPARING, done + more, 2 * len(chosen)),
        )

    before, after = answers("reference", 0), answers("policy", len(chosen))
    gains = [late.reward - early.reward for early, late in zip(before, after, strict=True)]
    told = {name: rollouts.figures(found) for name, found in (("before", before), ("after", after))}
    return told | {
        "reward_gain": sum(gains) / len(gains),
        "reward_gain_error": rollouts.error(gains),
        "kl": told["after"]["kl"],
        "samples": [
            {
                "prompt": _shown(prompt.text),
                "before": _shown(early.text),
                "after": _shown(late.text),
                "reward_before": early.reward,
                "reward_after": late.reward,
            }
            for prompt, early, late in list(zip(chosen, before, after, strict=True))[:SHOWN]
        ],
    }


def _without_gradients(options: PPO) -> int:
    """How many texts go through a model together where nothing is learnt, which needs less memory."""
    return min(options.batch_size, 4 * options.at_once)


def _seed(seed: int, update: int) -> int:
    """A seed of its own for the updates from this one on."""
    return random.Random(f"{seed} {update}").getrandbits(32)  # noqa: S311


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, again: int) -> list[int]:
    """The order in which prompts come for the n-th time."""
    order = list(range(count))
    random.Random(f"prompts {seed} {again}").shuffle(order)  # noqa: S311
    return order


def _shown(text: str) -> str:
    """As much of a text as is kept; the record takes no NUL, which an untaught model writes now and then."""
    return text.replace("\0", "")[:CHARACTERS]
