"""The engine that runs a Hugging Face model itself, with continuous batching over rows of keys and values.

One thread computes. It alternates between reading prompts, in pieces, and one step of all texts at once, so
that a new text starts while others are being written. A text whose beginning was read before, as that of the
n samples of one context or of a chat's next turn, takes over what was computed then.
"""

import logging
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch

from annotate import prompts
from worker.engines import loading, thoughts
from worker.engines.base import Chunk, LoadError, Sampling, TooLong
from worker.engines.detokeniser import Detokeniser
from worker.engines.picking import pick
from worker.engines.rows import Rows
from worker.engines.templates import ChatTemplate
from worker.engines.thoughts import Thoughts

logger = logging.getLogger(__name__)

PIECE = {"cpu": 128}
"""Prompt tokens read in one go: on a CPU about a tenth of a second of the demo model, which a reply may wait."""
PIECE_ELSEWHERE = 2048
READING_SECONDS = 0.2
"""How long prompts may be read while somebody waits for the next word of a text."""
WORTH_TAKING = 8
"""Tokens that a beginning must have in common to be taken over."""


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


@dataclass(eq=False)
class _Text:
    """One text in the making."""

    key: Hashable
    prompt: list[int]
    sampling: Sampling
    urgent: bool
    detokeniser: Detokeniser
    thoughts: Thoughts
    ends: set[int]  # tokens that end it
    next: int = -1  # the token that the next step feeds
    written: int = 0

    def needs(self) -> int:
        """Tokens of a row that it may fill."""
        return len(self.prompt) + self.sampling.max_new_tokens


