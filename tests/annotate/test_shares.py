"""Shares with their errors over clusters: agreement over many comparisons, and calibration."""

import random
from statistics import fmean, pstdev

import pytest

from annotate.quality import agreement, calibration, shares
from tests.annotate.test_consensus import of


def test_the_error_is_the_spread_of_the_share_over_samples_of_clusters():
    draw = random.Random(0)

    def sample() -> shares.Share:
        # Of a cluster all trials come out alike: ten trials say no more than one.
        return shares.of((size * (draw.random() < 0.7), size) for size in [2, 6, 10] * 40)

    found = [sample() for _ in range(400)]
    assert fmean(one.value for one in found) == pytest.approx(0.7, abs=0.02)
    spread = pstdev(one.value for one in found)
    assert fmean(one.error for one in found) == pytest.approx(spread, rel=0.1)
    # As if trials were independent it would be half of that.
    assert spread > 1.8 * (0.7 * 0.3 / found[0].trials) ** 0.5


def test_one_cluster_has_no_error_and_none_no_share():
    assert shares.of([(1, 2), (0, 0)]) == shares.Share(value=0.5, error=None, trials=2, clusters=1)
    assert shares.of([(0, 0)]) is None
    assert shares.of([]) is None


def test_agreement_over_comparisons_weighs_each_pair_alike():
    found = agreement.between([of("A B", "A B"), of("A B C", "C B A"), of("A B C")])
    assert (found.value, found.trials, found.clusters) == (1 / 4, 4, 2)
    assert agreement.between([of("A B C")]) is None


def test_who_ties_foretells_half():
    assert agreement.foretold(*of("A B C", "A B C")) == (3, 3)
    assert agreement.foretold(*of("A B C", "C B A")) == (0, 3)
    assert agreement.foretold(*of("A B C", "A B=C")) == (2.5, 3)
    # Of a tie there is nothing to foretell.
    assert agreement.foretold(*of("A B=C", "A B C")) == (2, 2)
    assert agreement.foretelling([of("A B C", "A B=C"), of("A B")]).value == 4.5 / 5
    assert agreement.foretelling([of("A=B", "A=B")]) is None


def test_calibration_is_the_mean_distance_of_predicted_and_observed():
    found = calibration.of([(0.95, True), (0.95, True), (0.95, False), (0.15, False)])
    low, high = found["bins"]
    assert (low["from"], low["to"], low["predictions"], low["observed"]) == (0.1, 0.2, 1, 0)
    assert (high["predictions"], high["predicted"], high["observed"]) == (3, pytest.approx(0.95), 2 / 3)
    assert found["error"] == pytest.approx((0.15 + 3 * (0.95 - 2 / 3)) / 4)
    assert [one["from"] for one in calibration.of([(0.0, False), (1.0, True)])["bins"]] == [0.0, 0.9]
    assert calibration.of([]) is None
