"""Drawing the next tokens, each text with its own settings."""

import torch

from worker.engines.base import Sampling

NUCLEUS = 1024
"""How many of the likeliest tokens are sorted for top_p. Sorting all 49,152 of 64 texts took 117 ms, these 15."""


def pick(logits: torch.Tensor, samplings: list[Sampling]) -> torch.Tensor:
    """One token id for each row of `logits` [texts, vocabulary], float32; returns [texts].

    As in transformers the order is temperature, top_k, top_p, and temperature 0 takes the likeliest.
    """
    picked = logits.argmax(-1)
    cut = [row for row, one in enumerate(samplings) if one.temperature and (one.top_k or one.top_p < 1)]
    whole = [row for row, one in enumerate(samplings) if one.temperature and not (one.top_k or one.top_p < 1)]
    if whole:
        picked[whole] = _draw(_scaled(logits, samplings, whole).softmax(-1))
    if cut:
        picked[cut] = _from_likeliest(_scaled(logits, samplings, cut), [samplings[row] for row in cut])
    return picked


def _scaled(logits: torch.Tensor, samplings: list[Sampling], rows: list[int]) -> torch.Tensor:
    temperatures = torch.tensor([samplings[row].temperature for row in rows], device=logits.device)
    # Less would overflow; the likeliest token is certain long before.
    return logits[rows] / temperatures.clamp(min=1e-4)[:, None]


def _from_likeliest(logits: torch.Tensor, samplings: list[Sampling]) -> torch.Tensor:
    vocabulary = logits.shape[-1]
    widest = min(vocabulary, max(NUCLEUS, *(one.top_k for one in samplings)))
    values, ids = logits.topk(widest)
    most = torch.tensor([one.top_k or vocabulary for one in samplings], device=logits.device)[:, None]
    share = torch.tensor([one.top_p for one in samplings], device=logits.device)[:, None]
    every = logits.logsumexp(-1, keepdim=True)
    if widest < vocabulary and bool((((values - every).exp().sum(-1, keepdim=True) < share) & (most > widest)).any()):
        # A flat distribution: some nucleus reaches further than what was sorted.
        values, ids = logits.sort(-1, descending=True)
    ranks = torch.arange(values.shape[-1], device=logits.device)
    kept = values.masked_fill(ranks >= most, float("-inf"))
    # Shares are of what top_k left: of everything, where it left everything.
    probabilities = (kept - torch.where(most < vocabulary, kept.logsumexp(-1, keepdim=True), every)).exp()
    before = probabilities.cumsum(-1) - probabilities
    # The likeliest always stays, however small top_p is.
    probabilities = probabilities.masked_fill((before >= share) & (ranks > 0), 0)
    return ids.gather(-1, _draw(probabilities)[:, None])[:, 0]


def _draw(probabilities: torch.Tensor) -> torch.Tensor:
    # By the inverse of the distribution function, with one random number a row: torch.multinomial draws one for
    # every token, which took 60 ms for 64 rows.
    reached = probabilities.cumsum(-1)
    # In (0, total]: a token without probability is never found.
    aims = (1 - torch.rand(len(reached), 1, device=reached.device)) * reached[:, -1:]
    return torch.searchsorted(reached, aims)[:, 0].clamp(max=reached.shape[-1] - 1)
