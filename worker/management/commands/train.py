"""`manage.py train`: train a policy or a reward model from exports."""

import dataclasses
from typing import Literal, get_args, get_origin

from annotate import exports, recipes, training
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand
from annotate.models import TrainingRun
from worker.management.progress import Bar, figures
from worker.training import running

FLAGS = {"ppo": ("prompts", "policy", "reward")}
"""What of the record a kind takes; all others LEARNT."""
LEARNT = ("export", "base")


class Command(RefusingCommand):
    help = (
        "Train from exports: a policy, or a reward model. A worker that listens to the queue `training` does it, or "
        "with --foreground this process. It goes on from its last checkpoint when it was cut short, and ends as a "
        "registered policy, not active yet, or as a reward model. docs/training.md says how each kind trains."
    )
    example = """
    manage.py train sft --export 12 --base SmolLM2-135M-Instruct --foreground
    manage.py train reward --export 13 12 --base demo-sft-1
    manage.py train dpo --export 13 --base demo-sft-1
    manage.py train ppo --prompts 14 --policy demo-sft-1 --reward 2
    manage.py train --go-on 4 --foreground
    """

    def add_arguments(self, parser):
        kinds = ", ".join(running.TRAINERS)
        parser.add_argument("kind", nargs="?", choices=list(running.TRAINERS), metavar="KIND", help=kinds)
        parser.add_argument("--export", nargs="+", metavar="E", help="numbers or digests of what it learns from")
        parser.add_argument("--base", metavar="POLICY", help="name of the policy that it begins with")
        parser.add_argument("--prompts", nargs="+", metavar="E", help="of ppo: numbers or digests of what it answers")
        parser.add_argument("--policy", help="of ppo: name of the policy that it begins with, and is kept near to")
        parser.add_argument("--reward", metavar="RUN", help="of ppo: number of the run that made its reward model")
        parser.add_argument("--name", default="", help="of the policy that comes of it")
        parser.add_argument("--foreground", action="store_true", help="train in this process")
        parser.add_argument(
            "--go-on",
            metavar="RUN",
            help="go on with a run that waits or was cut short, in this process; with --foreground also with one that "
            "failed or was stopped in a worker",
        )
        group = parser.add_argument_group("options, with their defaults by kind")
        for name, told in _options().items():
            group.add_argument(f"--{name.replace('_', '-')}", dest=name, **told)

    def handle(self, *args, **options):
        if options["go_on"]:
            given = (*LEARNT, *FLAGS["ppo"], "kind", "name")
            if any(options[flag] for flag in given) or any(options[name] is not None for name in _options()):
                raise Invalid("--go-on takes a run as it was asked for; leave all else out.")
            run = training.named(options["go_on"])
            if options["foreground"]:
                training.take_from_worker(run)
        else:
            run = self._asked(options)
            if not options["foreground"]:
                self.stdout.write(f"run {run.pk} waits for a worker; manage.py train --go-on {run.pk} does it here")
                return
        with Bar() as bar:
            running.go_on(run, progress=bar.show)
        run.refresh_from_db()
        policy = getattr(run, "policy", None)
        self.stdout.write(figures(run.metrics))
        made = f"policy {policy.name}, not active yet" if policy else "reward model"
        self.stdout.write(f"run {run.pk}, {made}, models/{run.location}, sha256 {run.digest}")

    def _asked(self, options: dict) -> TrainingRun:
        kind = options["kind"]
        if not kind:
            raise Invalid(f"Name what to train: {', '.join(running.TRAINERS)}.")
        flags = FLAGS.get(kind, LEARNT)
        wrong = [flag for flag in LEARNT + FLAGS["ppo"] if options[flag] and flag not in flags]
        taken = f"--{', --'.join(flags[:-1])} and --{flags[-1]}"
        if wrong:
            raise Invalid(f"{kind} takes {taken}, not --{wrong[0]}.")
        if not all(options[flag] for flag in flags):
            raise Invalid(f"Name what to train, {kind}, with its {taken}.")
        learnt, base, *reward = (options[flag] for flag in flags)
        return training.prepare(
            kind=kind,
            exports=[exports.named(text) for text in learnt],
            base=training.policy_named(base),
            reward=training.named(reward[0]) if reward else None,
            options={name: options[name] for name in _options() if options[name] is not None},
            name=options["name"],
            background=not options["foreground"],
        )


def _options() -> dict[str, dict]:
    """Of every option of any kind what argparse wants to know."""
    found: dict[str, dict] = {}
    for kind in running.TRAINERS:
        for field in dataclasses.fields(recipes.OPTIONS[kind]):
            told = found.setdefault(field.name, {"help": ""})
            if get_origin(field.type) is Literal:
                told["choices"] = get_args(field.type)
            else:
                told["type"] = field.type
            told["help"] += f"{', ' if told['help'] else ''}{kind} {field.default}"
    return found
