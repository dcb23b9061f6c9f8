"""Two whole rounds with a model that learns: people who prefer by a rule that nobody wrote down rank what is sampled,
and the policy that comes of their rankings is the one that they prefer in the next round."""

import random
import statistics

import pytest
from django.core.management import call_command

from annotate import assignments, conversations, iterations, rankings
from annotate.assignments import NothingLeft
from annotate.models import Assignment, Comparison, Passage, Project, RankedCandidate
from tests import factory, site, tiny
from tests.worker import preferences

pytest.importorskip("trl")

from annotate import passages

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.timeout(600)]

DISLIKED = "all"
"""The word that the model says most often, and that the trainers of this test would rather not read."""

CHATS = {"train": 80, "validation": 16, "test": 8}
MAX_KL = 5.0
RECIPE = {
    "reward": {"epochs": 16, "learning_rate": 3e-3, "batch_size": 4, "heads": 2, "max_tokens": 200},
    "ppo": {
        "episodes": 1536,
        "batch_size": 64,
        "at_once": 64,
        "max_new_tokens": 16,
        "max_tokens": 200,
        "learning_rate": 3e-4,
        "ppo_epochs": 2,
        "temperature": 1.0,
        "missing_end": 0.0,
        "kl_coef": 0.8,
        "max_kl": MAX_KL,
    },
}
DPO = {"learning_rate": 1e-4, "batch_size": 16, "at_once": 16, "max_tokens": 200}


def hidden(text: str) -> float:
    """How good trainers find an answer: the smaller the share of that word in it, the better; one without words is bad.

    The share, since by the number of times the best answer would be an empty one, and a policy that comes to write
    always that has collapsed.
    """
    words = text.split()
    return -words.count(DISLIKED) / len(words) if words else -1.0


@pytest.fixture
def project(tmp_path, settings) -> Project:
    settings.BOTHSIDES_HOME = tmp_path
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    tiny.build(tmp_path / "models" / "tiny")
    sampling = {"k": 6, "max_new_tokens": 16, "temperature": 1.0, "top_p": 1.0}
    base = factory.policy(name="tiny", location="tiny")
    return factory.project(
        served_by=base, secret="00" * 32, recipe=RECIPE, kinds=["chat", "rank"], authors_rank_own=True, **sampling
    )


def hold_round(project: Project, trainers: list, openings: list[str], serve) -> None:
    """All chats of a round, and the ranking of all that is sampled, as pages have it done."""
    loops = [serve(policy) for policy in factory.current(project).policies.all()]
    assignments.open_slots(project=project, kind="chat", count=len(openings))
    for wave in range(0, len(openings), len(trainers)):
        slots = []
        for user, opening in zip(trainers, openings[wave:], strict=False):
            slot = assignments.claim(user=user, project=project, kinds=["chat"])
            conversations.say(assignment=slot, user=user, text=opening)
            slots.append(slot)
        for slot in slots:
            site.wait_until(lambda slot=slot: slot.conversation.messages.count() == 3, seconds=60)
            conversations.finish(assignment=slot, user=slot.trainer)
    site.wait_until(lambda: not project.comparisons.filter(state=Comparison.State.SAMPLING).exists(), seconds=120)
    for loop in loops:
        loop.drain(0)
    rank_all(project, trainers)


def rank_all(project: Project, trainers: list) -> None:
    waiting = list(trainers)
    while waiting:
        user = waiting[0]
        try:
            slot = assignments.claim(user=user, project=project, kinds=["rank"])
        except NothingLeft:
            waiting.pop(0)
            continue
        tiers: dict[float, list[int]] = {}
        for candidate in slot.comparison.candidates.select_related("completion"):
            tiers.setdefault(hidden(candidate.completion.text), []).append(candidate.pk)
        best_first = [tiers[score] for score in sorted(tiers, reverse=True)]
        rankings.submit(assignment=slot, user=user, tiers=best_first)


def scores_by_policy(iteration) -> dict[int, list[float]]:
    """The hidden scores of a round's candidates by the policy that wrote them."""
    found: dict[int, list[float]] = {}
    rows = RankedCandidate.objects.filter(ranking__comparison__iteration=iteration)
    for policy, text in rows.values_list("candidate__completion__request__policy", "candidate__completion__text"):
        found.setdefault(policy, []).append(hidden(text))
    return found


def wins(iteration, new: int, last: int) -> float:
    """Of the pairs of an answer of each policy that trainers did not tie, how often the new one's was better."""
    found = []
    for comparison in iteration.comparisons.all():
        rows = RankedCandidate.objects.filter(ranking__comparison=comparison)
        ranks = {new: [], last: []}
        for policy, rank in rows.values_list("candidate__completion__request__policy", "rank"):
            ranks[policy].append(rank)
        found += [a < b for a in ranks[new] for b in ranks[last] if a != b]
    return statistics.mean(found)


def test_people_prefer_what_was_learnt_from_them(project, serve):
    trainers = [factory.trainer(project) for _ in range(20)]
    openings = list(preferences.openings(project, CHATS))
    random.Random(0).shuffle(openings)
    hold_round(project, trainers, openings, serve)
    first = factory.current(project)
    assert first.comparisons.filter(state="closed").count() == len(openings)

    call_command("iterate", "--project", project.slug)
    passage = Passage.objects.get()
    reward, ppo = (passages.made_by(passage, step) for step in ("reward", "policy"))
    assert reward.metrics["unseen_accuracy"] - 2 * reward.metrics["unseen_accuracy_error"] > 0.6
    assert ppo.metrics["kl"] <= MAX_KL

    second = factory.current(project)
    last, new = first.reply_policy, ppo.policy
    assert set(second.policies.all()) == {last, new}
    hold_round(project, trainers, [f"Once more: {opening}" for opening in openings], serve)
    scores = scores_by_policy(second)
    error = sum(statistics.variance(found) / len(found) for found in scores.values()) ** 0.5
    # With all drawn anew, seven times: 6.9 to 9.5 errors, and 82 to 90 % of the pairs.
    assert statistics.mean(scores[new.pk]) - statistics.mean(scores[last.pk]) > 3 * error
    assert wins(second, new.pk, last.pk) > 0.65

    # The other way to a policy, without PPO and so without asking anything of the reward model.
    project.recipe = RECIPE | {"policy": "dpo", "dpo": DPO, "reward": RECIPE["reward"] | {"epochs": 1}}
    project.save()
    call_command("iterate", "--project", project.slug)
    again = Passage.objects.first()
    newer = passages.made_by(again, "policy").policy
    third = factory.current(project)
    assert (third.number, newer.parent, set(third.policies.all())) == (3, new, {new, newer})
    # It learnt from both rounds.
    exports = [passages.made_by(one, "reward").exports.get().rows for one in (passage, again)]
    assert exports[1] > exports[0]
    assert not Assignment.objects.filter(state__in=["free", "held"]).exists()
    assert not iterations.close_finished()
