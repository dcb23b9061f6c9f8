"""What connects a trainer of transformers with a run: it tells how far it is, hears that it must stop, and says of
checkpoints when they are whole."""

from pathlib import Path

import transformers

from worker.training.work import Work

TRAINING = "Training"

NAMES = {"grad_norm": "gradient_norm", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
"""What transformers and TRL call otherwise than we do."""
LEFT_OUT = {"epoch", "total_flos", "num_tokens"}
OF_SPEED = ("train_", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


class Watching(transformers.TrainerCallback):
    """Measures at every step and raises what ends the run, from within the trainer's loop."""

    def __init__(self, work: Work):
        self._work = work

    def on_step_end(self, args, state, control, **kwargs):
        """Tell how far it is. Raises jobs.Stopped or jobs.Lost."""
        self._work.tell(TRAINING, state.global_step, state.max_steps)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep what was measured. Raises Invalid where training has diverged."""
        values = {
            _named(name): float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
            and name.removeprefix("eval_") not in LEFT_OUT
            and not name.startswith(OF_SPEED)
        }
        if values:
            self._work.measure(state.global_step, values)
            self._work.tell(TRAINING, state.global_step, state.max_steps, values)

    def on_save(self, args, state, control, **kwargs):
        """Say that the checkpoint is whole."""
        self._work.is_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _named(name: str) -> str:
    """What a measure is called here; on the split validation the same as on train, with that before it."""
    of_train = name.removeprefix("eval_")
    told = NAMES.get(of_train, of_train)
    return told if of_train == name else f"validation_{told}"


def run_to_the_end(trainer: transformers.Trainer, work: Work) -> dict[str, float]:
    """Train, from the last checkpoint where there is one; the mean loss over all steps, and how many there were."""
    # It would print every step a second time.
    trainer.remove_callback(transformers.PrinterCallback)
    checkpoint = work.last_checkpoint()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # Its own mean is of the steps since the checkpoint, of which there may be none.
    losses = [logged["loss"] for logged in trainer.state.log_history if "loss" in logged]
    return {"train_loss": sum(losses) / len(losses), "steps": trainer.state.global_step}
