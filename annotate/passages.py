"""Passages: the way of a project from one round to the next, in steps that each happen once.

What a step makes is kept in the same transaction as the making, under the token of whoever runs the passage. So one
that was cut short goes on with the very export or training that it had begun. What runs one is
`worker.training.passage`.
"""

from django.db import IntegrityError, transaction

from annotate import iterations, jobs, policies, recipes, scores, training
from annotate.datasets import asking, filters, snapshots
from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import (
    Assignment,
    Export,
    GenerationRequest,
    Iteration,
    Passage,
    Policy,
    Project,
    ProjectPolicy,
    Ranking,
    TrainingRun,
    User,
)
from annotate.recipes import Recipe

State = Passage.State

CLOSE, EXPORT, OPEN = "close", "export", "open"
TOLD = {
    CLOSE: "Closing the round",
    EXPORT: "Exporting",
    "sft": "Training by SFT",
    "reward": "Training the reward model",
    "policy": "Training the policy",
    OPEN: "Opening the next round",
}
"""The steps in their order, with what is told of each."""


# Asking, and a person's yes -------------------------------------------------------------------------------------------


def recipe_of(given: dict) -> Recipe:
    """A project's recipe with defaults for what is not given.

    Raises Invalid, with the name of what is wrong, NotFound where it begins with a policy that there is not.
    """
    recipe = recipes.recipe(given)
    if recipe.begins_with:
        training.policy_named(recipe.begins_with)
    for name in recipes.NAMES:
        what = recipe.prompts_of if name == "prompts" else name
        try:
            if "iteration" in getattr(recipe, name):
                raise Invalid("leave iteration out; rounds says whether exports are of all rounds or of this one.")
            if getattr(recipe, name).get("split", "train") != "train":
                raise Invalid("leave split out; a training learns from train, and is measured on the others.")
            for mix in getattr(filters.parse(what, getattr(recipe, name)), "mix", ()):
                asking.export_of(mix)
        except (Invalid, NotFound) as error:
            raise Invalid(f"{name}: {error.message}") from error
    if recipe.rounds == "this" and recipe.prompts_of == "prompts" and recipe.policy == recipes.Kind.PPO:
        raise Invalid("prompts_of: prompts are of no round; with rounds this it is comparisons.")
    return recipe


@transaction.atomic
def prepare(
    *, project: Project, asks: bool = False, background: bool = False, created_by: User | None = None
) -> Passage:
    """Ask for the way from the open round to the next, by the project's recipe as it stands now.

    With `asks` it waits before every step for a person's yes. Raises Conflict where no round is open or another
    passage is under way; Invalid where the recipe is wrong, its policy cannot be trained or is switched off, or nothing
    was ranked yet.
    """
    recipe = recipe_of(project.recipe)
    iteration = Iteration.objects.filter(project=project, state=Iteration.State.OPEN).first()
    if iteration is None:
        raise Conflict(
            f"Project {project.slug} has no open iteration, so that there is none to end. Open one on the project's "
            "page in the admin site; from a round that was closed by hand `manage.py train` learns."
        )
    beginning = _begins_with(recipe, iteration)
    training.check_base(beginning)
    _check_last(recipe, beginning)
    # What else there is nothing to learn from shows when it is exported: a round that is closed stays closed.
    if "comparisons" in recipe.exports() and not Ranking.objects.filter(comparison__project=project).exists():
        raise Invalid(f"Nothing was ranked in project {project.slug} yet, so that there is nothing to learn from.")
    try:
        with transaction.atomic():
            passage = Passage.objects.create(
                project=project,
                iteration=iteration,
                recipe=project.recipe,
                asks=asks,
                background=background,
                created_by=created_by,
            )
    except IntegrityError:
        raise Conflict(f"Project {project.slug} is on its way to the next round already.") from None
    jobs.ring(passage)
    return passage


def current(project: Project) -> Passage | None:
    """The passage that has not opened its round yet; one in whose place a person has opened a round is over."""
    newest = project.iterations.order_by("-number").first()
    return Passage.objects.filter(iteration=newest).exclude(state=State.DONE).first() if newest else None


def named(number: str) -> Passage:
    """The passage with this number. Raises NotFound."""
    passage = Passage.objects.filter(pk=int(number)).first() if number.isdecimal() and len(number) < 19 else None
    if passage is None:
        raise NotFound(f"There is no passage {number}.")
    return passage


