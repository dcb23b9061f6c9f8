"""From a conversation to what a model sees. The only renderer."""

from collections.abc import Iterable

from annotate.models import Message


def render(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages in their order as a list of `{"role": …, "content": …}`."""
    return [{"role": message.role, "content": message.text} for message in messages]


PLAYS_THE_USER = (
    "You are a person who uses an AI assistant. You ask it questions, tell it what you need, and ask for more, for "
    "changes or for an explanation. You write short messages, as people do. You never answer questions: the "
    "assistant does."
)
GREETING = "Hello! How can I help you today?"
GO_ON = "Please go on."
BEGIN = "Please begin."


def render_suggestion(messages: list[dict[str, str]], *, role: str, hint: str = "") -> list[dict[str, str]]:
    """What a model is asked that suggests the next message of `role`, after these: the system message, then turns."""
    system, turns = messages[0]["content"], messages[1:]
    if role == Message.ChatRole.USER:
        system = PLAYS_THE_USER
        turns = [_message("user", GREETING), *(_message(OTHER[turn["role"]], turn["content"]) for turn in turns)]
    turns = _merged(turns)
    if not turns or turns[-1]["role"] == "assistant":
        turns = [*turns, _message("user", GO_ON if turns else BEGIN)]
    if hint:
        system = f"{system}\n\nYour next message: {hint}."
    return [_message("system", system), *turns]


OTHER = {"user": "assistant", "assistant": "user"}


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _merged(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Neighbours of the same role as one, with a blank line between: many chat templates demand that roles alternate."""
    merged: list[dict[str, str]] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = _message(turn["role"], f"{merged[-1]['content']}\n\n{turn['content']}")
        else:
            merged.append(_message(turn["role"], turn["content"]))
    return merged
