"""Trainings: asked for, measured, and registered with what came of them. What trains is in `worker.training`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import IntegrityError, connection, transaction

from annotate import jobs, recipes
from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Export, Policy, TrainingPoint, TrainingRun, User

Kind = TrainingRun.Kind

LEARNS_FROM: dict[str, dict[str, tuple[str, ...]]] = {
    Kind.SFT: {"demonstrations": ("messages", "prompt_completion")},
    Kind.REWARD: {"comparisons": ("ranked",), "demonstrations": ("messages", "prompt_completion")},
    Kind.DPO: {"comparisons": ("ranked", "preference", "preference_implicit")},
    Kind.PPO: {"prompts": ("prompt_only",), "comparisons": ("prompt_only",)},
}
"""By kind of training, of what it takes exports, and in which formats."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What one may call what comes of a training: it is also the name of a folder in that of models."""


@transaction.atomic
def prepare(
    *,
    kind: str,
    exports: Sequence[Export],
    base: Policy,
    options: dict,
    reward: TrainingRun | None = None,
    name: str = "",
    background: bool = False,
    created_by: User | None = None,
) -> TrainingRun:
    """Ask for a training; a worker runs it where it is in the `background`.

    `options` are those of `recipes.OPTIONS`, `name` what the policy that comes of it is to be called. Raises Invalid
    where one cannot learn from these exports, begin with this base or optimise this reward.
    """
    made = recipes.parse(kind, options)
    _check_exports(kind, exports)
    check_base(base)
    if kind == Kind.PPO:
        _check_reward(reward)
    if name:
        _check_name(name)
    run = TrainingRun.objects.create(
        project=exports[0].project,
        kind=kind,
        base=base,
        reward=reward,
        options=recipes.as_json(made) | {"name": name},
        background=background,
        created_by=created_by,
    )
    run.exports.set(exports)
    jobs.ring(run)
    return run


def _check_exports(kind: str, exports: Sequence[Export]) -> None:
    if not exports:
        raise Invalid("Name at least one export to learn from; `manage.py exports` lists them.")
    for export in exports:
        formats = LEARNS_FROM[kind].get(export.what, ())
        if export.format not in formats:
            wanted = " or ".join(f"{what} as {' or '.join(of)}" for what, of in LEARNS_FROM[kind].items())
            raise Invalid(f"Export {export.pk} is {export.what} as {export.format}; {kind} learns from {wanted}.")
        if export.state != Export.State.DONE:
            raise Invalid(f"Export {export.pk} is {export.state}; one learns from what is done.")
        if not export.manifest["counts"]["by_split"].get("train", {}).get("rows"):
            raise Invalid(f"Export {export.pk} has no line in the split train, so that nothing can be learnt from it.")
        if export.project_id != exports[0].project_id:
            raise Invalid("All exports of one training are of one project: splits of another may leak into it.")
    if kind == Kind.REWARD and not any(export.what == "comparisons" for export in exports):
        raise Invalid("Demonstrations only say where 0 is; a reward model learns from comparisons as ranked.")


def check_base(base: Policy) -> None:
    """Raises Invalid where a training cannot begin with this policy."""
    if base.engine != Policy.Engine.TRANSFORMERS:
        raise Invalid(f"Policy {base.name} is on a server; only one that workers load themselves can be trained.")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Invalid(
            f"{name[:120]!r} is no name for a model: it has 1 to 100 letters, digits, dots, dashes and underscores, "
            "and begins with a letter or a digit."
        )
    if Policy.objects.filter(name=name).exists():
        raise Invalid(f"There is a policy {name} already.")


def _check_reward(reward: TrainingRun | None) -> None:
    if reward is None:
        raise Invalid("PPO needs the run of a reward model.")
    if reward.kind != Kind.REWARD:
        raise Invalid(f"Run {reward.pk} is {reward.kind}; PPO needs one of kind reward.")
    if reward.state != TrainingRun.State.DONE:
        raise Invalid(f"Run {reward.pk} is {reward.state}; PPO needs a reward model that is done.")


def named(number: str) -> TrainingRun:
    """The run with this number. Raises NotFound."""
    run = TrainingRun.objects.filter(pk=int(number)).first() if number.isdecimal() and len(number) < 19 else None
    if run is None:
        raise NotFound(f"There is no training run {number}.")
    return run


