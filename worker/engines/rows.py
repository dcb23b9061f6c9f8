"""Keys and values of many texts at once: one row of tensors a text, written in place.

A growing cache copies itself for each token, and texts that start and end at different times leave no batch
of equal lengths. Here each layer has one tensor [rows, heads, length, size]; a text has a row, its token at
position p lies at p, and a mask hides what lies beyond each text's own end.
"""

from collections.abc import Iterator

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

STEP = 256
"""Rows grow by so many tokens."""


class Rows(Cache):
    """The rows of all layers, as the cache that a transformers model expects.

    `place` says where the tokens of the next pass go. Rows hold zeros where nothing was written:
    a masked value still takes part, times zero, and must be finite.
    """

    def __init__(self, layers: int, most_rows: int, most_bytes: int):
        super().__init__(layers=[_Layer(self) for _ in range(layers)])
        self.count, self.length = 1, STEP
        self.most_rows, self.most_bytes = most_rows, most_bytes
        self.first = self.below = self.reach = 0
        self.row_ids = self.positions = None

    def fit(self, rows: int, length: int) -> bool:
        """Make room for `rows` texts of `length` tokens, keeping what lies there.

        False, and nothing changed, where that is more memory than allowed; one text alone always fits.
        """
        length = -(-length // STEP) * STEP
        if rows <= self.count and length <= self.length:
            return True
        # Rows double, so that a burst does not copy everything for each text.
        count = self.count if rows <= self.count else max(rows, min(self.most_rows, 2 * self.count))
        roomy, tight = (count, max(length, self.length)), (rows, length)
        for count, long in (roomy, tight):
            alone = rows == 1 and (count, long) == tight
            if alone or count * long * self._bytes_of_a_token() <= self.most_bytes:
                for layer in self.layers:
                    layer.resize(count, long)
                self.count, self.length = count, long
                return True
        return False

    def place(self, first: int, positions: torch.Tensor, tokens: int) -> int:
        """The next pass writes rows `first` and on at `positions` [rows, count], which reach up to `tokens`.

        Returns how many places of each row the pass sees: some more than `tokens`, so that kernels made for one
        shape serve many steps.
        """
        self.first, self.below = first, first + len(positions)
        self.row_ids = torch.arange(self.first, self.below, device=positions.device)[:, None]
        self.positions = positions
        self.reach = min(self.length, -(-tokens // 32) * 32)
        return self.reach

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of one row to another."""
        for tensor in self._tensors():
            tensor[target, :, :tokens] = tensor[source, :, :tokens]

    def swap(self, one: int, other: int, tokens: int) -> None:
        """Exchange the first tokens of two rows."""
        for tensor in self._tensors():
            kept = tensor[one, :, :tokens].clone()
            tensor[one, :, :tokens] = tensor[other, :, :tokens]
            tensor[other, :, :tokens] = kept

    def clear(self, row: int) -> None:
        """Fill a row with zeros."""
        for tensor in self._tensors():
            tensor[row] = 0

    def bytes_held(self) -> int:
        """Memory that the rows take."""
        return self.count * self.length * self._bytes_of_a_token()

    def release(self) -> None:
        """Give up all rows with their memory, also where they had grown in some layers only."""
        self.count, self.length = 0, STEP
        for layer in self.layers:
            layer.resize(0, STEP)

    def _tensors(self) -> Iterator[torch.Tensor]:
        for layer in self.layers:
            if layer.is_initialized:
                yield layer.keys
                yield layer.values

    def _bytes_of_a_token(self) -> int:
        return sum(tensor.shape[1] * tensor.shape[3] * tensor.element_size() for tensor in self._tensors())


class _Layer(CacheLayerMixin):
    """One layer of Rows. Layers may differ in heads and sizes, so the first pass says what each one keeps."""

    is_sliding = False

    def __init__(self, rows: Rows):
        super().__init__()
        self._rows = rows

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = (self._rows.count, key_states.shape[1], self._rows.length)
        self.keys = key_states.new_zeros(*shape, key_states.shape[3])
        self.values = value_states.new_zeros(*shape, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values, and return the rows of this pass from their beginning."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows = self._rows
        self.keys[rows.row_ids, :, rows.positions] = key_states.transpose(1, 2)
        self.values[rows.row_ids, :, rows.positions] = value_states.transpose(1, 2)
        here = (slice(rows.first, rows.below), slice(None), slice(rows.reach))
        return self.keys[here], self.values[here]

    def resize(self, count: int, length: int) -> None:
        """Move into tensors of another size, with what fits."""
        if not self.is_initialized:
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(count, old.shape[1], length, old.shape[3])
            rows, tokens = min(count, len(old)), min(length, old.shape[2])
            new[:rows, :, :tokens] = old[:rows, :, :tokens]
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what `update` returns."""
        return self._rows.reach, 0

    def get_seq_length(self) -> int:
        """What the model may take for the number of earlier tokens; positions are always given beside it."""
        return self._rows.reach

    def get_max_length(self) -> int:
        """No end of its own."""
        return -1
