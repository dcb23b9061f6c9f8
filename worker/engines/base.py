"""What the serving loop asks of an engine, and the words that both share."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal, Protocol


class LoadError(Exception):
    """The model cannot be served. Its text is one sentence for the people who run the site."""


LEAST_TOKENS = 32
"""Room for a reply that a conversation must leave in the model's context, or all of `max_new_tokens` where less."""


class TooLong(Exception):
    """A conversation leaves no room for a reply. Its text is one sentence for the person who wrote it."""


class Rendered(Protocol):
    """A conversation as its engine takes it; what else it holds is between the engine's `render` and `submit`."""

    template_hash: str  # of the chat template; empty where a server keeps its own to itself


@dataclass(frozen=True)
class Size:
    """Bytes that a model will take: its weights, and the least share for keys and values."""

    weights: int
    rows: int


@dataclass(frozen=True)
class Server:
    """How the server of a policy is spoken to, for engines that load nothing themselves."""

    served_as: str  # the model's name there
    key_variable: str = ""
    concurrency: int = 32  # requests at once
    context_tokens: int | None = None  # where the server does not tell
    honours_seed: bool = False
    thinking: str = ""  # "on" or "off" where the policy chooses whether its model thinks first


@dataclass(frozen=True)
class Sampling:
    """How to draw one text. `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 leave the distribution whole.

    Raises ValueError, with a sentence, for a value that no engine could honour.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None  # for engines that honour one

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed.")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it is 0 or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it is more than 0 and at most 1.")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it is 0 (all tokens) or more.")

    def within(self, context_tokens: int, prompt_tokens: int) -> "Sampling":
        """The same for what a prompt leaves of the context: a reply that fills it ends as one cut at its longest.

        Raises TooLong where that is next to nothing.
        """
        room = context_tokens - prompt_tokens
        least = min(self.max_new_tokens, LEAST_TOKENS)
        if room < least:
            raise TooLong(
                f"This is {least - room} tokens too long for the model: {prompt_tokens} and at least "
                f"{least} of a reply, where {context_tokens} fit."
            )
        return replace(self, max_new_tokens=min(self.max_new_tokens, room))


@dataclass(frozen=True)
class Chunk:
    """A piece of one text. The pieces of a key only ever append, and their concatenation is the whole text.

    `reasoning` appends in the same way to what a model that thinks wrote before the text; none of it is in `text`.

    `finish` comes with the last piece: `stop` (the model ended its turn), `length` (max_new_tokens are used up),
    `refused` (the conversation does not fit the model) or `error`, the last two with `error` saying why. `again` is
    False for an error that another attempt would meet too. Token counts are the totals so far.
    """

    key: Hashable
    text: str = ""
    finish: Literal["stop", "length", "refused", "error"] | None = None
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    again: bool = True
    reasoning: str = ""


class Engine(Protocol):
    """One loaded model that samples many texts at once. Its constructor raises LoadError.

    All methods are called by one thread, that of the serving loop.
    """

    context_tokens: int  # the longest prompt and text together
    capacity: int  # how many texts at once; it falls where memory is short
    memory: int  # bytes that it takes at most, 0 where it loads nothing
    rows: int  # of them, those of keys and values
    honours_seed: bool  # the same seed gives the same text
    device_lost: bool  # it broke, and no engine of this process can compute on its device any more

    def render(self, messages: list[dict]) -> Rendered:
        """Render [{role, content}] for the model to answer. Raises ValueError when the template refuses them.

        After `prompts.USERS_TURN` as the last one the model writes as the user; an engine that cannot leave a turn
        of the user open renders `prompts.play_the_user(messages)`.
        """

    def submit(self, key: Hashable, rendered: Rendered, sampling: Sampling, *, urgent: bool = False) -> None:
        """Begin a text. An urgent one (somebody is looking at an empty bubble) is begun before all others.

        One that does not fit the model's context ends at once with a piece that says `refused`.
        """

    def cancel(self, key: Hashable) -> None:
        """Give a text up. What is already on its way may still be read; no last piece follows."""

    def read(self, timeout: float) -> list[Chunk]:
        """All pieces since the last call; waits up to `timeout` seconds for the first one, [] when none came."""

    def alive(self) -> bool:
        """False when the engine broke: what was submitted is lost, and a new one must be made."""

    def away(self) -> str:
        """Why nothing should be submitted for now, in a sentence for people; empty where all is well.

        The engine itself finds out when that is over.
        """

    def close(self) -> None:
        """Stop at once and free the memory. Texts in flight are given up."""
