"""The engine that runs a Hugging Face model itself, with continuous batching over rows of keys and values.

One thread computes. It alternates between reading prompts, several at once and in pieces, and one step of all
texts, so that a new text starts while others are being written. A text whose beginning was read before, as that of
the n samples of one context or of a chat's next turn, takes over what was computed then.

Where memory is short, all texts give up their rows, fewer come back at once, and each goes on where it was. What a
pass of several texts cannot compute is computed for each alone, so that one that is poisoned fails alone.
"""

import logging
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass

import torch

from annotate import prompts
from worker.engines import faults, loading, thoughts
from worker.engines.base import Chunk, LoadError, Sampling, TooLong
from worker.engines.detokeniser import Detokeniser
from worker.engines.picking import pick
from worker.engines.rows import Rows
from worker.engines.seats import Seats, Text
from worker.engines.templates import ChatTemplate
from worker.engines.thoughts import Thoughts

logger = logging.getLogger(__name__)

PIECE = {"cpu": 128}
"""Prompt tokens read in one go: on a CPU about a tenth of a second of the demo model, which a reply may wait."""
PIECE_ELSEWHERE = 2048
READING_SECONDS = 0.2
"""How long prompts may be read while somebody waits for the next word of a text."""


@dataclass(frozen=True)
class Tokens:
    """A conversation as the model reads it: token ids, and the hash of the chat template that made them.

    `ends` are tokens that end this text beside those that end all of the model's; with `thinks` the template has
    already opened a thought for it.
    """

    token_ids: list[int]
    template_hash: str
    ends: frozenset[int] = frozenset()
    thinks: bool = False


