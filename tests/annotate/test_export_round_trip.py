"""Whatever weak orders are submitted come out of an export as they went in, in every format and kind of files."""

import json
import shutil
import tempfile
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import median

import pytest
from django.conf import settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from annotate import derive, rankings
from annotate.datasets import filters, shapes, shards, snapshots
from annotate.datasets.check import check
from annotate.datasets.comparison_lines import parted
from annotate.errors import Invalid
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def few(count: int) -> hypothesis_settings:
    """So many examples: each makes and exports projects of its own."""
    checks = [HealthCheck.function_scoped_fixture]
    return hypothesis_settings(max_examples=count, deadline=None, suppress_health_check=checks)


@st.composite
def weak_orders(draw, size: int) -> list[list[int]]:
    """Tiers over so many candidates, numbered from 0, best first."""
    places = draw(st.lists(st.integers(0, 8), min_size=size, max_size=size))
    return [[one for one, place in enumerate(places) if place == rank] for rank in sorted(set(places))]


@st.composite
def rounds(draw) -> tuple[int, list[list[list[list[int]]]]]:
    """K, and for each of one to three comparisons the orders of the same one to three trainers."""
    k, trainers = draw(st.integers(2, 9)), draw(st.integers(1, 3))
    return k, draw(st.lists(st.lists(weak_orders(k), min_size=trainers, max_size=trainers), min_size=1, max_size=3))


def exported(project, format: str, kind: str = "jsonl", what: str = "comparisons", **given) -> list[dict]:
    """The lines, of which the checker finds nothing wrong; none where there is nothing to export."""
    wanted = filters.parse(what, given)
    with tempfile.TemporaryDirectory(dir=settings.BOTHSIDES_HOME) as folder:
        out = Path(folder) / "out"
        try:
            snapshots.export(
                what,
                project=project,
                format=format,
                filters=wanted,
                files=shards.Files(kind=kind, shard_rows=3),
                out=out,
            )
        except Invalid:
            return []
        assert check(out).problems == []
        found = []
        for path in sorted(out.iterdir()):
            if shards.split_of(path.name):
                with shards.opened(path) as lines:
                    found += [json.loads(line) for line in lines]
        shutil.rmtree(out)
        return found


def dense(value_of: dict) -> dict:
    """Ranks from 0, the best, by values of which the least is best."""
    place = {value: rank for rank, value in enumerate(sorted(set(value_of.values())))}
    return {key: place[value] for key, value in value_of.items()}


def pair_of(line: dict, format: str) -> tuple[str, str]:
    if format == "openai_dpo":
        sides = line["preferred_output"], line["non_preferred_output"]
    elif format == "llamafactory":
        return line["chosen"]["value"], line["rejected"]["value"]
    elif format == "hh":
        sides = parted(line["chosen"]), parted(line["rejected"])
    else:
        sides = line["chosen"], line["rejected"]
    return sides[0][-1]["content"], sides[1][-1]["content"]


def strict(ranks: dict[str, int]) -> set[tuple[str, str]]:
    both = [pair for one, other in combinations(ranks, 2) for pair in ((one, other), (other, one))]
    return {(better, worse) for better, worse in both if ranks[better] < ranks[worse]}


@pytest.fixture
def made():
    """Makes a project of these orders: it, and by comparison the ranks of its texts as each trainer gave them."""

    def make(k: int, orders) -> tuple:
        project = factory.project(k=k, overlap=len(orders[0]))
        trainers = [factory.trainer(project) for _ in orders[0]]
        given = {}
        for number, of_one in enumerate(orders):
            comparison = factory.comparison_about(project, f"Hello {number}")
            candidates = list(comparison.candidates.order_by("id").values_list("id", "completion__text"))
            assert len(candidates) == k
            given[comparison.pk] = []
            for order, trainer in zip(of_one, trainers, strict=True):
                typed = " ".join("=".join("ABCDEFGHI"[one] for one in tier) for tier in order)
                ranking = factory.ranking(comparison, typed, trainer)
                assert rankings.tiers_of(ranking) == [[candidates[one][0] for one in tier] for tier in order]
                ranks = {candidates[one][1]: rank for rank, tier in enumerate(order) for one in tier}
                given[comparison.pk].append(ranks)
        return project, given

    return make


