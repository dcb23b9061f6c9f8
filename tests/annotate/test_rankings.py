"""Rankings: typed orders, and what is stored of them."""

import pytest

from annotate import assignments, rankings
from annotate.errors import Conflict, Invalid
from annotate.models import Comparison, Ranking
from tests import factory

LETTERS = {"A": 1, "B": 2, "C": 3, "D": 4}


@pytest.mark.parametrize(
    ("typed", "tiers"),
    [
        ("B A = D C", [[2], [1, 4], [3]]),
        ("ba=dc", [[2], [1, 4], [3]]),
        ("B > A = D > C", [[2], [1, 4], [3]]),
        ("A=B=C=D", [[1, 2, 3, 4]]),
        ("", []),
        ("C", [[3]]),
    ],
)
def test_typed_orders(typed, tiers):
    assert rankings.parse_order(typed, LETTERS) == tiers


@pytest.mark.parametrize("typed", ["=A", "A=", "A==B", "AXB", "A 1", "A;B"])
def test_orders_that_make_no_sense(typed):
    with pytest.raises(Invalid):
        rankings.parse_order(typed, LETTERS)


@pytest.fixture
def project(db):
    return factory.project(overlap=2)


@pytest.fixture
def slot(project):
    factory.open_comparison(project)
    return assignments.claim(user=factory.trainer(project), project=project)


def test_it_stores_dense_ranks_ratings_and_flags(slot):
    a, b, c, d = slot.shown_order
    ranking = rankings.submit(
        assignment=slot,
        user=slot.trainer,
        tiers=[[b], [a, d], [c]],
        ratings={b: 7, c: 2},
        flags={c: ["hallucination", "hallucination", "constraint"]},
        active_seconds=42,
    )
    stored = {place.candidate_id: (place.rank, place.rating, place.flags) for place in ranking.places.all()}
    assert stored == {
        a: (1, None, []),
        b: (0, 7, []),
        c: (2, 2, ["constraint", "hallucination"]),
        d: (1, None, []),
    }
    assert rankings.tiers_of(ranking) == [[b], sorted([a, d]), [c]]
    assert (ranking.active_seconds, ranking.current, ranking.all_bad) == (42, True, False)


def test_the_last_one_closes_the_comparison(project, slot):
    for assignment in (slot, assignments.claim(user=factory.trainer(project), project=project)):
        assert Comparison.objects.get().state == "open"
        rankings.submit(assignment=assignment, user=assignment.trainer, tiers=[[pk] for pk in assignment.shown_order])
    comparison = Comparison.objects.get()
    assert (comparison.state, comparison.closed_at is not None) == ("closed", True)


def test_all_bad_without_an_order_is_a_tie(slot):
    ranking = rankings.submit(assignment=slot, user=slot.trainer, tiers=[], all_bad=True)
    assert ranking.all_bad
    assert set(ranking.places.values_list("rank", flat=True)) == {0}


def refusals(slot):
    a, b, c, d = slot.shown_order
    other = factory.open_comparison(slot.project).candidates.first().pk
    full = [[a], [b], [c], [d]]
    return [
        {"tiers": [[a], [b], [c]]},
        {"tiers": []},
        {"tiers": [[a], [b], [c], [other]]},
        {"tiers": [*full, [other]]},
        {"tiers": [[a], [b], [c], [d, a]]},
        {"tiers": full, "ratings": {a: 8}},
        {"tiers": full, "ratings": {a: True}},
        {"tiers": full, "ratings": {other: 3}},
        {"tiers": full, "flags": {a: ["nonsense"]}},
        {"tiers": full, "flags": {other: ["opinion"]}},
        {"tiers": [[a], [b]], "all_bad": True},
    ]


def test_bad_orders_change_nothing(slot):
    for given in refusals(slot):
        with pytest.raises(Invalid):
            rankings.submit(assignment=slot, user=slot.trainer, **given)
    slot.refresh_from_db()
    assert slot.state == "held"
    assert not Ranking.objects.exists()


def test_it_is_submitted_once(slot):
    tiers = [[pk] for pk in slot.shown_order]
    rankings.submit(assignment=slot, user=slot.trainer, tiers=tiers)
    with pytest.raises(Conflict, match="submitted already"):
        rankings.submit(assignment=slot, user=slot.trainer, tiers=tiers[::-1])
    assert rankings.tiers_of(Ranking.objects.get()) == tiers


def test_a_skipped_slot_takes_no_ranking(slot):
    assignments.skip(assignment=slot, user=slot.trainer, reason="other")
    with pytest.raises(Conflict):
        rankings.submit(assignment=slot, user=slot.trainer, tiers=[[pk] for pk in slot.shown_order])


def test_a_chat_takes_no_ranking(project):
    slot = factory.held_chat(project, factory.trainer(project))
    with pytest.raises(Conflict):
        rankings.submit(assignment=slot, user=slot.trainer, tiers=[])
