"""What holds of messages in every format, and what every checker of lines has."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator

from annotate import derive
from annotate.datasets.personal_data import TAKEN_OUT

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


def context(messages: list[dict]) -> Iterator[str]:
    """What is wrong with the messages that an answer follows."""
    if not messages or messages[-1]["role"] != "user":
        yield "the context does not end with a message of the user"
    yield from each(messages)


class Lines(ABC):
    """Goes through the lines of one export, file by file, and says what is wrong with each."""

    group: str | None = None
    """The field by which lines belong together, in one split; None where the format has none."""

    def __init__(self, described: dict):
        """`described` is the manifest; its filters may be anything."""
        self.format = described["format"]
        filters = described.get("filters")
        self.filters = filters if isinstance(filters, dict) else {}
        self.redacted = self.filters.get("personal") == "redact"

    def listed(self, name: str) -> list | None:
        """What a filter lists; None where it lists nothing."""
        found = self.filters.get(name)
        return found if isinstance(found, list) else None

    def begin_file(self) -> None:  # noqa: B027  Most have nothing to forget.
        """Forget what is compared only with the line before."""

    @abstractmethod
    def said(self, line: dict) -> list[dict]:
        """The messages of a line in their order, from the beginning."""

    @abstractmethod
    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next line, a phrase each."""

    def split(self, line: dict) -> str | None:
        """The split that the line itself names; None where the format does not say it."""
        return line.get("split")

    def apart(self, line: dict) -> Iterator[tuple[str, Hashable]]:
        """What may be in one split only: (what it is, which). Openings are told apart by their words alone."""
        if self.group is not None and line.get(self.group) is not None:
            yield self.group, line[self.group]
        if "family" in line:
            yield "family", line["family"]
        yield from self.opening(next((turn["content"] for turn in self.said(line) if turn["role"] == "user"), ""))

    def opening(self, text: str) -> Iterator[tuple[str, Hashable]]:
        """The words of an opening as a thing that may be in one split only."""
        # Others that differed in what was taken out are no leak.
        if not (self.redacted and TAKEN_OUT.search(text)):
            yield "opening", derive.family_of(text)

    def counts(self) -> dict:
        """What the manifest must count, so far as it can be told from the files."""
        return {}

    def at_the_end(self) -> Iterator[str]:
        """What can be told only when all was read."""
        return iter(())
