"""Of each pool the comparison from which most is to be learnt is ranked, and the rest is as random as ever."""

import itertools
import random
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotate import comparisons, generation, iterations, scores, sweep, uncertain
from annotate.errors import Conflict
from annotate.models import Candidate, Comparison, GenerationRequest, Project
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def made(module_rows) -> Project:
    """One with six messages that may be drawn, and a reward model."""
    made = factory.project(k=2)
    factory.finished_chat(made, turns=7)
    made.scored_by = factory.reward_run(made, metrics={"heads": 4})
    made.save()
    return made


@pytest.fixture
def project(made) -> Project:
    return Project.objects.get(pk=made.pk)


def pool_of(project: Project, size: int = 3) -> list[Comparison]:
    """A pool with no random ones beside it."""
    return uncertain.sample(project=project, count=1, share=1, pool_size=size)


def sample_texts(*pool: Comparison) -> None:
    for comparison in pool:
        factory.answer(comparison.requests.get())


def fail(comparison: Comparison) -> None:
    """All its draws, the missing ones again."""
    while request := comparison.requests.filter(state="waiting").first():
        held = factory.claimed(request)
        generation.fail(request_id=held.pk, token=held.claim_token, reason="It broke.", again=False)


def score(comparison: Comparison, spread: float | None, apart: float = 1.0, alike: float = 0.0) -> None:
    """Rewards so far apart, on which heads disagree so much, and `alike` on both; None says that texts are too long."""
    first, second = comparison.candidates.all()
    by_head = {first.pk: [-alike, alike], second.pk: [apart + (spread or 0) - alike, apart - (spread or 0) + alike]}
    if spread is None:
        by_head = dict.fromkeys(by_head)
    scores.keep(run=comparison.project.scored_by, by_head=by_head)


def seen(pool: list[Comparison]) -> list[tuple[str, str]]:
    found = Comparison.objects.in_bulk([one.pk for one in pool])
    return [(found[one.pk].state, found[one.pk].selection) for one in pool]


OVER, WAITS = ("passed_over", "random"), ("sampling", "random")
CHOSEN, DRAWN, FAILED = ("open", "uncertain"), ("open", "random"), ("failed", "random")


def test_the_most_uncertain_one_opens_with_its_slots_and_the_others_are_passed_over(project):
    first, second, third = pool = pool_of(project)
    sample_texts(*pool)
    score(first, 0.1)
    score(second, 2)
    assert uncertain.choose_ready() == 0
    assert seen(pool) == [WAITS] * 3
    score(third, 1)
    assert uncertain.choose_ready() == 1
    assert seen(pool) == [OVER, CHOSEN, OVER]
    second.refresh_from_db()
    first.refresh_from_db()
    run = project.scored_by_id
    assert first.reason == f"Comparison {second.pk} was chosen instead: the model of run {run} learns more from it."
    assert (second.opened_at is not None, second.reason) == (True, "")
    assert second.assignments.filter(state="free").count() == project.overlap
    assert not first.assignments.exists()
    assert Candidate.objects.filter(comparison=first).count() == 2
    assert uncertain.choose_ready() == 0


def test_where_heads_disagree_as_much_the_closer_one_is_ranked(project):
    apart, close = pool = pool_of(project, 2)
    sample_texts(*pool)
    score(apart, 1, apart=4)
    score(close, 1, apart=1)
    uncertain.choose_ready()
    assert seen(pool) == [OVER, CHOSEN]


def test_what_heads_give_to_all_answers_alike_chooses_nothing(project):
    alike, apart = pool = pool_of(project, 2)
    sample_texts(*pool)
    score(alike, 0, alike=5)
    score(apart, 1)
    uncertain.choose_ready()
    assert seen(pool) == [OVER, CHOSEN]


def test_of_some_pools_only_those_are_decided(project):
    named, other = pool_of(project, 2), pool_of(project, 2)
    for one in (*named, *other):
        sample_texts(one)
        score(one, 1)
    assert uncertain.choose_ready(pools=[]) == 0
    assert uncertain.choose_ready(pools=[named[0].pk]) == 1
    assert (seen(named), seen(other)) == ([CHOSEN, OVER], [WAITS] * 2)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order_of_events_one_of_a_pool_opens(project, seed):
    chance = random.Random(seed)
    pools = [pool_of(project), pool_of(project)]
    todo = [comparison for pool in pools for comparison in pool]
    unscored: list[Comparison] = []
    while todo or unscored:
        waiting = chance.choice([some for some in (todo, unscored) if some])
        one = waiting.pop(chance.randrange(len(waiting)))
        if waiting is unscored:
            score(one, chance.uniform(0, 5))
        elif chance.random() < 0.2:
            fail(one)
        else:
            sample_texts(one)
            unscored.append(one)
        uncertain.choose_ready()
        for pool in pools:
            states = [state for state, _ in seen(pool)]
            assert states.count("open") == ("sampling" not in states and set(states) != {"failed"})
    assert not Comparison.objects.filter(pool__isnull=False, state="sampling").exists()