@transaction.atomic
def take_up(*, passage: Passage, background: bool = False) -> None:
    """Go on with one that failed or was stopped, by the project's recipe as it stands now.

    What is done stays. What failed is gone on with, or made anew where the recipe asks for it otherwise now. Raises
    Conflict for any other, Invalid where the recipe is wrong.
    """
    if (newest := current(passage.project)) is None or newest.pk != passage.pk:
        raise Conflict(f"{passage} is over: it is done, or another round was opened in its place.")
    recipe = recipe_of(passage.project.recipe)
    if background:
        jobs.go_on_in_worker(passage)
    else:
        jobs.put_back(passage)
    if passage.recipe != passage.project.recipe:
        passage.recipe = passage.project.recipe
        passage.steps = _what_stays(passage, recipe)
        passage.save(update_fields=["recipe", "steps"])


def _what_stays(passage: Passage, recipe: Recipe) -> dict:
    """What a passage has made and the recipe does not ask for otherwise now."""
    steps = {step: made for step, made in passage.steps.items() if "run" not in made or _run_is_done(made["run"])}
    asked = {
        name: number
        for name, number in steps.get(EXPORT, {}).items()
        if name in recipe.exports() and _is_asked_so(passage, recipe, name, Export.objects.get(pk=number))
    }
    return steps | {EXPORT: asked} if EXPORT in steps else steps


def _run_is_done(number: int) -> bool:
    return TrainingRun.objects.filter(pk=number, state=State.DONE).exists()


def _is_asked_so(passage: Passage, recipe: Recipe, name: str, export: Export) -> bool:
    return (export.what, export.format) == recipe.exports()[name] and export.filters == _filters_of(
        passage, recipe, name
    ).as_json()


def ask_from_now_on(passage: Passage) -> None:
    """Have one that nobody runs wait before every step that is left for a person's yes."""
    Passage.objects.filter(pk=passage.pk).exclude(state=State.DONE).update(asks=True)
    passage.asks = True


def waiting_for(passage: Passage) -> str | None:
    """The step for which it waits for a person's yes; None where it does not wait."""
    step = next_step(passage)
    waits = passage.state == State.WAITING and not passage.background and passage.asks
    return step if waits and step != passage.agreed_to else None


def agree(*, passage: Passage, step: str, background: bool = True) -> None:
    """Say yes to the step that it waits for, so that a worker goes on, or in the foreground the caller.

    Raises Conflict where it does not wait for this step.
    """
    with transaction.atomic():
        locked = Passage.objects.select_for_update().get(pk=passage.pk)
        if waiting_for(locked) != step:
            raise Conflict(f"{passage} does not wait for a yes to {step}.")
        Passage.objects.filter(pk=passage.pk).update(agreed_to=step, background=background, step="")
        passage.refresh_from_db()
        jobs.ring(passage)


@transaction.atomic
def reopen(*, project: Project) -> Iteration:
    """Give a passage up that has not got through, and open the next round with the policies that the project has.

    Raises Conflict where none stands still, Invalid as `iterations.open_next`.
    """
    passage = current(project)
    if passage is None:
        raise Conflict(f"Project {project.slug} has no passage that was not finished.")
    if passage.state == State.WAITING or jobs.was_lost(passage):
        jobs.ask_to_stop(passage)
    if passage.state == State.RUNNING:
        raise Conflict(f"{passage} is running; stop it first.")
    return iterations.open_next(project=project)


def open_by_hand(*, project: Project) -> Iteration:
    """Open the next round with the policies that the project has. A passage that stands still is given up for it.

    Raises Conflict where one is running or a round is open, Invalid as `iterations.open_next`.
    """
    return iterations.open_next(project=project) if current(project) is None else reopen(project=project)


def stop(passage: Passage) -> None:
    """Stop it: what it has made so far is kept for going on. Raises Conflict where it has ended."""
    jobs.ask_to_stop(passage)


# The steps -----------------------------------------------------------------------------------------------------------


def steps_of(passage: Passage) -> list[str]:
    """The steps that its recipe has, in their order."""
    return [CLOSE, EXPORT, *recipes.recipe(passage.recipe).trainings(), OPEN]


