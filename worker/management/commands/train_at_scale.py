"""`manage.py train_at_scale`: have a cluster train what outgrows one machine, and bring it back."""

from pathlib import Path

from annotate import exports, training
from annotate.errors import Invalid
from annotate.management.refusal import RefusingCommand

DATA = {"sft": "demonstrations", "reward": "comparisons", "ppo": "prompts"}
"""By kind the flag of what it learns from."""


class Command(RefusingCommand):
    help = (
        "Write the scripts, with the data, by which OpenRLHF (Ray, vLLM, DeepSpeed) trains from the same exports and "
        "reward model on many GPUs; with --bring-back register the policy that came of it. docs/scale.md has the "
        "recipe."
    )
    example = """
    manage.py train_at_scale cluster --prompts 14 --policy big-sft-1 --reward 2 --nodes 2 --gpus 8
    manage.py train_at_scale cluster/made/ppo --bring-back ppo --prompts 14 --policy big-sft-1 --reward 2 --name big-2
    """

    def add_arguments(self, parser):
        parser.add_argument("folder", type=Path, help="to be written; with --bring-back that of the model")
        parser.add_argument("--demonstrations", metavar="E", help="export that SFT learns from")
        parser.add_argument("--comparisons", metavar="E", help="export of pairs that a reward model learns from")
        parser.add_argument("--prompts", metavar="E", help="export that PPO answers")
        parser.add_argument("--policy", required=True, help="name of the policy that training begins with")
        parser.add_argument("--reward", metavar="RUN", help="of PPO: the run that made the reward model")
        parser.add_argument("--nodes", type=int, default=1, help="machines (1)")
        parser.add_argument("--gpus", type=int, default=8, help="GPUs of each (8)")
        parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs an engine of vLLM is spread over (1)")
        parser.add_argument("--bring-back", choices=["sft", "ppo"], help="register what came of it, of this kind")
        parser.add_argument("--name", default="", help="of the policy that is brought back")
        parser.add_argument("--trained-by", help="kept with what is brought back (OpenRLHF, with its version)")

    def handle(self, *args, **options):
        # It brings torch with it, for which --help need not wait.
        from worker.training import scale

        given = {kind: exports.named(options[flag]) for kind, flag in DATA.items() if options[flag]}
        what = {
            "folder": options["folder"],
            "reward": training.named(options["reward"]) if options["reward"] else None,
        }
        policy, kind = training.policy_named(options["policy"]), options["bring_back"]
        if not kind:
            machines = scale.Machines(
                nodes=options["nodes"], gpus=options["gpus"], tensor_parallel=options["tensor_parallel"]
            )
            for name in scale.write(policy=policy, exports=given, machines=machines, **what):
                self.stdout.write(str(options["folder"] / name))
            return
        if set(given) != {kind}:
            raise Invalid(f"Name with --{DATA[kind]}, and nothing else, what {kind} learnt from.")
        run = scale.bring_back(
            kind=kind,
            exports=list(given.values()),
            base=policy,
            name=options["name"],
            trained_by=options["trained_by"] or f"OpenRLHF {scale.OPENRLHF}",
            **what,
        )
        self.stdout.write(f"run {run.pk}, policy {run.policy.name}, not active yet, models/{run.location}")
