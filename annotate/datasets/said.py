"""What holds of messages in every format."""

from collections.abc import Iterator

ROLES = ("system", "user", "assistant")


def answer(messages: list[dict]) -> str | None:
    """What is wrong with a side that answers, if anything is: it is one message of the assistant with a text."""
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        return "is not one message of the assistant"
    return None if messages[0]["content"].strip() else "is empty"


def each(messages: list[dict]) -> Iterator[str]:
    """What is wrong with single messages: a role that there is not, or no text."""
    for message in messages:
        if message["role"] not in ROLES:
            yield f"{message['role']} is no role"
        elif not message["content"].strip():
            yield f"a message of the {message['role']} is empty"
