"""How far a reward model and people differ."""

import pytest

from annotate import scores
from annotate.quality import disagreement
from annotate.quality.disagreement import Difference
from tests import factory


@pytest.mark.parametrize(
    ("ranks", "rewards", "wanted"),
    [
        ({1: 0, 2: 1, 3: 2}, {1: 3.0, 2: 2.0, 3: 1.0}, Difference(0, 3)),
        ({1: 0, 2: 1, 3: 2}, {1: 1.0, 2: 2.0, 3: 3.0}, Difference(3, 3)),
        ({1: 0, 2: 1, 3: 2}, {1: 2.0, 2: 3.0, 3: 1.0}, Difference(1, 3)),
        ({1: 0, 2: 0, 3: 1}, {1: 1.0, 2: 2.0, 3: 3.0}, Difference(2, 2)),
        ({1: 0, 2: 1}, {1: 1.0, 2: 1.0}, Difference(0.5, 1)),
        ({1: 0, 2: 1, 3: 2}, {1: 1.0, 3: 2.0}, Difference(1, 1)),
        ({1: 0, 2: 0}, {1: 1.0, 2: 2.0}, Difference(0, 0)),
        ({1: 0, 2: 1}, {}, Difference(0, 0)),
    ],
)
def test_pairs_that_the_model_orders_the_other_way_round(ranks, rewards, wanted) -> None:
    assert disagreement.of_ranks(ranks, rewards) == wanted


def test_shares() -> None:
    assert Difference(1, 4).share == 0.25
    assert Difference().share is None
    assert (Difference(1, 4) + Difference(2, 6)).share == 0.3


@pytest.mark.django_db
def test_of_comparisons_all_rankings_that_count_together(django_assert_num_queries) -> None:
    project = factory.project(overlap=2)
    run = factory.reward_run(project)
    ranked, unranked, unscored = (factory.open_comparison(project) for _ in range(3))
    for comparison in (ranked, unranked):
        for reward, candidate in enumerate(comparison.candidates.order_by("id")):
            scores.keep(run=run, by_head={candidate.pk: [float(-reward)]})
    factory.ranking(ranked, "A B C D")
    surplus = factory.ranking(ranked, "D C B A")
    surplus.assignment.__class__.objects.filter(pk=surplus.assignment_id).update(state="surplus")
    factory.ranking(unscored)
    wanted = [ranked.pk, unranked.pk, unscored.pk]
    with django_assert_num_queries(2):
        found = disagreement.of_comparisons(wanted, run)
    assert found == {ranked.pk: Difference(0, 6), unranked.pk: Difference()}
    surplus.assignment.__class__.objects.filter(pk=surplus.assignment_id).update(state="submitted")
    assert disagreement.of_comparisons(wanted, run)[ranked.pk] == Difference(6, 12)
