"""Lists of messages, {role, content} or {from, value}, as turns."""

from annotate.datasets.incoming import fields
from annotate.datasets.incoming.items import Bad, Turn
from annotate.datasets.incoming.mends import Mending

NAMES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""Who speaks, by the names that the formats use."""

TOOLS = {
    "tool",
    "tool_call",
    "tool_response",
    "function",
    "function_call",
    "function_response",
    "observation",
    "ipython",
}
"""Names of turns that belong to tools, which no conversation here can hold."""

USES_TOOLS = "it uses a tool, which no conversation here can hold"

CALLS = ("tool_calls", "function_call")

SPEAKERS, TEXTS = ("role", "from"), ("content", "value")

NOT_FACTS = {*SPEAKERS, *TEXTS}

SYSTEMS = ("system", "system_prompt")


def turns(value, key: str, mends: Mending) -> list[Turn]:
    """The messages of the field `key` as turns, not yet mended. One message may stand without a list."""
    messages = [value] if isinstance(value, dict) else value
    if not isinstance(messages, list):
        raise Bad(f"{key} is missing" if value is None else f"{key} is not a list of messages")
    return [_turn(message, key, mends) for message in messages]


def with_system(row: dict, found: list[Turn], mends: Mending) -> list[Turn]:
    """The turns, begun by the row's own system message where it stands beside them."""
    system = fields.first_text(row, SYSTEMS, mends)
    if not system or (found and found[0].role == "system" and found[0].text == system):
        return found
    return [Turn("system", system), *found]


def _turn(message, key: str, mends: Mending) -> Turn:
    if not isinstance(message, dict):
        raise Bad(f"{key} holds what is no message")
    speaker = fields.first_key(message, SPEAKERS)
    said = message[speaker] if speaker else None
    if not isinstance(said, str):
        raise Bad(f"a message in {key} has no role")
    place = fields.first_key(message, TEXTS)
    facts = None
    # Most messages say nothing else.
    if len(message) > 2 or place is None:
        if any(message.get(call) for call in CALLS):
            raise Bad(USES_TOOLS)
        facts = fields.scalars(message, NOT_FACTS) or None
    content = message[place] if place else ""
    if not isinstance(content, str):
        content = _joined(content, key)
    return Turn(NAMES.get(said) or _role(said, key), fields.clean(content, mends), facts=facts)


def _role(said: str, key: str) -> str:
    name = said.strip().lower()
    if name in TOOLS:
        raise Bad(USES_TOOLS)
    if name not in NAMES:
        raise Bad(f"a message in {key} is of the unknown role {fields.short(said)[:40]!r}")
    return NAMES[name]


def _joined(content, key: str) -> str:
    if not isinstance(content, list):
        raise Bad(f"the content of a message in {key} is not a text")
    return "\n\n".join(_part(part, key) for part in content)


def _part(part, key: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") in ("text", None):
        return part["text"]
    raise Bad(f"a message in {key} holds something beside text")
