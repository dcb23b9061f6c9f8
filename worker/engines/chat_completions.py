"""Asking a server that speaks /v1/chat/completions: one question, the pieces of its answer, and what its refusals mean.

Servers differ in what they take and send. What is sent beside the standard is sent only to those that say who they
are; what comes is believed piece by piece, because the client library checks none of it.
"""

import asyncio
import contextlib
import email.utils
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import openai
from django.conf import settings

from annotate import env
from worker.engines.base import LoadError, Sampling, Server

REASON_CHARACTERS = 300
USAGE_SECONDS = 5
"""How long the token counts may come after the end of a text."""
HELLO = [{"role": "user", "content": "Hello"}]
HELLO_TOKENS = 16
"""Enough that a model which thinks first is not told that it has no room to."""

WHOLE = {
    "vllm": {"top_k": -1, "min_p": 0, "repetition_penalty": 1},
    "sglang": {"top_k": -1, "min_p": 0, "repetition_penalty": 1},
    "llamacpp": {"top_k": 0, "min_p": 0},
}
"""What has to be said to servers that else draw as they or the model's authors think best (llama.cpp from the 40
likeliest), by what /v1/models calls them: the record's sampling is what the text was drawn with."""

TOO_LONG = re.compile(r"context.?(length|size|window)|(prompt|input) is too long|maximum model length", re.I)
PROMPT_TOKENS = (
    re.compile(r"(\d+) (?:tokens )?(?:in|from) the (?:input )?(?:messages|prompt)"),
    re.compile(r"(?<!at least )\b(\d+) input tokens"),
    re.compile(r"(?:[Ii]nput|[Rr]equest) \((\d+) tokens\)"),
)
BROKEN_OFF = {"abort", "error"}
"""How servers end a text that they give up."""


class ServerError(Exception):
    """The server gave no answer, or not all of one. Its text is a sentence for people, without the key."""


class Away(ServerError):
    """It may do so later. `pause` is how long it wants to be left alone, `hung` that it was silent for too long."""

    def __init__(self, reason: str, *, pause: float | None = None, hung: bool = False):
        super().__init__(reason)
        self.pause, self.hung = pause, hung


class Unusable(ServerError):
    """It will refuse every question in the same way: a wrong key, no such model."""


class BadQuestion(ServerError):
    """It refuses this one question."""


class Filtered(ServerError):
    """It cut this text itself, so that it is not what the model wrote."""


class ThoughtAloud(ServerError):
    """It sent a thought as text: only the mark at the thought's end told the two apart, when it was too late."""


class PromptTooLong(ServerError):
    """The conversation and the longest reply do not fit the context. `prompt_tokens` where it tells their number."""

    def __init__(self, reason: str, *, prompt_tokens: int | None = None):
        super().__init__(reason)
        self.prompt_tokens = prompt_tokens