@dataclass(eq=False)
class _Row:
    """What lies in one row of keys and values."""

    text: _Text | None = None
    tokens: list[int] = field(default_factory=list)
    left_at: float = 0.0


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
        self._cache = Rows(config.num_hidden_layers, capacity, self.rows)
        # The first `_writing` rows are of texts that are written, up to `_used` follow those whose prompt is being
        # read; the rest hold what earlier texts left.
        self._rows: list[_Row] = []
        self._writing = self._used = 0
        self._waiting: list[_Text] = []
        # Between the threads, under the condition's lock.
        self._change = threading.Condition()
        self._submitted: list[_Text] = []
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
        thinks = thoughts.left_open(self._tokenizer, ids, self._marks)
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
        text = _Text(
            key,
            ids,
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
        self._cache = self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # The computing thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        loading.share_the_cores()
        try:
            with torch.inference_mode():
                while self._take_over(wait=not (self._used or self._waiting)):
                    self._read_prompts()
                    if self._writing:
                        self._step()
        except Exception:
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
            for text in [row.text for row in self._rows[: self._used]]:
                if text.key in cancelled:
                    self._leave(text)
        return not closing

    def _read_prompts(self) -> None:
        """Read the prompts of new texts: all, so that many are written at once, unless somebody reads along."""
        until = time.monotonic() + READING_SECONDS
        while text := self._next_to_read():
            self._read_piece(text)
            if time.monotonic() > until and any(row.text.urgent for row in self._rows[: self._writing]):
                return
            # A reply that came meanwhile is read before the next piece of bulk.
            self._take_over(wait=False)

    def _next_to_read(self) -> _Text | None:
        reading = [row.text for row in self._rows[self._writing : self._used]]
        for urgent in (True, False):
            begun = next((text for text in reading if text.urgent == urgent), None)
            if begun:
                return begun
            waiting = next((text for text in self._waiting if text.urgent == urgent), None)
            if waiting and self._enter(waiting):
                self._waiting.remove(waiting)
                return waiting
            if waiting:
                # Smaller ones that came later must not take the room that it waits for.
                return next(iter(reading), None)
        return None

    def _read_piece(self, text: _Text) -> None:
        place = self._place_of(text)
        tokens = self._rows[place].tokens
        rest = text.prompt[len(tokens) :]
        if len(rest) == 1 and self._writing:
            # All but its last token was read for another text: it joins the next step of all.
            text.next = rest[0]
            self._begin_writing(text)
            return
        piece = rest[: self._piece]
        try:
            logits = self._forward(place, [piece], [len(tokens)])
        except RuntimeError as error:
            logger.exception("A prompt could not be read")
            self._fail(text, f"The model could not read the prompt: {error}")
            return
        tokens += piece
        if len(piece) == len(rest):
            self._begin_writing(text)
            self._write([text], logits)

    def _step(self) -> None:
        """One token more for every text that is being written."""
        rows = self._rows[: self._writing]
        logits = self._forward(0, [[row.text.next] for row in rows], [len(row.tokens) for row in rows])
        for row in rows:
            row.tokens.append(row.text.next)
        self._write([row.text for row in rows], logits)

    def _forward(self, first: int, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        """Run the model over `tokens` [rows, count], of rows `first` and on, each after `starts` earlier ones.

        Returns the logits after the last token of each, [rows, vocabulary].
        """
        count = len(tokens[0])
        positions = torch.tensor(starts)[:, None] + torch.arange(count)
        positions = positions.to(self._device)
        reach = self._cache.place(first, positions, max(starts) + count)
        out = self._model(
            input_ids=torch.tensor(tokens, device=self._device),
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
            least = torch.finfo(self._model.dtype).min
            masks = {kind: torch.where(mask, 0.0, least).to(self._model.dtype) for kind, mask in masks.items()}
        return masks if len(self._attention) > 1 else masks[next(iter(self._attention))]

    def _write(self, texts: list[_Text], logits: torch.Tensor) -> None:
        """Draw the next token of each text from its row of logits, and hand out what it says."""
        tokens = pick(logits, [text.sampling for text in texts]).tolist()
        chunks = []
        for text, token in zip(texts, tokens, strict=True):
            if token < 0:
                self._fail(text, "The model computed no numbers.")
                continue
            text.next, text.written = token, text.written + 1
            said, finish = "", None
            if token not in text.ends:
                said = text.detokeniser.add(token)
            words, thought = text.thoughts.add(said)
            if token in text.ends or text.written == text.sampling.max_new_tokens:
                rest = text.thoughts.finish(text.detokeniser.end())
                words, thought = words + rest[0], thought + rest[1]
                finish = "stop" if token in text.ends else "length"
                self._leave(text)
            chunks.append(Chunk(text.key, words, finish, "", len(text.prompt), text.written, reasoning=thought))
        self._hand_out(chunks)

    def _fail(self, text: _Text, error: str) -> None:
        # Its row may hold what is no number, which would reach the next text even through a mask.
        place = self._place_of(text)
        self._cache.clear(place)
        self._rows[place].tokens = []
        self._leave(text)
        self._hand_out([Chunk(text.key, "", "error", error, len(text.prompt), text.written)])

    def _hand_out(self, chunks: list[Chunk]) -> None:
        with self._change:
            self._outbox += chunks
            self._change.notify_all()

    # Rows -------------------------------------------------------------------------------------------

    def _enter(self, text: _Text) -> bool:
        """Give a text the row behind those in use; False while there is no room."""
        longest = max(one.needs() for one in [text, *(row.text for row in self._rows[: self._used])])
        if self._used >= self.capacity or not self._cache.fit(self._used + 1, longest):
            return False
        del self._rows[self._cache.count :]
        self._rows += [_Row() for _ in range(self._cache.count - len(self._rows))]
        shared = [_common(row.tokens, text.prompt) for row in self._rows]
        best = max(range(len(shared)), key=shared.__getitem__)
        # The last token is read in any case, for what follows it.
        taken = min(shared[best], len(text.prompt) - 1)
        if taken < WORTH_TAKING:
            taken, best = 0, 0
        free = range(self._used, len(self._rows))
        idle = best if best in free else min(free, key=lambda place: self._rows[place].left_at)
        self._swap(idle, self._used)
        if taken and best not in free:
            self._cache.copy(best, self._used, taken)
        self._rows[self._used] = _Row(text, text.prompt[:taken])
        self._used += 1
        return True

    def _begin_writing(self, text: _Text) -> None:
        self._swap(self._place_of(text), self._writing)
        self._writing += 1

    def _leave(self, text: _Text) -> None:
        """Take a text out of its row and close the gap; what lies there stays for one that begins alike."""
        place = self._place_of(text)
        if place < self._writing:
            self._writing -= 1
            self._swap(place, self._writing)
            place = self._writing
        self._used -= 1
        self._swap(place, self._used)
        self._rows[self._used].text = None
        self._rows[self._used].left_at = time.monotonic()

    def _swap(self, one: int, other: int) -> None:
        if one != other:
            rows = self._rows
            self._cache.swap(one, other, max(len(rows[one].tokens), len(rows[other].tokens)))
            rows[one], rows[other] = rows[other], rows[one]

    def _place_of(self, text: _Text) -> int:
        return next(place for place, row in enumerate(self._rows) if row.text is text)


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two lists begin with alike."""
    alike, differ = 0, min(len(one), len(other)) + 1
    while differ - alike > 1:
        middle = (alike + differ) // 2
        if one[alike:middle] == other[alike:middle]:
            alike = middle
        else:
            differ = middle
    return alike
