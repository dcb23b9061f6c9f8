"""Whatever weak order is submitted comes out of an export as it went in."""

import json
import tempfile
from itertools import combinations
from pathlib import Path

import pytest
from django.conf import settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from annotate import rankings
from annotate.datasets import filters, snapshots
from tests import factory

pytestmark = pytest.mark.django_db


@st.composite
def weak_orders(draw) -> list[list[int]]:
    """Tiers over 2 to 9 candidates, numbered from 0, best first."""
    places = draw(st.lists(st.integers(0, 8), min_size=2, max_size=9))
    return [[one for one, place in enumerate(places) if place == rank] for rank in sorted(set(places))]


def exported(project, format: str) -> list[dict]:
    with tempfile.TemporaryDirectory(dir=settings.BOTHSIDES_HOME) as folder:
        out = Path(folder) / "out"
        snapshots.export("comparisons", project=project, format=format, filters=filters.Comparisons(), out=out)
        return [json.loads(line) for file in out.glob("*.jsonl") for line in file.read_text().splitlines()]


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=weak_orders())
def test_every_order_comes_back(db, order):
    k = sum(map(len, order))
    project = factory.project(k=k, overlap=1)
    comparison = factory.comparison_about(project, "Hello")
    ids = sorted(comparison.candidates.values_list("id", flat=True))
    assert len(ids) == k
    typed = " ".join("=".join("ABCDEFGHI"[one] for one in tier) for tier in order)
    ranking = factory.ranking(comparison, typed)

    (line,) = exported(project, "ranked")
    ranks = {one["candidate_id"]: one["rank"] for one in line["completions"]}
    assert ranks == {ids[one]: rank for rank, tier in enumerate(order) for one in tier}
    assert rankings.tiers_of(ranking) == [[ids[one] for one in tier] for tier in order]

    rank_of_text = {one["completion"][0]["content"]: one["rank"] for one in line["completions"]}
    strict = {
        (better, worse)
        for one, other in combinations(rank_of_text, 2)
        for better, worse in ((one, other), (other, one))
        if rank_of_text[better] < rank_of_text[worse]
    }
    if not strict:
        return
    pairs = exported(project, "preference")
    assert len(pairs) == len(strict)
    assert {(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs} == strict
