"""The loss of a reward model over comparisons: every completion is scored once, and all pairs of a comparison are one
element of a batch (Ouyang et al. 2022, arXiv 2203.02155, section 3.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import comb

import torch
import transformers

Pair = tuple[int, int, float]
"""The better completion, the worse one, both by their place in the comparison, and how much the pair counts."""


@dataclass(frozen=True, slots=True)
class Element:
    """One comparison, ready for the model."""

    ids: Sequence[Sequence[int]]
    """The tokens of each completion behind the context."""
    pairs: Sequence[Pair]
    weights: Sequence[float]
    """How much it counts for each head."""


def pairs_of(rankings: Sequence[Sequence[int | None]]) -> list[Pair]:
    """The strict pairs of all rankings of one comparison; None stands for a completion that a ranking leaves out.

    Each pair of a ranking over K counts 1 / C(K, 2), also where ties leave fewer: an order with ties says less. Several
    rankings of one comparison share its weight.
    """
    found = []
    for ranks in rankings:
        placed = [number for number, rank in enumerate(ranks) if rank is not None]
        if len(placed) < 2:
            continue
        share = 1 / (comb(len(placed), 2) * len(rankings))
        found += [(one, other, share) for one, other in permutations(placed, 2) if ranks[one] < ranks[other]]
    return found


def loss(
    rewards: torch.Tensor, *, better: torch.Tensor, worse: torch.Tensor, share: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The sum over pairs of share · −log σ(better − worse), in nats, as the mean over heads.

    `rewards` are (completions, heads), `weights` (pairs, heads), the others (pairs,); `better` and `worse` are rows of
    `rewards`. Without pairs it is 0.
    """
    apart = rewards[better] - rewards[worse]
    return (share[:, None] * weights * -torch.nn.functional.logsigmoid(apart)).sum() / rewards.shape[1]


def collated(elements: Sequence[Element], pad: int) -> dict[str, torch.Tensor]:
    """A batch of comparisons: the tokens of all completions, and the pairs by their rows among them.

    The shares are divided by the number of comparisons, so that the loss is the mean over them.
    """
    ids = [one for element in elements for one in element.ids]
    longest = max(map(len, ids))
    better, worse, share, weights = [], [], [], []
    first = 0
    for element in elements:
        for one, other, part in element.pairs:
            better.append(first + one)
            worse.append(first + other)
            share.append(part / len(elements))
            weights.append(list(element.weights))
        first += len(element.ids)
    return {
        "input_ids": torch.tensor([[*one, *[pad] * (longest - len(one))] for one in ids]),
        "attention_mask": torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids]),
        "better": torch.tensor(better, dtype=torch.long),
        "worse": torch.tensor(worse, dtype=torch.long),
        "share": torch.tensor(share),
        "weights": torch.tensor(weights, dtype=torch.float32).reshape(len(better), len(elements[0].weights)),
    }


class KwiseTrainer(transformers.Trainer):
    """The library's trainer with this loss; it is given lists of Element."""

    def __init__(self, **how):
        super().__init__(**how)
        # Its own guesses hold for losses that models compute from labels.
        self.can_return_loss, self.label_names, self.model_accepts_loss_kwargs = True, [], False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of a batch of `collated` (the name is the library's)."""
        inputs = dict(inputs)
        tokens = {name: inputs.pop(name) for name in ("input_ids", "attention_mask")}
        outputs = model(**tokens, use_cache=False)
        found = loss(outputs.logits.float(), **inputs)
        return (found, outputs) if return_outputs else found