@few(6)
@given(rounds=rounds(), kind=st.sampled_from(shards.KINDS))
def test_every_order_comes_back_in_every_format(db, made, rounds, kind):
    project, given = made(*rounds)
    all_ranks = [ranks for of_one in given.values() for ranks in of_one]

    found = defaultdict(list)
    for line in exported(project, "ranked", kind):
        found[line["group_id"]].append({one["completion"][0]["content"]: one["rank"] for one in line["completions"]})
    assert found == given

    found = defaultdict(list)
    for line in exported(project, "nemo_rl", kind):
        found[line["group_id"]].append({one["completion"][0]["content"]: one["rank"] for one in line["completions"]})
    assert found == given

    pairs = [pair for ranks in all_ranks for pair in sorted(strict(ranks))]
    for format in shapes.PAIRS:
        if kind in shapes.UNFIT.get(format, ((), ""))[0]:
            continue
        assert sorted(pair_of(line, format) for line in exported(project, format, kind)) == sorted(pairs)

    good = [
        (text, rank == 0)
        for ranks in all_ranks
        for text, rank in ranks.items()
        if max(ranks.values()) > 0 and rank in (0, max(ranks.values()))
    ]
    labels = [(line["completion"][0]["content"], line["label"]) for line in exported(project, "unpaired", kind)]
    assert sorted(labels) == sorted(good)
    assert sorted(line["group_id"] for line in exported(project, "prompt_only", kind)) == sorted(given)


@few(6)
@given(rounds=rounds(), which=st.sampled_from(filters.PAIRS))
def test_pairs_never_contradict_the_consensus_that_they_are_of(db, made, rounds, which):
    project, given = made(*rounds)
    wanted = {
        pk: dense({text: median(ranks[text] for ranks in of_one) for text in of_one[0]}) for pk, of_one in given.items()
    }
    lines = exported(project, "ranked", rankings="consensus")
    found = {
        line["group_id"]: {one["completion"][0]["content"]: one["rank"] for one in line["completions"]}
        for line in lines
    }
    assert found == wanted
    assert all((line["agreement"] is None) == (len(rounds[1][0]) < 2) for line in lines)

    for line in exported(project, "preference", rankings="consensus", pairs=which, margin="rank"):
        ranks = wanted[line["group_id"]]
        better, worse = (ranks[text] for text in pair_of(line, "preference"))
        assert (better, worse) == (line["chosen_rank"], line["rejected_rank"])
        assert worse - better == line["margin"] >= 1
        assert which != "adjacent" or worse - better == 1
        assert which != "best_worst" or (better, worse) == (0, max(ranks.values()))


@few(4)
@given(openings=st.lists(st.text("ab ,!é", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=5))
def test_no_family_and_no_opening_is_in_two_splits(db, openings):
    project = factory.project(overlap=1, k=2, review_share=0)
    for opening in openings:
        factory.ranking(factory.comparison_about(project, opening), "A B")
        turns = [factory.written_turn("user", opening), factory.written_turn("assistant", "Yes.")]
        factory.finished_piece(project, None, *turns)
    split_of: dict[str, set[str]] = defaultdict(set)
    for what, format in (("comparisons", "ranked"), ("demonstrations", "messages"), ("conversations", "messages")):
        lines = exported(project, format, what=what)
        assert lines
        for line in lines:
            split_of[line["family"]].add(line["split"])
            said = line["context"] if format == "ranked" else line["messages"]
            split_of[derive.family_of(said[1]["content"])].add(line["split"])
    assert [splits for splits in split_of.values() if len(splits) > 1] == []
