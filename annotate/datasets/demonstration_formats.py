"""What each format makes of the whole line of one conversation.

`messages` holds everything, a line a conversation; the other formats are made from it.
"""

from collections.abc import Callable, Iterator

from annotate.datasets import shapes
from annotate.datasets.filters import Demonstrations


def alternates(messages: list[dict]) -> bool:
    """Whether the user begins and the two sides take turns."""
    roles = [message["role"] for message in messages if message["role"] != "system"]
    return all(role == ("user", "assistant")[number % 2] for number, role in enumerate(roles))


def _sources(line: dict, filters: Demonstrations) -> frozenset[str] | None:
    """The sources that turns of its assistant may have, None for any: nobody asks it of what is mixed in."""
    return filters.sources if line["source"] == "demonstrations" else None


def messages(lines: list[dict], filters: Demonstrations) -> Iterator[dict]:
    """The whole line, unless a turn of its assistant is of a source that is not wanted."""
    for line in lines:
        sources = _sources(line, filters)
        if sources is None or sources.issuperset(
            turn["source"]
            for message, turn in zip(line["messages"], line["turns"], strict=True)
            if message["role"] == "assistant"
        ):
            yield line


def prompt_completion(lines: list[dict], filters: Demonstrations) -> Iterator[dict]:
    """Each turn of the assistant that is of a wanted source as TRL's prompt and completion, both lists of messages."""
    for line in lines:
        said = line["messages"]
        rest, sources = {name: line[name] for name in shapes.WRITTEN}, _sources(line, filters)
        for number, (message, turn) in enumerate(zip(said, line["turns"], strict=True)):
            if message["role"] == "assistant" and (sources is None or turn["source"] in sources):
                yield {
                    "prompt": said[:number],
                    "completion": [message],
                    "turn": turn,
                    **rest,
                    "alternates": alternates(said[: number + 1]),
                }


def openai_sft(lines: list[dict], filters: Demonstrations) -> Iterator[dict]:
    """The messages alone, which is all that OpenAI's fine-tuning takes."""
    for line in messages(lines, filters):
        yield {"messages": line["messages"]}


FORMATS: dict[str, Callable[[list[dict], Demonstrations], Iterator[dict]]] = {
    "messages": messages,
    "prompt_completion": prompt_completion,
    "openai_sft": openai_sft,
}
"""The formats by name: what each makes of the whole line, which may be no line at all."""
