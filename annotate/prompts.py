"""From a conversation to what a model sees. The only renderer."""

from collections.abc import Iterable

from annotate.models import Message


def render(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages in their order as a list of `{"role": …, "content": …}`."""
    return [{"role": message.role, "content": message.text} for message in messages]