def test_a_failed_one_is_left_out_and_the_last_one_left_needs_no_score(project):
    first, second = pool = pool_of(project, 2)
    sample_texts(second)
    assert uncertain.choose_ready() == 0
    fail(first)
    assert uncertain.choose_ready() == 1
    assert seen(pool) == [FAILED, CHOSEN]
    with pytest.raises(Conflict, match="Another comparison of its pool has opened"):
        generation.try_again(request=first.requests.last())


def test_one_that_is_tried_again_before_is_waited_for(project):
    first, second, third = pool = pool_of(project)
    fail(first)
    sample_texts(second, third)
    generation.try_again(request=(again := first.requests.last()))
    score(second, 1)
    score(third, 2)
    assert uncertain.choose_ready() == 0
    factory.answer(again)
    score(first, 3)
    assert uncertain.choose_ready() == 1
    assert seen(pool) == [CHOSEN, OVER, OVER]


def test_one_that_cannot_be_scored_comes_last(project):
    first, second = pool = pool_of(project, 2)
    sample_texts(*pool)
    score(first, None)
    score(second, 0)
    uncertain.choose_ready()
    assert seen(pool) == [OVER, CHOSEN]
    first.refresh_from_db()
    assert first.reason.endswith("cannot score this one.")


def test_where_nothing_scores_any_more_the_first_one_opens_as_a_random_one(project):
    pool = pool_of(project)
    sample_texts(*pool)
    project.scored_by = None
    project.save()
    assert uncertain.choose_ready() == 1
    assert seen(pool) == [DRAWN, OVER, OVER]
    assert Comparison.objects.get(pk=pool[1].pk).reason.endswith("as the first that was drawn: none is scored.")


def test_scores_that_do_not_come_are_not_waited_for_for_ever(project, settings):
    pool = pool_of(project)
    sample_texts(*pool)
    score(pool[2], 0)
    assert uncertain.choose_ready() == 0
    long_ago = timezone.now() - timedelta(hours=settings.POOL_PATIENCE_HOURS, seconds=1)
    GenerationRequest.objects.filter(comparison__in=pool).update(ended_at=long_ago)
    assert uncertain.choose_ready() == 1
    assert seen(pool) == [DRAWN, OVER, OVER]
    assert Comparison.objects.get(pk=pool[1].pk).reason.endswith("as the first that was drawn: not all are scored.")


def test_a_pool_whose_round_is_closed_fails_and_holds_it_up_no_longer(project):
    pool = pool_of(project)
    sample_texts(*pool)
    iteration = factory.current(project)
    Comparison.objects.filter(pool=None).update(state="failed")
    GenerationRequest.objects.filter(comparison__pool=None, state="waiting").update(
        state="failed", ended_at=timezone.now()
    )
    iterations.close(iteration=iteration)
    assert uncertain.choose_ready() == 0
    sweep.run()
    assert seen(pool) == [FAILED] * 3
    assert (
        Comparison.objects.get(pk=pool[0].pk).reason
        == "Its iteration was closed while one of its pool was being chosen."
    )
    iteration.refresh_from_db()
    assert iteration.state == "closed"


def test_the_random_part_is_drawn_as_without_the_option(project):
    def drawn() -> list[tuple]:
        with transaction.atomic():
            made = uncertain.sample(project=project, count=3, share=0.4, pool_size=2)
            told = [(one.message_id, one.draw_seed, one.draw_size, one.draw_index, one.pool_id) for one in made]
            transaction.set_rollback(True)
        return told

    told = drawn()
    assert [pool is None for *_, pool in told] == [True, True, False, False]
    alone = comparisons.sample(project=project, count=2)
    assert [(one.message_id, one.draw_seed, one.draw_size, one.draw_index, None) for one in alone] == told[:2]


def test_what_is_passed_over_is_not_drawn_again_and_the_last_pool_may_be_smaller(project):
    pools = uncertain.sample(project=project, count=2, share=1, pool_size=4)
    sizes = [len(list(pool)) for _, pool in itertools.groupby(pools, key=lambda one: one.pool_id)]
    assert sizes == [4, 2]
    assert [pools[0].pool, pools[4].pool] == [pools[0], pools[4]]
    assert comparisons.sample(project=project, count=9) == []


def test_one_message_alone_makes_no_pool(project):
    assert len(uncertain.sample(project=project, count=9, share=1, pool_size=5)) == 5


def test_the_record_holds_one_open_one_a_pool(project):
    first, second = pool_of(project, 2)
    sample_texts(first, second)
    opened = {"state": "open", "opened_at": timezone.now()}
    Comparison.objects.filter(pk=first.pk).update(**opened)
    with pytest.raises(IntegrityError, match="comparison_one_of_a_pool"), transaction.atomic():
        Comparison.objects.filter(pk=second.pk).update(**opened)
