"""What connects a trainer of transformers with a run: it tells how far it is, hears that it must stop, and says of
checkpoints when they are whole."""

from pathlib import Path

import transformers

from worker.training.work import Work

TRAINING = "Training"

NAMES = {
    "grad_norm": "gradient_norm",
    "eval_loss": "validation_loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "eval_rewards/accuracies": "validation_accuracy",
    "eval_rewards/margins": "validation_margin",
}
"""What transformers and TRL call otherwise than we do."""
LEFT_OUT = {"epoch", "total_flos", "num_tokens"}


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
            NAMES.get(name, name): float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float) and name not in LEFT_OUT and not name.startswith(("train_", "eval_run"))
        }
        if values:
            self._work.measure(state.global_step, values)
            self._work.tell(TRAINING, state.global_step, state.max_steps, values)

    def on_save(self, args, state, control, **kwargs):
        """Say that the checkpoint is whole."""
        self._work.is_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def run_to_the_end(trainer: transformers.Trainer, work: Work):
    """Train, from the last checkpoint where there is one, and return what the trainer says of it."""
    # It would print every step a second time.
    trainer.remove_callback(transformers.PrinterCallback)
    checkpoint = work.last_checkpoint()
    return trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
