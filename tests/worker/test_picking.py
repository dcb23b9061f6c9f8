"""Each text's next token is drawn by its own settings."""

from collections import Counter

import pytest
import torch
from scipy import stats

from worker.engines import picking
from worker.engines.base import Sampling
from worker.engines.picking import pick

pytestmark = pytest.mark.slow

LOGITS = torch.tensor([2.0, 1.0, 3.0, -1.0, 0.0])
DRAWS = 20_000


def shares(sampling, logits=LOGITS):
    """How often each token is drawn."""
    drawn = pick(logits.expand(DRAWS, -1).contiguous(), [sampling] * DRAWS)
    return torch.bincount(drawn, minlength=len(logits))


def expected(logits, temperature=1.0, kept=None):
    probabilities = (logits.double() / temperature).softmax(-1)
    if kept is not None:
        mask = torch.zeros_like(probabilities)
        mask[kept] = 1
        probabilities = probabilities * mask
    return probabilities / probabilities.sum()


@pytest.mark.parametrize(
    ("sampling", "temperature", "kept"),
    [
        (Sampling(temperature=1), 1, None),
        (Sampling(temperature=0.5), 0.5, None),
        (Sampling(temperature=1, top_k=2), 1, [2, 0]),
        (Sampling(temperature=2, top_k=3), 2, [2, 0, 1]),
        # The shares are 0.64, 0.24, 0.09, …: the third one is needed to reach 0.9.
        (Sampling(temperature=1, top_p=0.9), 1, [2, 0, 1]),
        (Sampling(temperature=1, top_p=0.01), 1, [2]),
        # Of what top_k leaves, the first two have 0.9.
        (Sampling(temperature=1, top_k=3, top_p=0.9), 1, [2, 0]),
    ],
)
def test_tokens_come_as_often_as_their_probability_says(sampling, temperature, kept):
    torch.manual_seed(0)
    wanted, seen = expected(LOGITS, temperature, kept), shares(sampling)
    possible = wanted > 0
    assert seen[~possible].sum() == 0
    if possible.sum() > 1:
        assert stats.chisquare(seen[possible], wanted[possible] * DRAWS).pvalue > 0.001


def test_rows_that_are_no_numbers_are_marked():
    logits = LOGITS.repeat(10, 1)
    logits[3, 1], logits[8] = float("nan"), float("inf")
    assert pick(logits, [Sampling(temperature=0)] * 10).tolist() == [2, 2, 2, -1, 2, 2, 2, 2, -1, 2]


def test_temperature_0_takes_the_likeliest():
    assert pick(LOGITS.repeat(3, 1), [Sampling(temperature=0)] * 3).tolist() == [2, 2, 2]


def test_a_tiny_temperature_is_as_good_as_none():
    assert pick((LOGITS * 50)[None], [Sampling(temperature=1e-30)]).tolist() == [2]


def test_each_row_has_its_own_settings():
    torch.manual_seed(0)
    settings = [Sampling(temperature=0), Sampling(top_k=2), Sampling(temperature=3), Sampling(top_p=0.01)]
    drawn = [pick(LOGITS.repeat(4, 1), settings).tolist() for _ in range(500)]
    greedy, two, all_of_them, nucleus = (Counter(column) for column in zip(*drawn, strict=True))
    assert set(greedy) == {2}
    assert set(two) == {0, 2}
    assert set(all_of_them) == {0, 1, 2, 3, 4}
    assert set(nucleus) == {2}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.99), Sampling(top_k=2000)])
def test_a_model_that_is_loaded_meanwhile_makes_no_draw_coarser(sampling):
    torch.set_default_dtype(torch.bfloat16)
    try:
        drawn = pick(torch.zeros(2000, 2000), [sampling] * 2000)
    finally:
        torch.set_default_dtype(torch.float32)
    # Of 2,000 draws among as many about 1,260 are different ones.
    assert len(set(drawn.tolist())) > 1000


def test_a_nucleus_that_is_not_met_by_drawing_is_sorted(monkeypatch):
    monkeypatch.setattr(picking, "TRIES", 1)
    torch.manual_seed(0)
    flat = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])
    seen = shares(Sampling(top_p=0.7), flat)
    # 0.24 + 0.22 + 0.20 is short of 0.7, so the fourth belongs to it too.
    wanted = expected(flat, kept=[0, 1, 2, 3])
    assert seen[4] == 0
    assert stats.chisquare(seen[:4], wanted[:4] * DRAWS).pvalue > 0.001


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"max_new_tokens": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
