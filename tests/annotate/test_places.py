"""How K places are shared: by weight on average, within one place always, and the same when done again."""

from collections import Counter
from itertools import combinations

import pytest

from annotate import places

SECRET = "c0ffee" + "0" * 58
COMPARISONS = 4000


def allotted(k: int, weights: dict[int, int], comparison_id: int = 1, **given) -> dict[int, int]:
    given = {"secret": SECRET, "keeps_original": False, "original": None} | given
    return places.allot(k=k, weights=weights, comparison_id=comparison_id, **given)


@pytest.mark.parametrize("weights", [{1: 1, 2: 1}, {1: 1, 2: 2}, {1: 5, 2: 3, 3: 1}, {1: 1, 2: 1, 3: 1, 4: 0}])
@pytest.mark.parametrize("k", [2, 4, 9])
def test_each_policy_has_its_share_on_average_and_never_a_place_more_or_less(k, weights):
    total: Counter[int] = Counter()
    exact = {policy: k * weight / sum(weights.values()) for policy, weight in weights.items()}
    for pk in range(COMPARISONS):
        counts = Counter(allotted(k, weights, pk))
        assert sum(counts.values()) == k
        assert all(abs(counts[policy] - share) < 1 for policy, share in exact.items())
        total += counts
    for policy, share in exact.items():
        # Of 4,000 draws of a place that is there or not, five standard deviations of the mean are 0.04.
        assert total[policy] / COMPARISONS == pytest.approx(share, abs=0.04)


def test_the_original_counts_for_its_policy():
    """Two of five places are its own, on average, and the original is one of them."""
    weights = {1: 2, 2: 3}
    total: Counter[int] = Counter()
    for pk in range(COMPARISONS):
        counts = Counter(allotted(4, weights, pk, keeps_original=True, original=1))
        assert (sum(counts.values()), counts[1] in (0, 1), counts[2] in (2, 3)) == (3, True, True)
        total += counts
    assert total[1] / COMPARISONS + 1 == pytest.approx(4 * 2 / 5, abs=0.04)


def test_an_original_of_a_small_share_leaves_the_rest_to_the_others():
    for pk in range(100):
        assert allotted(4, {1: 0, 2: 1}, pk, keeps_original=True, original=1) == {2: 3}
        assert allotted(4, {1: 1, 2: 8}, pk, keeps_original=True, original=1) == {2: 3}
    assert places.shares(k=4, weights={1: 1, 2: 8}, original=1) == {1: 1, 2: 3}


@pytest.mark.parametrize("original", [None, 7])
def test_an_original_of_no_policy_of_the_round_takes_one_place_of_all(original):
    for pk in range(100):
        counts = Counter(allotted(5, {1: 1, 2: 1}, pk, keeps_original=True, original=original))
        assert counts == {1: 2, 2: 2}
    assert places.shares(k=4, weights={1: 1, 2: 1}, original=original) == {1: 2, 2: 2}


def test_one_policy_has_all_of_them():
    assert allotted(4, {1: 3}) == {1: 4}
    assert allotted(4, {1: 3}, keeps_original=True, original=1) == {1: 3}


def test_every_policy_meets_every_other_one():
    """With two places for four policies; in an order that never changed 1 would only ever stand beside 3."""
    met = Counter(tuple(sorted(allotted(2, dict.fromkeys((1, 2, 3, 4), 1), pk))) for pk in range(COMPARISONS))
    assert set(met) == set(combinations((1, 2, 3, 4), 2))
    assert min(met.values()) > COMPARISONS / 6 * 0.8


def test_it_is_the_same_when_done_again_and_another_under_another_secret():
    weights = {1: 1, 2: 1, 3: 1}
    first = [allotted(4, weights, pk) for pk in range(50)]
    assert [allotted(4, weights, pk) for pk in range(50)] == first
    assert [allotted(4, dict(reversed(weights.items())), pk) for pk in range(50)] == first
    assert [allotted(4, weights, pk, secret="1" * 64) for pk in range(50)] != first
