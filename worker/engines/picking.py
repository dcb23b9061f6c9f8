"""Drawing the next tokens, each text with its own settings."""

import torch

from worker.engines.base import Sampling

AT_ONCE_ON_CPU = 8
"""Texts whose logits are worked on together. All 64 at once need new memory from the system for each step of the
computation, which took 36 ms for what takes 8."""
TRIES = 6
"""Draws for a nucleus before the vocabulary is sorted. Each succeeds as often as top_p says, or more often."""


def pick(logits: torch.Tensor, samplings: list[Sampling]) -> torch.Tensor:
    """One token id for each row of `logits` [texts, vocabulary]; returns [texts], -1 where they are no numbers.

    As in transformers the order is temperature, top_k, top_p, and temperature 0 takes the likeliest. Nothing is left to
    torch's default precision, which another thread changes while it loads a model: in bfloat16 a number drawn at random
    has 256 values, and most tokens would never be drawn.
    """
    size = AT_ONCE_ON_CPU if logits.device.type == "cpu" else len(logits)
    pieces = range(0, len(logits), size)
    return torch.cat([_pick(logits[first : first + size].float(), samplings[first : first + size]) for first in pieces])


def _pick(logits: torch.Tensor, samplings: list[Sampling]) -> torch.Tensor:
    sound = torch.isfinite(logits.amax(-1))
    # To ask a GPU would be to wait for it, which is done once a step: for the tokens.
    if logits.device.type != "cpu" or not sound.all():
        logits = torch.where(sound[:, None], logits, 0)
    picked = torch.empty(len(samplings), dtype=torch.long, device=logits.device)
    greedy, likeliest, nucleus = [], [], []
    for row, one in enumerate(samplings):
        (greedy if not one.temperature else likeliest if one.top_k else nucleus).append(row)
    if greedy:
        picked[greedy] = logits[greedy].argmax(-1)
    for rows, draw in ((likeliest, _from_likeliest), (nucleus, _from_nucleus)):
        if rows:
            # As a rule all are drawn in one way, and nothing needs to be gathered.
            rows = rows if len(rows) < len(samplings) else slice(None)
            chosen = samplings if isinstance(rows, slice) else [samplings[row] for row in rows]
            # Less would overflow; the likeliest token is certain long before.
            temperatures = logits.new_tensor([max(one.temperature, 1e-4) for one in chosen])
            picked[rows] = draw(logits[rows] / temperatures[:, None], chosen)
    return picked.masked_fill(~sound, -1)


def _from_nucleus(logits: torch.Tensor, samplings: list[Sampling]) -> torch.Tensor:
    """Draw from all, again where that fell outside the nucleus: where tokens likelier than it have top_p already.

    On a CPU sorting all 49,152 tokens of 64 texts takes a tenth of a second, this a tenth of that. A GPU sorts them
    sooner than it would be asked six times how many are left.
    """
    cut = any(one.top_p < 1 for one in samplings)
    if cut and logits.device.type != "cpu":
        return _from_likeliest(logits, samplings)
    probabilities = logits.softmax(-1)
    if not cut:
        return _draw(probabilities)
    shares = logits.new_tensor([one.top_p for one in samplings])
    picked = _draw(probabilities)
    rows = torch.arange(len(samplings), device=logits.device)
    for _ in range(TRIES):
        rows = rows[shares[rows] < 1]
        some = probabilities[rows]
        likelier = some * (some > some.gather(-1, picked[rows, None]))
        rows = rows[likelier.sum(-1) >= shares[rows]]
        if not len(rows):
            return picked
        picked[rows] = _draw(probabilities[rows])
    picked[rows] = _from_likeliest(logits[rows], [samplings[row] for row in rows.tolist()])
    return picked


def _from_likeliest(logits: torch.Tensor, samplings: list[Sampling]) -> torch.Tensor:
    """Sort the likeliest, as many as the largest top_k (0: all), and draw from what top_k and then top_p leave."""
    vocabulary = logits.shape[-1]
    most = [min(one.top_k or vocabulary, vocabulary) for one in samplings]
    values, ids = logits.topk(max(most))
    ranks = torch.arange(max(most), device=logits.device)
    outside = ranks >= torch.tensor(most, device=logits.device)[:, None]
    probabilities = values.masked_fill(outside, float("-inf")).softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    # The likeliest always stays, however small top_p is.
    shares = logits.new_tensor([one.top_p for one in samplings])[:, None]
    drawn = _draw(probabilities.masked_fill((before >= shares) & (ranks > 0), 0))
    return ids.gather(-1, drawn[:, None])[:, 0]


def _draw(probabilities: torch.Tensor) -> torch.Tensor:
    """One token a row, by the inverse of the distribution function.

    torch.multinomial draws a random number for each token instead of each row, and takes six times as long.
    """
    reached = probabilities.cumsum(-1)
    # In (0, total]: a token without probability is never found.
    aims = (1 - torch.rand_like(reached[:, -1:])) * reached[:, -1:]
    return torch.searchsorted(reached, aims)[:, 0].clamp(max=reached.shape[-1] - 1)
