"""A claimed request while it is being sampled: its texts so far, and what of them was told to the page."""

import time
from dataclasses import dataclass, field
from uuid import UUID

from annotate.generation import Sampled
from annotate.models import GenerationRequest
from worker.engines.base import Chunk

WHOLE_SECONDS = 2
"""How often all of a text is told, so that a page which came late or lost a piece is mended."""


@dataclass
class Text:
    """One of a request's n texts so far; times are in milliseconds from the claim."""

    index: int
    text: str = ""
    reasoning: str = ""  # what was thought before it
    told: int = 0  # characters that were published
    thinking_told: bool = False
    end_told: bool = False
    finish: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_ms: int | None = None  # of the thought, where there is one
    total_ms: int | None = None
    seed: int | None = None  # only where the engine honours one


@dataclass
class Job:
    """A request under its claim token."""

    request: GenerationRequest
    token: UUID
    template_hash: str = ""
    claimed_at: float = field(default_factory=time.monotonic)
    texts: list[Text] = field(default_factory=list)
    whole_told_at: float = field(default_factory=time.monotonic)
    # Tried before, and so kept apart from others: it may be what broke the engine.
    apart: bool = False
    begun: bool = False
    # Set once it is over: what to say to the record, asked again until the record has heard it.
    closing: tuple | None = None

    def __post_init__(self):
        self.texts = [Text(index) for index in range(self.request.n)]

    @property
    def bulk(self) -> bool:
        """Nobody looks at it while it is written."""
        return self.request.purpose == GenerationRequest.Purpose.ALTERNATIVES

    @property
    def began(self) -> bool:
        """Its first token has come."""
        return any(text.first_token_ms is not None for text in self.texts)

    def engine_keys(self) -> list[tuple[int, UUID, int]]:
        """What its texts are called at the engine; the token keeps two attempts apart."""
        return [(self.request.pk, self.token, text.index) for text in self.texts]

    def take(self, chunk: Chunk) -> bool:
        """Append a piece of text; True when it holds the first words of its text or its thought, or ends it."""
        text = self.texts[chunk.key[2]]
        now = round((time.monotonic() - self.claimed_at) * 1000)
        if text.first_token_ms is None:
            text.first_token_ms = now
        # The record keeps no NUL, and the page shows what the record will keep.
        words, thought = chunk.text.replace("\x00", ""), chunk.reasoning.replace("\x00", "")
        # A first token may be half a character, of which nothing can be shown yet.
        begins = (words and not text.text) or (thought and not text.reasoning)
        text.text += words
        text.reasoning += thought
        text.prompt_tokens, text.completion_tokens = chunk.prompt_tokens, chunk.completion_tokens
        if chunk.finish:
            text.finish, text.total_ms = chunk.finish, now
        return bool(begins or chunk.finish)

    def finished(self) -> bool:
        """All texts have their end."""
        return all(text.finish for text in self.texts)

    def sampled(self) -> list[Sampled]:
        """All texts, those without an end as stopped; such as have no token are left out."""
        now = round((time.monotonic() - self.claimed_at) * 1000)
        return [
            Sampled(
                index=text.index,
                text=text.text,
                reasoning=text.reasoning,
                finish_reason=text.finish or "stopped",
                prompt_tokens=text.prompt_tokens,
                completion_tokens=text.completion_tokens,
                first_token_ms=text.first_token_ms,
                total_ms=now if text.total_ms is None else text.total_ms,
                seed=text.seed,
            )
            for text in self.texts
            if text.completion_tokens
        ]

    def event(self, kind: str, **more) -> dict:
        """An event of its stream."""
        return {"kind": kind, "request": self.request.pk, "attempt": self.request.attempt, **more}

    def news(self) -> list[dict]:
        """Events with the text that was not told yet, and now and then with all of it; `finished` follows the last
        of a text. Of a thought is told only that it goes on.
        """
        whole = time.monotonic() - self.whole_told_at > WHOLE_SECONDS
        if whole:
            self.whole_told_at = time.monotonic()
        events = []
        for text in self.texts:
            if whole and text.text:
                events.append(self.event("text", index=text.index, offset=0, text=text.text, whole=True))
            elif len(text.text) > text.told:
                new = text.text[text.told :]
                events.append(self.event("text", index=text.index, offset=text.told, text=new, whole=False))
            elif text.reasoning and not text.text and (whole or not text.thinking_told):
                events.append(self.event("thinking", index=text.index))
                text.thinking_told = True
            text.told = len(text.text)
            if text.finish and (whole or not text.end_told):
                events.append(self.event("finished", index=text.index, finish=text.finish))
                text.end_told = True
        return events