def next_step(passage: Passage) -> str | None:
    """The first step that is not done; None where all are."""
    return next((step for step in steps_of(passage) if not _is_done(passage, step)), None)


def _is_done(passage: Passage, step: str) -> bool:
    made = passage.steps.get(step, {})
    if step == CLOSE:
        return Iteration.objects.filter(pk=passage.iteration_id, state=Iteration.State.CLOSED).exists()
    if step == OPEN:
        return passage.opens_id is not None
    if step == EXPORT:
        wanted = set(recipes.recipe(passage.recipe).exports())
        numbers = [number for name, number in made.items() if name in wanted]
        return Export.objects.filter(pk__in=numbers, state=State.DONE).count() == len(wanted)
    return "run" in made and _run_is_done(made["run"])


def note_yes(*, passage: Passage, token, step: str) -> None:
    """Keep that a person, asked where it runs, said yes. Raises jobs.Lost."""
    if not Passage.objects.filter(pk=passage.pk, token=token).update(agreed_to=step):
        raise jobs.Lost("Its lease ran out, and it was begun again elsewhere.")
    passage.agreed_to = step


@transaction.atomic
def wait_for_yes(*, passage: Passage, token, step: str) -> None:
    """Let go of a running passage until a person says yes to the step. Raises jobs.Lost."""
    _held(passage, token)
    Passage.objects.filter(pk=passage.pk).update(background=False, step=f"Waits for a yes: {TOLD[step].lower()}")
    jobs.give_back(passage, token=token)


@transaction.atomic
def begin_close(*, passage: Passage, token) -> None:
    """Hand out nothing more of the round. Raises jobs.Lost."""
    _held(passage, token)
    if CLOSE not in passage.steps:
        if Iteration.objects.filter(pk=passage.iteration_id, state=Iteration.State.OPEN).exists():
            iterations.close(iteration=passage.iteration)
        _keep(passage, CLOSE, {})


def held_up_by(passage: Passage) -> dict[str, int]:
    """What the round still waits for, by name: work that trainers hold, reviews, and texts that are being sampled."""
    slots = passage.iteration.assignments
    pending = [GenerationRequest.State.WAITING, GenerationRequest.State.CLAIMED]
    found = {
        "held": slots.filter(state=Assignment.State.HELD).exclude(kind=Assignment.Kind.REVIEW).count(),
        "to be reviewed": slots.filter(
            state__in=[Assignment.State.HELD, Assignment.State.FREE], kind=Assignment.Kind.REVIEW
        ).count(),
        "being sampled": GenerationRequest.objects.filter(
            comparison__iteration=passage.iteration, state__in=pending
        ).count(),
    }
    return {name: count for name, count in found.items() if count}


@transaction.atomic
def begin_export(*, passage: Passage, token, name: str) -> Export:
    """The export of this name, which waits to be written where it was not asked for yet. Raises jobs.Lost."""
    _held(passage, token)
    made = passage.steps.get(EXPORT, {})
    if name in made:
        return Export.objects.get(pk=made[name])
    recipe = recipe_of(passage.recipe)
    what, format = recipe.exports()[name]
    export = snapshots.prepare(
        what=what,
        project=passage.project,
        format=format,
        filters=_filters_of(passage, recipe, name),
        created_by=passage.created_by,
        background=False,
    )
    _keep(passage, EXPORT, made | {name: export.pk})
    return export


def _filters_of(passage: Passage, recipe: Recipe, name: str) -> filters.Filters:
    what, _ = recipe.exports()[name]
    of_round = {"iteration": passage.iteration.number} if recipe.rounds == "this" else {}
    return filters.parse(what, getattr(recipe, name) | of_round)


@transaction.atomic
def begin_training(*, passage: Passage, token, step: str) -> TrainingRun:
    """The training of this step, which waits to be run where it was not asked for yet.

    Raises jobs.Lost, and Invalid as `training.prepare`: where there is nothing to learn from.
    """
    _held(passage, token)
    if step in passage.steps:
        return TrainingRun.objects.get(pk=passage.steps[step]["run"])
    recipe = recipe_of(passage.recipe)
    kind = recipe.policy if step == "policy" else step
    exports = {name: Export.objects.get(pk=number) for name, number in passage.steps[EXPORT].items()}
    of_kind = {"sft": ["demonstrations"], "dpo": ["comparisons"], "ppo": ["prompts"]}
    learns_from = of_kind.get(kind, ["comparisons", "demonstrations"])
    run = training.prepare(
        kind=kind,
        exports=[exports[name] for name in learns_from if name in exports],
        base=_base(passage, recipe),
        reward=made_by(passage, "reward") if kind == "ppo" else None,
        options=getattr(recipe, kind),
        created_by=passage.created_by,
    )
    _keep(passage, step, {"run": run.pk})
    return run


