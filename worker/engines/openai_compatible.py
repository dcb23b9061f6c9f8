"""The engine that asks a server which speaks /v1/chat/completions: vLLM, SGLang, llama.cpp, hosted ones.

A thread of its own runs an event loop in which every text is one question. A question of which no word came is asked
again after a pause; a text that breaks off later is an error, which the queue tries again. When the server fails
several times in a row the engine says that it is away, and asks a first question ever less often until one is answered.
"""

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace

from django.conf import settings

from annotate import prompts
from worker.engines.base import LEAST_TOKENS, Chunk, LoadError, Sampling, Server, TooLong
from worker.engines.chat_completions import (
    Away,
    BadQuestion,
    ChatServer,
    Piece,
    PromptTooLong,
    ServerError,
    ThoughtAloud,
    Unusable,
)
from worker.engines.thoughts import ANY, Thoughts

logger = logging.getLogger(__name__)

FAILURES = 3
"""In a row, after which the server counts as away."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60
LONGEST_RETRY_SECONDS = 60
"""A server that wants to be left alone for longer is not waited for with a question in hand."""

UNOPENED = "\n</think>\n"
"""In the text of a model whose template opens a thought for it, at a server that leaves the thought there."""
OPENED = "<think>"
"""Before that in the text of one that writes about such marks."""


@dataclass(frozen=True)
class Turns:
    """A conversation as it is sent; the server's own template renders it."""

    messages: list[dict]
    template_hash: str = ""


class _Joined:
    """Characters that a server cut in two, put together again."""

    def __init__(self):
        self._half = ""

    def add(self, text: str) -> str:
        """The whole characters so far; a first half waits for its second."""
        text = self._half + text
        cut = len(text) - bool(text and "\ud800" <= text[-1] <= "\udbff")
        text, self._half = text[:cut], text[cut:]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class _Answer:
    """The text and the thought of one answer, out of its pieces.

    Most servers send the two apart; those that do not leave the marks in the text.
    """

    def __init__(self):
        self._text, self._thought = _Joined(), _Joined()
        self._thoughts = Thoughts(ANY)
        self._apart = self._begun = False
        self._parted = False  # where its thought ends is known, or it writes about marks
        self._end = ""  # of the text so far

    def add(self, piece: Piece) -> tuple[str, str]:
        """The words of the text, and of the thought, that are whole with this piece. Raises ThoughtAloud."""
        apart = self._thought.add(piece.thought)
        self._apart = self._apart or bool(apart)
        words = self._text.add(piece.text)
        if self._apart and not self._begun:
            # What stood between the two.
            words = words.lstrip()
        text, thought = self._thoughts.add(words)
        self._begun = self._begun or bool(text)
        self._end = f"{self._end}{text}"
        self._parted = self._parted or bool(apart or thought) or OPENED in self._end
        if self._begun and not self._parted and UNOPENED in self._end:
            raise ThoughtAloud(
                "The server sends the model's thoughts as part of the text. Start it so that it keeps them apart "
                "(vLLM and SGLang: --reasoning-parser)."
            )
        self._end = self._end[-len(UNOPENED) :]
        return text, apart + thought

    def finish(self) -> tuple[str, str]:
        """What was held back, as it might have been the beginning of a mark."""
        return self._thoughts.finish()


@dataclass(order=True)
class _Text:
    """One text in the making; the urgent come first, then the older."""

    rank: tuple[bool, int]
    key: Hashable = field(compare=False)
    messages: list[dict] = field(compare=False)
    sampling: Sampling = field(compare=False)
    begun: bool = field(compare=False, default=False)  # words of it, or of its thought, were handed out
    prompt_tokens: int = field(compare=False, default=0)
    completion_tokens: int = field(compare=False, default=0)


