"""Text out of tokens as they come."""

from collections.abc import Mapping
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"
"""What decoding puts where bytes are not (yet) a whole character."""


class Detokeniser:
    """Turns token ids into pieces of text that only ever append and never end inside a character.

    Special tokens say nothing, but for those of `shown`, ids and the text of each.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, shown: Mapping[int, str] = MappingProxyType({})):
        self._tokenizer = tokenizer
        self._shown = shown
        self._ids: list[int] = []
        # Tokens before `_given` are written. Those from `_context` on are decoded again with the new ones, because
        # what a token looks like depends on its neighbours (the blank before a word, for one).
        self._context = 0
        self._given = 0

    def add(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        if token_id in self._shown:
            said = self.end() + self._shown[token_id]
            self._ids.append(token_id)
            self._context = self._given = len(self._ids)
            return said
        self._ids.append(token_id)
        before, now = self._decode(self._context, self._given), self._decode(self._context)
        if len(now) <= len(before) or now.endswith(BROKEN):
            return ""
        self._context, self._given = self._given, len(self._ids)
        return now[len(before) :]

    def end(self) -> str:
        """What was held back, less a character that will not be finished any more."""
        before, now = self._decode(self._context, self._given), self._decode(self._context)
        self._given = len(self._ids)
        return now[len(before) :].rstrip(BROKEN)

    def _decode(self, first: int, below: int | None = None) -> str:
        ids = self._ids[first:below]
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