@dataclass(frozen=True)
class Piece:
    """A part of an answer: text, or a thought, or its end (`finish`), or token counts."""

    text: str = ""
    thought: str = ""
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ChatServer:
    """One server and model. To be made and used in one event loop."""

    def __init__(self, url: str, server: Server):
        self._served_as = server.served_as
        self._variable = server.key_variable
        self._key = _key(server.key_variable)
        try:
            self._client = openai.AsyncOpenAI(
                base_url=url,
                api_key=self._key or "none",
                max_retries=0,
                timeout=httpx2.Timeout(None, connect=settings.SERVER_CONNECT_SECONDS),
                http_client=openai.DefaultAsyncHttpxClient(
                    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=server.concurrency)
                ),
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise LoadError(f"The base URL {url} cannot be used: {self._clean(error)}") from None
        self._url = url
        self._longest = "max_tokens"
        self._tells_usage = True
        self._whole: dict = {}
        self._template = {"enable_thinking": server.thinking == "on"} if server.thinking else {}
        self.lets_choose_thinking = False

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def max_model_len(self) -> int | None:
        """The longest context in tokens, where /models tells one, as vLLM and SGLang do. Raises ServerError."""
        try:
            async with asyncio.timeout(settings.SERVER_CONNECT_SECONDS + settings.SERVER_NEXT_TOKEN_SECONDS):
                listed = (await self._client.models.list()).data
        except (openai.APIConnectionError, TimeoutError) as error:
            raise self._what_it_means(error) from error
        except Exception:
            # Not every server has a list, nor shows it to everybody: a first question will tell more.
            return None
        models = listed if isinstance(listed, list) else []
        ours = next((model for model in models if getattr(model, "id", None) == self._served_as), None)
        owner = getattr(ours or (models[0] if models else None), "owned_by", None)
        self._whole = WHOLE.get(owner, {}) if isinstance(owner, str) else {}
        self.lets_choose_thinking = bool(self._whole)
        longest = getattr(ours, "max_model_len", None)
        return longest if isinstance(longest, int) and longest > 0 else None

    async def greet(self) -> None:
        """Ask a first, short question, and leave at the first sign of an answer. Raises ServerError."""
        async with contextlib.aclosing(self.ask(HELLO, Sampling(max_new_tokens=HELLO_TOKENS))) as pieces:
            async for _ in pieces:
                return

    async def ask(self, messages: list[dict], sampling: Sampling) -> AsyncIterator[Piece]:
        """The pieces of an answer, as they come; the end and the token counts come last. Raises ServerError."""
        loop = asyncio.get_running_loop()
        stream, spoken, ended = None, False, False
        until = loop.time() + settings.SERVER_FIRST_TOKEN_SECONDS
        try:
            async with asyncio.timeout_at(until):
                stream = await self._open(messages, sampling)
            chunks = aiter(stream)
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        chunk = await anext(chunks, None)
                except Exception:
                    # All of the text is there; only its token counts are missing.
                    if ended:
                        return
                    raise
                if chunk is None:
                    break
                if getattr(chunk, "object", None) == "error":
                    raise Away(
                        f"The server broke off: {self._clean(_text(chunk, 'message') or 'it does not say why.')}"
                    )
                piece = _piece(chunk)
                if piece.finish in BROKEN_OFF:
                    raise Away("The server gave the text up.")
                if piece.finish == "content_filter":
                    raise Filtered("The server's content filter cut this text.")
                if piece.finish and not ended:
                    ended, until = True, loop.time() + USAGE_SECONDS
                elif piece.text or piece.thought:
                    spoken, until = True, loop.time() + settings.SERVER_NEXT_TOKEN_SECONDS
                if piece != Piece():
                    yield piece
            if not ended:
                raise Away("The server's answer broke off." if spoken else "The server's answer is no stream of text.")
        except TimeoutError:
            raise self._hung(spoken) from None
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, json.JSONDecodeError, UnicodeError) as error:
            raise self._what_it_means(error) from error
        finally:
            if stream is not None:
                await stream.close()

    async def _open(self, messages: list[dict], sampling: Sampling) -> openai.AsyncStream:
        """Send the question, again where the server has another word for something or does not know it."""
        while True:
            try:
                return await self._client.chat.completions.create(**self._question(messages, sampling))
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if TOO_LONG.search(_said(error)) or not self._learns(_said(error)):
                    raise

    def _question(self, messages: list[dict], sampling: Sampling) -> dict:
        beyond = dict(self._whole)
        if sampling.top_k:
            beyond["top_k"] = sampling.top_k
        if self._template:
            beyond["chat_template_kwargs"] = self._template
        question = {
            "model": self._served_as,
            "messages": messages,
            "stream": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._longest: sampling.max_new_tokens,
            "extra_body": beyond,
        }
        if self._tells_usage:
            question["stream_options"] = {"include_usage": True}
        if sampling.seed is not None:
            question["seed"] = sampling.seed
        return question

    def _learns(self, said: str) -> bool:
        """Whether a refusal tells how else to ask."""
        if "max_completion_tokens" in said and self._longest == "max_tokens":
            self._longest = "max_completion_tokens"
        elif "stream_options" in said and self._tells_usage:
            self._tells_usage = False
        else:
            return False
        return True

    # What went wrong --------------------------------------------------------------------------------

    def _hung(self, spoken: bool) -> Away:
        where = "in the middle of a text" if spoken else "before the first word"
        seconds = settings.SERVER_NEXT_TOKEN_SECONDS if spoken else settings.SERVER_FIRST_TOKEN_SECONDS
        return Away(f"The server {self._url} was silent for {seconds:g} seconds {where}.", hung=True)

    def _what_it_means(self, error: Exception) -> ServerError:
        said = self._clean(_said(error))
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error, said)
        if isinstance(error, (openai.APITimeoutError, TimeoutError)):
            return Away(f"The server {self._url} does not answer: it took too long.")
        if isinstance(error, (openai.APIConnectionError, httpx2.HTTPError, httpx2.StreamError)):
            return Away(f"The server {self._url} does not answer: {self._clean(error.__cause__ or error)}")
        if isinstance(error, openai.APIError):
            # An error in the middle of a stream; some send there what others send as the answer's status.
            if TOO_LONG.search(said):
                return PromptTooLong(said, prompt_tokens=_prompt_tokens(error))
            return Away(f"The server broke off: {said}")
        return Away(f"What the server {self._url} sends cannot be read: {said}")

    def _refusal(self, error: openai.APIStatusError, said: str) -> ServerError:
        status = error.status_code
        answer = f"The server {self._url} answers {status}: {said}"
        if status in (400, 413, 422) and (status == 413 or TOO_LONG.search(said) or _code(error) == LENGTH_CODE):
            return PromptTooLong(answer, prompt_tokens=_prompt_tokens(error))
        if status in (408, 409, 425, 429) or status >= 500:
            return Away(answer, pause=_retry_after(error.response.headers))
        if status in (401, 403):
            key = f"the key in {self._variable}" if self._variable else "questions without a key"
            return Unusable(f"The server {self._url} refuses {key} ({status}): {said}")
        return Unusable(answer) if status == 404 else BadQuestion(answer)

    def _clean(self, error: Exception | str) -> str:
        """What an error says in one line, without the key, which some servers repeat."""
        text = " ".join(str(error).split()) or type(error).__name__
        if self._key:
            text = text.replace(self._key, "[the key]")
        return text if len(text) <= REASON_CHARACTERS else f"{text[: REASON_CHARACTERS - 2].rstrip()} …"


