"""One order out of several, and how far they agree."""

from hypothesis import given
from hypothesis import strategies as st

from annotate.quality import agreement, consensus


@st.composite
def rankings(draw) -> list[dict[int, int]]:
    """One to five weak orders of the same two to six candidates, with dense ranks."""
    k, count = draw(st.integers(2, 6)), draw(st.integers(1, 5))
    found = []
    for _ in range(count):
        places = draw(st.lists(st.integers(0, 5), min_size=k, max_size=k))
        dense = {place: rank for rank, place in enumerate(sorted(set(places)))}
        found.append({one: dense[place] for one, place in enumerate(places)})
    return found


def of(*orders: str) -> list[dict[str, int]]:
    """Ranks of orders as people type them."""
    return [{one: rank for rank, tier in enumerate(order.split()) for one in tier.split("=")} for order in orders]


def test_the_median_decides():
    assert consensus.of_ranks(of("A B C", "A C B", "C B A")) == {"A": 0, "B": 1, "C": 1}
    assert consensus.of_ranks(of("A B C", "A B C", "C B A")) == {"A": 0, "B": 1, "C": 2}


def test_the_mean_of_the_middle_two_where_even():
    # A 0 and 1, B 1 and 0, C 2 and 1.
    assert consensus.of_ranks(of("A B C", "B A=C")) == {"A": 0, "B": 0, "C": 1}


def test_one_against_all_others_moves_nothing():
    assert consensus.of_ranks(of("A B C", "A B C", "A B C", "A B C", "C B A")) == {"A": 0, "B": 1, "C": 2}


def test_a_majority_is_more_than_half():
    assert consensus.by_majority([True, True, False])
    assert not consensus.by_majority([True, False])


def test_agreement_is_the_share_of_pairs_on_which_two_say_the_same():
    assert agreement.of_ranks(of("A B C", "A B C")) == 1.0
    assert agreement.of_ranks(of("A B C", "C B A")) == 0.0
    # A before B: both; A before C: both; B before C: one, the other has them tied.
    assert agreement.of_ranks(of("A B C", "A B=C")) == 2 / 3
    assert agreement.of_ranks(of("A=B", "A=B")) == 1.0
    assert agreement.of_ranks(of("A B", "A B", "B A")) == 1 / 3


def test_one_ranking_agrees_with_nobody():
    assert agreement.of_ranks(of("A B C")) is None


@given(rankings())
def test_consensus_is_dense_keeps_what_all_say_and_does_not_depend_on_the_order_of_trainers(given_ranks):
    found = consensus.of_ranks(given_ranks)
    assert sorted(set(found.values())) == list(range(len(set(found.values()))))
    assert consensus.of_ranks(given_ranks[::-1]) == found
    for one in found:
        for other in found:
            if all(ranks[one] < ranks[other] for ranks in given_ranks):
                assert found[one] < found[other]
    if len(given_ranks) == 1:
        assert found == given_ranks[0]


@given(rankings())
def test_agreement_is_a_share(given_ranks):
    found = agreement.of_ranks(given_ranks)
    if len(given_ranks) > 1:
        assert 0 <= found <= 1
        assert agreement.of_ranks(given_ranks[::-1]) == found
        assert (found == 1) == all(ranks == given_ranks[0] for ranks in given_ranks)