class OpenAICompatibleEngine:
    """See worker.engines.base.Engine."""

    memory = rows = 0

    def __init__(self, location: str, server: Server):
        self.capacity = server.concurrency
        self.honours_seed = server.honours_seed
        self.device_lost = False
        self.context_tokens = 0
        self._location, self._settings = location, server
        self._numbers = itertools.count()
        # Between the threads, under the condition's lock.
        self._change = threading.Condition()
        self._outbox: list[Chunk] = []
        self._away = ""
        # Of the event loop's thread.
        self._loop = asyncio.new_event_loop()
        self._server: ChatServer | None = None
        self._waiting: list[_Text] = []
        self._tasks: dict[Hashable, asyncio.Task] = {}
        self._failures, self._heard_at = 0, 0.0
        self._probe: asyncio.Task | None = None
        self._warned = False
        self._thread = threading.Thread(target=self._run, name=f"engine of {location}", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._meet(), self._loop).result()
        except ServerError as error:
            self.close()
            raise LoadError(str(error)) from error
        except BaseException:
            self.close()
            raise

    # Called by the serving loop's thread ------------------------------------------------------------

    def render(self, messages: list[dict]) -> Turns:
        """The messages themselves; the server's template cannot leave a turn of the user open."""
        if messages[-1] == prompts.USERS_TURN:
            return Turns(prompts.play_the_user(messages))
        return Turns(messages)

    def submit(self, key: Hashable, rendered: Turns, sampling: Sampling, *, urgent: bool = False) -> None:
        """Ask for a text, once fewer than `capacity` are being asked for."""
        text = _Text((not urgent, next(self._numbers)), key, rendered.messages, sampling)
        self._call(self._enter, text)

    def cancel(self, key: Hashable) -> None:
        """Give a text up; the connection is closed, by which servers learn of it."""
        self._call(self._give_up, key)

    def read(self, timeout: float) -> list[Chunk]:
        """All pieces since the last call; waits up to `timeout` seconds for the first one."""
        with self._change:
            self._change.wait_for(lambda: self._outbox or not self._thread.is_alive(), timeout)
            chunks, self._outbox = self._outbox, []
        return chunks

    def alive(self) -> bool:
        """False when the thread ended."""
        return self._thread.is_alive()

    def away(self) -> str:
        """Why the server is not asked for now."""
        return self._away

    def close(self) -> None:
        """Close all connections and end the thread."""
        self._call(self._loop.stop)
        self._thread.join()

    def _call(self, act: Callable, *arguments) -> None:
        # The loop is closed where the thread broke.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act, *arguments)

    # The event loop's thread ------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._leave())
        except Exception:
            logger.exception("The %s broke", self._thread.name)
        finally:
            self._loop.close()

    async def _leave(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server:
            await self._server.close()
        await self._loop.shutdown_asyncgens()

    async def _meet(self) -> None:
        """Find out whether the server answers, and how long its context is. Raises ServerError, LoadError."""
        self._server = ChatServer(self._location, self._settings)
        told = await _patiently(self._server.max_model_len)
        if self._settings.thinking and not self._server.lets_choose_thinking:
            raise LoadError(
                f"The server {self._location} does not say that it is vLLM, SGLang or llama.cpp, so that it cannot be "
                "told whether the model thinks: choose that at the server, and add a policy whose field thinking is "
                "left empty."
            )
        await _patiently(self._server.greet)
        self.context_tokens = told or self._settings.context_tokens or 0
        if not self.context_tokens:
            raise LoadError(
                f"The server {self._location} does not tell how long the context of {self._settings.served_as} is: "
                "add a policy that says it in its field context tokens."
            )

    def _enter(self, text: _Text) -> None:
        heapq.heappush(self._waiting, text)
        self._begin_what_fits()

    def _give_up(self, key: Hashable) -> None:
        self._waiting = [text for text in self._waiting if text.key != key]
        heapq.heapify(self._waiting)
        if key in self._tasks:
            self._tasks[key].cancel()

    def _begin_what_fits(self) -> None:
        while self._waiting and len(self._tasks) < self.capacity:
            text = heapq.heappop(self._waiting)
            task = self._loop.create_task(self._write(text))
            self._tasks[text.key] = task
            task.add_done_callback(lambda _, key=text.key: self._end(key))

    def _end(self, key: Hashable) -> None:
        del self._tasks[key]
        self._begin_what_fits()

    async def _write(self, text: _Text) -> None:
        """Ask until the text is there, or cannot be had."""
        try:
            await self._ask_patiently(text)
        except (PromptTooLong, TooLong) as error:
            self._hand_out(text, finish="refused", error=str(error))
        except ServerError as error:
            self._hand_out(
                text, finish="error", error=str(error), again=not isinstance(error, (BadQuestion, ThoughtAloud))
            )
        except Exception as error:
            logger.exception("A text could not be asked for")
            self._hand_out(text, finish="error", error=f"The engine failed: {type(error).__name__}.")

    async def _ask_patiently(self, text: _Text) -> None:
        sampling = text.sampling.within(self.context_tokens, 1)
        tries, began = 0, time.monotonic()
        while True:
            try:
                await self._ask(text, sampling)
                self._failures = 0
                return
            except PromptTooLong as error:
                if text.begun:
                    raise Away(str(error)) from error
                sampling = self._shorter(sampling, error)
            except Away as error:
                tries += 1
                pause = _pause(tries, error)
                if text.begun or error.hung or tries > settings.SERVER_RETRIES or pause > LONGEST_RETRY_SECONDS:
                    self._count(text, error, tries, began)
                    raise
                await asyncio.sleep(pause)
            except Unusable as error:
                self._open(error)
                raise

    def _shorter(self, sampling: Sampling, error: PromptTooLong) -> Sampling:
        """Ask for what the prompt leaves room for; half as much where the server does not say how long it is.

        Raises PromptTooLong where that is next to nothing.
        """
        before = sampling.max_new_tokens
        if error.prompt_tokens is not None and error.prompt_tokens + before > self.context_tokens:
            return sampling.within(self.context_tokens, error.prompt_tokens)
        if before <= LEAST_TOKENS:
            raise PromptTooLong(f"This is too long for the model. {error}")
        return replace(sampling, max_new_tokens=max(LEAST_TOKENS, before // 2))

    async def _ask(self, text: _Text, sampling: Sampling) -> None:
        pieces, finish, counted, answer = 0, "", False, _Answer()
        text.prompt_tokens = text.completion_tokens = 0
        async with contextlib.aclosing(self._server.ask(text.messages, sampling)) as stream:
            async for piece in stream:
                self._heard_at = time.monotonic()
                finish = finish or piece.finish
                if piece.prompt_tokens is not None:
                    text.prompt_tokens = piece.prompt_tokens
                if piece.completion_tokens:
                    text.completion_tokens, counted = piece.completion_tokens, True
                elif piece.text or piece.thought:
                    pieces += 1
                    text.completion_tokens = text.completion_tokens if counted else pieces
                self._hand_out(text, *answer.add(piece))
        if not counted:
            self._warn_of_counts()
        self._hand_out(text, *answer.finish(), finish="length" if finish == "length" else "stop")

    def _hand_out(self, text: _Text, words: str = "", thought: str = "", **end) -> None:
        if not (words or thought or end):
            return
        text.begun = text.begun or bool(words or thought)
        counts = {"prompt_tokens": text.prompt_tokens, "completion_tokens": text.completion_tokens}
        chunk = Chunk(text.key, words, reasoning=thought, **counts, **end)
        with self._change:
            self._outbox.append(chunk)
            self._change.notify_all()

    def _warn_of_counts(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("%s sends no token counts: those kept are of the pieces that came", self._location)

    # The circuit ------------------------------------------------------------------------------------

    def _count(self, text: _Text, error: Away, tries: int, began: float) -> None:
        """A text was given up. Where others were answered meanwhile this one's failure says nothing of the server."""
        if not text.begun and self._heard_at > began:
            return
        self._failures += FAILURES if error.hung and not text.begun else tries
        if self._failures >= FAILURES:
            self._open(error)

    def _open(self, error: ServerError) -> None:
        if self._probe is None:
            self._away = str(error)
            self._probe = self._loop.create_task(self._ask_until_well(error))

    async def _ask_until_well(self, error: ServerError) -> None:
        pause = settings.SERVER_PAUSE_SECONDS
        while True:
            wanted = getattr(error, "pause", None) or 0
            await asyncio.sleep(max(min(wanted, 10 * LONGEST_PAUSE_SECONDS), pause * _about_one()))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                await self._server.greet()
            except ServerError as again:
                error, self._away = again, str(again)
            except Exception as again:
                logger.exception("The server could not be tried")
                error, self._away = again, f"The engine failed: {type(again).__name__}."
            else:
                self._failures, self._away, self._probe = 0, "", None
                logger.warning("%s answers again", self._location)
                return


async def _patiently(ask: Callable[[], Awaitable]):
    """What the server tells at once, after some tries: a server may close a connection just when it is used again."""
    for tries in itertools.count(1):
        try:
            return await ask()
        except Away as error:
            if error.hung or tries > settings.SERVER_RETRIES or _pause(tries, error) > LONGEST_RETRY_SECONDS:
                raise
            await asyncio.sleep(_pause(tries, error))


def _pause(tries: int, error: Away) -> float:
    """Until the next try: twice as long each time, a little by chance; no shorter than the server wants."""
    return max(error.pause or 0, FIRST_PAUSE_SECONDS * 2 ** (tries - 1) * _about_one())


def _about_one() -> float:
    """Else all texts that failed together would ask again together."""
    return random.uniform(0.75, 1.25)  # noqa: S311