LENGTH_CODE = "context_length_exceeded"


def _key(variable: str) -> str:
    if not variable:
        return ""
    try:
        key = env.key(variable)
    except env.BadSetting as error:
        raise LoadError(f"The server's key cannot be had: {error}") from None
    if not key:
        raise LoadError(f"The server's key is missing: set {variable} in the environment of the worker.")
    if not key.isascii() or not key.isprintable():
        raise LoadError(f"What {variable} holds is no key: a key is one line of letters, digits and signs.")
    return key


def _piece(chunk) -> Piece:
    """What is of use in a chunk of any shape."""
    usage = getattr(chunk, "usage", None)
    prompt, completion = (getattr(usage, f"{kind}_tokens", None) for kind in ("prompt", "completion"))
    counts = {
        "prompt_tokens": prompt if isinstance(prompt, int) and prompt >= 0 else None,
        "completion_tokens": completion if isinstance(completion, int) and completion >= 0 else None,
    }
    choices = getattr(chunk, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    delta = getattr(first, "delta", None)
    thoughts = [_text(delta, name) for name in ("reasoning_content", "reasoning")]
    return Piece(_text(delta, "content"), thoughts[0] or thoughts[1], _text(first, "finish_reason"), **counts)


def _text(part, name: str) -> str:
    value = getattr(part, name, None)
    return value if isinstance(value, str) else ""


def _said(error: Exception) -> str:
    """The server's own words where it has some, else the library's; of a page of HTML only that it is one."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        for value in (body.get("message"), body.get("detail"), body.get("error")):
            if value:
                return value if isinstance(value, str) else json.dumps(value)
    text = body if isinstance(body, str) and body.strip() else str(error)
    return "a web page, as nothing that completes chats does" if text.lstrip().startswith("<") else text


def _code(error: openai.APIError) -> str:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else ""


def _prompt_tokens(error: openai.APIError) -> int | None:
    body = getattr(error, "body", None)
    told = body.get("n_prompt_tokens") if isinstance(body, dict) else None
    if isinstance(told, int):
        return told
    found = next((match for pattern in PROMPT_TOKENS if (match := pattern.search(_said(error)))), None)
    return int(found[1]) if found else None


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that a server wants to be left alone: it says a number, or a date."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