def policy_named(name: str) -> Policy:
    """The policy of this name. Raises NotFound with the names that there are."""
    policy = Policy.objects.filter(name=name).first()
    if policy is None:
        names = ", ".join(Policy.objects.order_by("-id").values_list("name", flat=True)[:20])
        raise NotFound(f"There is no policy {name}. Policies: {names or 'none yet'}.")
    return policy


def measure(*, run: TrainingRun, step: int, values: dict[str, float]) -> None:
    """Keep what was measured at a step, beside what else was, in place of what was called the same: an attempt that was
    cut short may have measured it."""
    point, made = TrainingPoint.objects.get_or_create(run=run, step=step, defaults={"values": values})
    if not made:
        point.values |= values
        point.save(update_fields=["values", "created_at"])


MOST_POINTS = 200
"""So many points of a measure a curve has; more than there is room for would only be slower to draw."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measure over some steps next to each other, of which `step` is the last: its mean, lowest and highest."""

    place: int
    step: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curves:
    """What was measured, by name in the order of steps. All points of one place are of the same steps, `width` many."""

    width: int
    points: dict[str, list[Point]]


def curves(run: TrainingRun) -> Curves:
    """What was measured as it went, thinned out to MOST_POINTS of each measure, in one query however long it was."""
    with connection.cursor() as cursor:
        cursor.execute(CURVES, {"run": run.pk, "most": MOST_POINTS})
        # In order here: where the database did it, it would first sort every single measure.
        rows = sorted(cursor.fetchall())
    points: dict[str, list[Point]] = {}
    for name, _, *values in rows:
        points.setdefault(name, []).append(Point(*values))
    return Curves(width=rows[0][1] if rows else 1, points=points)


CURVES = """
    WITH whole AS (
        SELECT min(step) AS first, greatest(1, ceil((max(step) - min(step) + 1) / %(most)s::numeric))::int AS width
        FROM annotate_trainingpoint WHERE run_id = %(run)s
    ), one AS MATERIALIZED (
        SELECT measure.key, point.step, measure.value::float8 AS value
        FROM annotate_trainingpoint point CROSS JOIN LATERAL jsonb_each(point.values) measure
        WHERE point.run_id = %(run)s AND jsonb_typeof(measure.value) = 'number'
    )
    SELECT key, width, (step - first) / width AS place, max(step), avg(value), min(value), max(value)
    FROM one CROSS JOIN whole
    GROUP BY key, width, place
"""


def name_of_result(run: TrainingRun) -> str:
    """What the folder of a run's model is called, and the policy that serves it."""
    return run.options.get("name") or f"{run.project.slug}-{run.kind}-{run.pk}"


@transaction.atomic
def register(*, run: TrainingRun, token, location: str, digest: str, metrics: dict, versions: dict) -> Policy | None:
    """End a run with its model, and make that a policy where it is one, not active yet; None for a reward model.

    It is served as the one that it began with: otherwise the two could not be compared.

    Raises jobs.Lost where the run is not the caller's any more, Conflict where the policy's name was taken meanwhile.
    """
    made = {"location": location, "digest": digest, "metrics": metrics, "versions": versions}
    jobs.end(run, token=token, state=TrainingRun.State.DONE, **made)
    if run.kind == Kind.REWARD:
        return None
    try:
        with transaction.atomic():
            return Policy.objects.create(
                name=name_of_result(run),
                engine=Policy.Engine.TRANSFORMERS,
                location=location,
                quantisation=run.base.quantisation,
                thinking=run.base.thinking,
                parent=run.base,
                run=run,
                active=False,
            )
    except IntegrityError:
        raise Conflict(f"There is a policy {name_of_result(run)} already.") from None


def stop(run: TrainingRun) -> None:
    """Stop it: what it has learnt so far is kept for going on. Raises Conflict where it has ended."""
    jobs.ask_to_stop(run)


def go_on(run: TrainingRun) -> None:
    """Have a worker go on with what failed, was stopped or was interrupted. Raises Conflict."""
    if run.state == TrainingRun.State.DONE:
        raise Conflict("It is done, and a run that is done never changes.")
    jobs.go_on_in_worker(run)


def take_from_worker(run: TrainingRun) -> None:
    """Let no worker go on with what failed or was stopped in one, so that the caller may."""
    ended = TrainingRun.objects.filter(pk=run.pk, state__in=[TrainingRun.State.FAILED, TrainingRun.State.STOPPED])
    ended.update(background=False)
    run.refresh_from_db()