class TransformersEngine:
    """See worker.engines.base.Engine."""

    # Texts are drawn together, from one generator.
    honours_seed = False

    def __init__(
        self,
        location: str,
        *,
        revision: str = "",
        capacity: int = 64,
        device: str = "auto",
        thinking: str = "",
        memory: int | None = None,
        **how: str,
    ):
        """`memory` are the bytes that it may take with its keys and values, where it has not what there is; `how` are
        the further settings of `loading.load`.
        """
        self._model, self._tokenizer = loading.load(location, revision, device, **how)
        config = self._model.config.get_text_config(decoder=True)
        self._device = self._model.device
        self._piece = PIECE.get(self._device.type, PIECE_ELSEWHERE)
        self._ends = loading.ends_of_turn(self._model, self._tokenizer)
        self._attention = set(loading.layer_types(self._model))
        self._window = getattr(config, "sliding_window", None)
        self._template = ChatTemplate(self._tokenizer, thinking)
        self._marks = thoughts.marks_of(self._tokenizer)
        self.capacity = capacity
        self.context_tokens = loading.context_tokens(self._model, self._tokenizer)
        weights, self.rows = self._model.get_memory_footprint(), loading.memory_for_rows(self._device)
        if memory is not None:
            self.rows = min(self.rows, max(0, memory - weights))
        self.memory = weights + self.rows
        self.device_lost = False
        self._cache = Rows(config.num_hidden_layers, capacity, self.rows)
        self._seats = Seats(self._cache)
        self._waiting: list[Text] = []
        # Between the threads, under the condition's lock.
        self._change = threading.Condition()
        self._submitted: list[Text] = []
        self._cancelled: set[Hashable] = set()
        self._closing = False
        self._outbox: list[Chunk] = []
        self._check(location)
        self._thread = threading.Thread(target=self._run, name=f"engine of {location}", daemon=True)
        self._thread.start()

    def _check(self, location: str) -> None:
        """Compare a step of two unequal texts with the model alone. Raises LoadError where they differ.

        A model that finds positions in a way of its own would else write nonsense. It also warms everything up.
        """
        size = self._model.get_input_embeddings().num_embeddings
        one, other = ([(7 * step + 3) % size for step in range(count)] for count in (9, 14))
        try:
            with torch.inference_mode():
                self._cache.fit(2, len(other))
                self._forward(0, [one[:-1]], [0])
                self._forward(1, [other[:5]], [0])
                self._forward(1, [other[5:-1]], [5])
                batched = self._forward(0, [one[-1:], other[-1:]], [len(one) - 1, len(other) - 1])
                for row, tokens in enumerate((one, other)):
                    ids = torch.tensor([tokens], device=self._device)
                    alone = self._model(input_ids=ids, use_cache=False).logits[0, -1]
                    centred = [logits.float() - logits.float().mean() for logits in (alone, batched[row])]
                    if not torch.cosine_similarity(*centred, dim=0) > 0.98:
                        raise LoadError(f"{location} computes something else for several texts than for one.")
        except LoadError:
            raise
        # A model's code may raise anything.
        except Exception as error:
            raise LoadError(f"{location} does not compute: {loading.in_one_line(error)}") from error

    # Called by the serving loop's thread ------------------------------------------------------------

    def render(self, messages: list[dict]) -> Tokens:
        """Render [{role, content}] with the model's chat template. Raises ValueError when it refuses them."""
        if messages[-1] == prompts.USERS_TURN:
            ids, ends = self._template.into_users_turn(messages)
        else:
            ids, ends = self._template.to_reply(messages), set()
        # A turn of the user may follow words of theirs that end like a mark, and nobody thinks in it.
        thinks = not ends and thoughts.left_open(self._tokenizer, ids, self._marks)
        return Tokens(ids, self._template.hash, frozenset(ends), thinks)

    def submit(self, key: Hashable, rendered: Tokens, sampling: Sampling, *, urgent: bool = False) -> None:
        """Begin a text. One that cannot be read, or does not fit, ends at once."""
        ids, over = rendered.token_ids, None
        try:
            sampling = sampling.within(self.context_tokens, len(ids))
        except TooLong as error:
            over = Chunk(key, finish="refused", error=str(error))
        if not ids or max(ids) >= self._model.get_input_embeddings().num_embeddings:
            over = Chunk(key, finish="error", error="The model does not know these tokens.")
        text = Text(
            key,
            list(ids),
            sampling,
            urgent,
            Detokeniser(self._tokenizer, self._marks.shown),
            Thoughts(self._marks, inside=rendered.thinks),
            self._ends | rendered.ends,
        )
        with self._change:
            if over:
                self._outbox.append(over)
            else:
                self._submitted.append(text)
            self._change.notify_all()

    def cancel(self, key: Hashable) -> None:
        """Give a text up."""
        with self._change:
            self._cancelled.add(key)
            self._change.notify_all()

    def read(self, timeout: float) -> list[Chunk]:
        """All pieces since the last call; waits up to `timeout` seconds for the first one."""
        with self._change:
            self._change.wait_for(lambda: self._outbox or not self._thread.is_alive(), timeout)
            chunks, self._outbox = self._outbox, []
        return chunks

    def alive(self) -> bool:
        """False when the computing thread ended."""
        return self._thread.is_alive()

    def away(self) -> str:
        """Never: it is in this process."""
        return ""

    def close(self) -> None:
        """Stop after the step that runs, and free the memory."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()
        self._cache = self._seats = self._model = None
        if not self.device_lost:
            faults.free_memory(self._device)

    # The computing thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        loading.share_the_cores()
        try:
            with torch.inference_mode():
                while self._take_over(wait=not (self._seats.used or self._waiting)):
                    self._read_prompts()
                    if self._seats.writing:
                        texts = self._seats.texts()[: self._seats.writing]
                        self._advance(texts, [1] * len(texts))
        except Exception as error:
            self.device_lost = faults.device_lost(error)
            logger.exception("The %s broke", self._thread.name)

    def _take_over(self, wait: bool) -> bool:
        """What was asked meanwhile, after waiting for something where nothing is to be done; False: to close."""
        with self._change:
            if wait:
                self._change.wait_for(lambda: self._submitted or self._closing)
            self._waiting += self._submitted
            self._submitted, cancelled, self._cancelled = [], self._cancelled, set()
            closing = self._closing
        if cancelled:
            self._waiting = [text for text in self._waiting if text.key not in cancelled]
            for text in self._seats.texts():
                if text.key in cancelled:
                    self._seats.leave(text)
        return not closing

    def _read_prompts(self) -> None:
        """Read the prompts of new texts: all, so that many are written at once, unless somebody reads along."""
        until = time.monotonic() + READING_SECONDS
        while True:
            self._let_in()
            texts, counts = self._next_to_read()
            if not texts:
                return
            self._advance(texts, counts)
            seats = self._seats
            if time.monotonic() > until and any(text.urgent for text in seats.texts()[: seats.writing]):
                return
            # A reply that came meanwhile is read before the next piece of bulk.
            if not self._take_over(wait=False):
                return

    def _let_in(self) -> None:
        """Give rows to those who wait, urgent ones first, as far as there is room."""
        later = 0
        for text in sorted(self._waiting, key=lambda text: (not text.urgent, text.number)):
            if self._seats.used + later >= self.capacity:
                return
            if self._seats.gains_by_waiting(text):
                later += 1
                continue
            try:
                entered = self._seats.enter(text, self.capacity)
            except Exception as error:
                if not faults.out_of_memory(error):
                    raise
                self._short_of_memory(error, text)
                return
            if not entered:
                # Smaller ones that came later must not take the room that it waits for.
                return
            self._waiting.remove(text)

    def _next_to_read(self) -> tuple[list[Text], list[int]]:
        """Neighbouring texts to read at once, and how many tokens of each: as many as a piece has, padded ones too."""
        seats = self._seats
        if seats.writing:
            # All but its last token was read for another text: it joins the next step of all.
            for text in [row.text for row in seats.rows[seats.writing : seats.used] if len(row.rest()) == 1]:
                seats.begin_writing(text)
        reading = seats.rows[seats.writing : seats.used]
        urgent = any(row.text.urgent for row in reading)
        texts, rests, longest = [], [], 0
        for row in reading:
            if row.text.urgent < urgent:
                if texts:
                    break
                continue
            rest = len(row.rest())
            long = max(longest, min(rest, self._piece))
            if texts and long * (len(texts) + 1) > self._piece:
                break
            longest = long
            texts.append(row.text)
            rests.append(rest)
        return texts, [min(rest, longest) for rest in rests]

    def _advance(self, texts: list[Text], counts: list[int]) -> None:
        """Have the model read the next tokens of neighbouring `texts`, so many of each, and write the next token of
        those that are read to their end.

        An error ends only the text that causes it, and too little memory none but one that had all of it. Raises what
        ends the engine.
        """
        try:
            done, drawn = self._feed(texts, counts)
        except Exception as error:
            if faults.out_of_memory(error):
                self._short_of_memory(error)
            else:
                self._one_by_one(texts, counts, error)
        else:
            self._write(done, drawn)

    def _feed(self, texts: list[Text], counts: list[int]) -> tuple[list[Text], list[int]]:
        """The pass of `_advance`: those that are read to their end, and the token that each goes on with."""
        seats = self._seats
        first = seats.place_of(texts[0])
        rows = seats.rows[first : first + len(texts)]
        pieces = [row.rest()[:count] for row, count in zip(rows, counts, strict=True)]
        logits = self._forward(first, pieces, [len(row.tokens) for row in rows])
        ends = [len(row.tokens) + len(piece) == len(row.text.ids) for row, piece in zip(rows, pieces, strict=True)]
        done = [text for text, end in zip(texts, ends, strict=True) if end]
        drawn = []
        if done:
            logits = logits if all(ends) else logits[[place for place, end in enumerate(ends) if end]]
            drawn = pick(logits, [text.sampling for text in done]).tolist()
        # Nothing of the record is changed before everything that may fail is over.
        for row, piece in zip(rows, pieces, strict=True):
            row.tokens += piece
        if first >= seats.writing:
            for text in done:
                seats.begin_writing(text)
        return done, drawn

    def _one_by_one(self, texts: list[Text], counts: list[int], error: Exception) -> None:
        """After a pass that failed: find out which text it fails for. Raises where it fails for any."""
        if faults.device_lost(error):
            raise error
        if len(texts) > 1:
            for text, count in zip(texts, counts, strict=True):
                # Meanwhile all may have lost their rows.
                if text in self._seats.texts():
                    self._advance([text], [count])
            return
        (text,) = texts
        logger.error("A text of %s tokens failed", len(text.ids), exc_info=error)
        # Where the model computes nothing at all, it is not the text's fault: the engine ends.
        self._model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=self._device), use_cache=False)
        self._fail(text, f"The model failed at this text: {loading.in_one_line(error)}", again=False)

    def _short_of_memory(self, error: Exception, entering: Text | None = None) -> None:
        """All texts give up their rows and wait again, for fewer at once; they keep what was written.

        A text that fails with all the memory to itself fails for good. `entering` is one whose row could not be made.
        """
        # The frames that it remembers hold on to tensors.
        error.with_traceback(None)
        texts = self._seats.texts()
        held, several = self._cache.bytes_held(), len(texts) + bool(entering) > 1
        alone = self._cache.count <= 1 and not several
        self._seats.clear_all()
        faults.free_memory(self._device)
        if alone:
            (text,) = texts or [entering]
            self._waiting = [one for one in self._waiting if one is not text]
            said = f"The memory of the model's device does not suffice for this text, at {len(text.ids)} tokens."
            self._hand_out([Chunk(text.key, "", "error", said, text.prompt_tokens, text.written, again=False)])
            return
        self._waiting = sorted([*self._waiting, *texts], key=lambda text: text.number)
        if several:
            self.capacity = max(1, self.capacity // 2)
            self._cache.most_rows = self.capacity
            # What was held while more could not be had was not too much.
            self._cache.most_bytes = min(self._cache.most_bytes, held if entering else held // 2)
            logger.warning("%s ran out of memory; it writes %s texts at once now", self._thread.name, self.capacity)

    def _forward(self, first: int, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        """Run the model over `tokens` of rows `first` and on, a list a row, each after `starts` earlier ones.

        Returns the logits after the last token of each, [rows, vocabulary]. Shorter rows repeat their last token in
        its place, which computes the same once more.
        """
        count = max(map(len, tokens))
        ids = [row + row[-1:] * (count - len(row)) for row in tokens]
        positions = [
            [*range(start, start + len(row)), *[start + len(row) - 1] * (count - len(row))]
            for row, start in zip(tokens, starts, strict=True)
        ]
        # In one copy to the device.
        ids, positions = torch.tensor([ids, positions]).to(self._device)
        longest = max(start + len(row) for row, start in zip(tokens, starts, strict=True))
        reach = self._cache.place(first, positions, longest)
        out = self._model(
            input_ids=ids,
            attention_mask=self._mask(positions, reach),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]

    def _mask(self, positions: torch.Tensor, reach: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """Which of `reach` places each token attends to, [rows, 1, count, reach]; by kind where layers differ."""
        places = torch.arange(reach, device=self._device)
        masks = {loading.FULL: places <= positions[:, None, :, None]}
        if self._window:
            masks[loading.SLIDING] = masks[loading.FULL] & (places > positions[:, None, :, None] - self._window)
        if self._model.config._attn_implementation == "eager":
            dtype = self._model.dtype
            least = torch.finfo(dtype).min
            masks = {
                kind: torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least) for kind, mask in masks.items()
            }
        return masks if len(self._attention) > 1 else masks[next(iter(self._attention))]

    def _write(self, texts: list[Text], tokens: list[int]) -> None:
        """Add to each text the token that was drawn for it, and hand out what it says."""
        chunks, over = [], []
        for text, token in zip(texts, tokens, strict=True):
            if token < 0:
                self._fail(text, "The model computed no numbers.")
                continue
            text.ids.append(token)
            said, finish = "", None
            if token not in text.ends:
                said = text.detokeniser.add(token)
            words, thought = text.thoughts.add(said)
            if token in text.ends or text.written == text.sampling.max_new_tokens:
                rest = text.thoughts.finish(text.detokeniser.end())
                words, thought = words + rest[0], thought + rest[1]
                finish = "stop" if token in text.ends else "length"
                over.append(text)
            chunks.append(Chunk(text.key, words, finish, "", text.prompt_tokens, text.written, reasoning=thought))
        # The last ones first, which leave no gaps for others to be moved into.
        for text in reversed(over):
            self._seats.leave(text)
        self._hand_out(chunks)

    def _fail(self, text: Text, error: str, *, again: bool = True) -> None:
        self._seats.spoil(text)
        self._seats.leave(text)
        self._hand_out([Chunk(text.key, "", "error", error, text.prompt_tokens, text.written, again)])

    def _hand_out(self, chunks: list[Chunk]) -> None:
        with self._change:
            self._outbox += chunks
            self._change.notify_all()