@transaction.atomic
def open_next(*, passage: Passage, token) -> Iteration:
    """Give the new policy to the project beside the last one, open the next round, and end the passage: all or nothing.

    Raises jobs.Lost, Conflict where a round is open, Invalid where the last policy is wanted and switched off.
    """
    _held(passage, token)
    recipe = recipe_of(passage.recipe)
    project = Project.objects.select_for_update(no_key=True).get(pk=passage.project_id)
    new = made_by(passage, "sft" if recipe.policy == recipes.Kind.SFT else "policy").policy
    last = _begins_with(recipe, passage.iteration)
    _check_last(recipe, last)
    policies.switch_on(policy=new)
    _weigh(project, recipe, new, last)
    if recipe.scores and recipe.reward is not None:
        scores.score_by(project=project, run=made_by(passage, "reward"))
    opened = iterations.open_next(project=project)
    _keep(passage, OPEN, {"iteration": opened.number, "policy": new.pk})
    jobs.end(passage, token=token, state=State.DONE, opens=opened)
    return opened


def made_by(passage: Passage, step: str) -> TrainingRun | None:
    """The run of a step that trains; None where it has not begun or the recipe leaves it out."""
    made = passage.steps.get(step, {})
    return TrainingRun.objects.filter(pk=made["run"]).first() if "run" in made else None


def _weigh(project: Project, recipe: Recipe, new: Policy, last: Policy) -> None:
    """Have the next round sample from the new policy and the last one, with their weights."""
    rows = ProjectPolicy.objects.filter(project=project)
    rows.update(replies=False)
    if recipe.drops_older:
        rows.exclude(policy__in=[new, last]).delete()
    for policy, weight, name in ((last, recipe.weights.last, "last"), (new, recipe.weights.new, "new")):
        values = {"weight": weight, "replies": recipe.replies == name}
        if weight or values["replies"]:
            ProjectPolicy.objects.update_or_create(project=project, policy=policy, defaults=values)
        else:
            rows.filter(policy=policy).delete()


def _check_last(recipe: Recipe, last: Policy) -> None:
    """Refuse a next round that would leave out the last policy, which is switched off, without a word."""
    wanted = recipe.weights.last or recipe.replies == "last"
    # Asked anew: the passage may have known it for days.
    if wanted and not Policy.objects.filter(pk=last.pk, active=True).exists():
        raise Invalid(
            f"Policy {last.name} is switched off, and the next round is to sample from it beside the new one: switch "
            "it on, or leave it out by the recipe, with weights of which last is 0 and replies of the new one."
        )


def _begins_with(recipe: Recipe, iteration: Iteration) -> Policy:
    """The policy that the trainings of a round begin with: the one that the recipe names, else the round's newest."""
    if recipe.begins_with:
        return training.policy_named(recipe.begins_with)
    before = Passage.objects.filter(opens=iteration).first()
    made = before.steps.get(OPEN, {}).get("policy") if before else None
    return iteration.policies.filter(pk=made).first() or iteration.reply_policy


def _base(passage: Passage, recipe: Recipe) -> Policy:
    """What a training begins with: what came of SFT, where that is done first."""
    # The recipe may have left out since what was done before.
    after_sft = made_by(passage, "sft") if recipe.sft is not None else None
    return after_sft.policy if after_sft else _begins_with(recipe, passage.iteration)


def _held(passage: Passage, token) -> None:
    """Lock a passage that the caller holds. Raises jobs.Lost."""
    if not Passage.objects.select_for_update().filter(pk=passage.pk, token=token, state=State.RUNNING).exists():
        raise jobs.Lost("Its lease ran out, and it was begun again elsewhere.")


def _keep(passage: Passage, step: str, made: dict) -> None:
    passage.steps = passage.steps | {step: made}
    passage.save(update_fields=["steps"])
