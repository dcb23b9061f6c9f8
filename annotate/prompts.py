"""From a conversation to what a model sees. The only renderer."""

from collections.abc import Iterable

from annotate.models import Message


def render(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages in their order as a list of `{"role": …, "content": …}`."""
    return [{"role": message.role, "content": message.text} for message in messages]


def render_for_sampling(messages: Iterable[Message], *, system: str) -> list[dict[str, str]]:
    """Messages as a model is given them that writes the next answer, `system` first where they have no such message.

    What was brought in from files may begin with the assistant, or have two messages of one side in a row, which many
    chat templates refuse: such neighbours are joined, and a user's turn is put before an answer to nothing.
    """
    turns = render(messages)
    if turns and turns[0]["role"] == "system":
        system = turns.pop(0)["content"]
    turns = _merged(turns)
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, _message("user", BEGIN))
    return [_message("system", system), *turns]


USERS_TURN = {"role": "user", "content": ""}
"""As the last message: the turn of the user that the model is to write itself."""

BEGIN = "Please begin."
GO_ON = "Please go on."


def render_suggestion(
    messages: list[dict[str, str]], *, role: str, hint: str = "", topic: str = ""
) -> list[dict[str, str]]:
    """What a model is given that suggests the next message of `role` after these: the system message, then turns.

    A user's turn is left open at the end (USERS_TURN) for the model to write as the user, where its chat template
    would put the user's words. Of all ways that were measured on the demo model only this one gave what people
    write: none of its texts sounded like an assistant, where of a model that is told to play the user, or to write
    their next message, 15 to 60 % did. `topic` is what the user wants to talk about, where theirs are the first words.
    """
    system, turns = messages[0]["content"], _merged(messages[1:])
    if turns and turns[0]["role"] == "assistant":
        turns = [_message("user", BEGIN), *turns]
    if role == Message.ChatRole.USER:
        if topic and not turns:
            system += f"\n\nThe user wants to talk about: {topic}"
        if hint:
            system += f"\n\nThe user's next message: {hint}"
        return [_message("system", system), *turns, USERS_TURN]
    if not turns or turns[-1]["role"] == "assistant":
        turns = [*turns, _message("user", GO_ON if turns else BEGIN)]
    if hint:
        system += f"\n\nMake your next answer {hint.rstrip('. ')}."
    return [_message("system", system), *turns]


PLAYS_THE_USER = (
    "You are a person who uses an AI assistant. You ask it questions, tell it what you need, and ask for more, for "
    "changes or for an explanation. You write short messages, as people do. You never answer questions: the "
    "assistant does."
)
GREETING = "Hello! How can I help you today?"
OTHER = {"user": "assistant", "assistant": "user"}


def play_the_user(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """A conversation that ends with USERS_TURN, for a model whose template cannot leave a turn of the user open.

    The roles are swapped, so that the model plays the user; the second best of what was measured.
    """
    system, turns = messages[0]["content"], messages[1:-1]
    swapped = [_message(OTHER[turn["role"]], turn["content"]) for turn in turns]
    swapped = [_message("user", GREETING), *swapped]
    if swapped[-1]["role"] == "assistant":
        swapped.append(_message("user", GO_ON))
    return [_message("system", f"{PLAYS_THE_USER}\n\nThe assistant was told: {system}"), *_merged(swapped)]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _merged(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Neighbours of one role as one message, a blank line between: many chat templates demand that roles alternate."""
    merged: list[dict[str, str]] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = _message(turn["role"], f"{merged[-1]['content']}\n\n{turn['content']}")
        else:
            merged.append(_message(turn["role"], turn["content"]))
    return merged
