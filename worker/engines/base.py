"""What the serving loop asks of an engine, and the words that both share."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, Protocol


class LoadError(Exception):
    """The model cannot be served. Its text is one sentence for the people who run the site."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it: token ids, and the hash of the chat template that made them.

    `ends` are tokens that end this text beside those that end all of the model's.
    """

    token_ids: list[int]
    template_hash: str
    ends: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Sampling:
    """How to draw one text. `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 leave the distribution whole.

    Raises ValueError, with a sentence, for a value that no engine could honour.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed.")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it is 0 or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it is more than 0 and at most 1.")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it is 0 (all tokens) or more.")


@dataclass(frozen=True)
class Chunk:
    """A piece of one text. The pieces of a key only ever append, and their concatenation is the whole text.

    `finish` comes with the last piece: `stop` (the model ended its turn), `length` (max_new_tokens are used up)
    or `error`, with `error` saying why. Token counts are the totals so far.
    """

    key: Hashable
    text: str = ""
    finish: Literal["stop", "length", "error"] | None = None
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Engine(Protocol):
    """One loaded model that samples many texts at once. Its constructor raises LoadError.

    All methods are called by one thread, that of the serving loop.
    """

    context_tokens: int  # the longest prompt and text together
    capacity: int  # how many texts at once

    def render(self, messages: list[dict]) -> Rendered:
        """Render [{role, content}] for the model to answer. Raises ValueError when the template refuses them.

        After `prompts.USERS_TURN` as the last one the model writes as the user; an engine that cannot leave a turn
        of the user open renders `prompts.play_the_user(messages)`.
        """

    def submit(self, key: Hashable, rendered: Rendered, sampling: Sampling, *, urgent: bool = False) -> None:
        """Begin a text. An urgent one (somebody is looking at an empty bubble) is begun before all others."""

    def cancel(self, key: Hashable) -> None:
        """Give a text up. What is already on its way may still be read; no last piece follows."""

    def read(self, timeout: float) -> list[Chunk]:
        """All pieces since the last call; waits up to `timeout` seconds for the first one, [] when none came."""

    def alive(self) -> bool:
        """False when the engine broke: what was submitted is lost, and a new one must be made."""

    def close(self) -> None:
        """Stop at once and free the memory. Texts in flight are given up."""
