"""What must hold of the lines of exported demonstrations, each alone and beside the others."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from annotate.datasets import said
from annotate.datasets.tallies import WrittenTally
from annotate.manuscripts import clean

STATES = ("none", "wanted", "approved", "returned")
KINDS = ("chat", "write", "imported")
COUNTS = ("active_seconds", "typed", "pasted", "taken")
OF_A_COMPLETION = ("policy", "sampling", "template_hash", "finish_reason", "suggestion", "hint")
"""What a turn has where it came from a completion, and only there."""


class WrittenLines(said.Lines):
    """Whole conversations or turns of the assistant, with all that is known of them."""

    group = "conversation_id"

    def __init__(self, described: dict):
        super().__init__(described)
        self.written = described["what"] == "demonstrations"
        self.sources = self.listed("sources")
        self.superseded_too = not self.written or "superseded" in (self.listed("include") or ())
        self.tally = WrittenTally(format=self.format)
        self.ids: set[int] = set()
        self.revised: set[int] = set()
        self.begin_file()

    def begin_file(self) -> None:
        """The first line stands behind none."""
        self.last: tuple[int, int] = (0, -1)
        self.mixed = False

    def said(self, line: dict) -> list[dict]:
        """All messages of a line."""
        return line["messages"] if self.format == "messages" else line["prompt"] + line["completion"]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next line."""
        messages = self.said(line)
        turns = line["turns"] if self.format == "messages" else [line["turn"]]
        yield from self._place(line)
        yield from _conversation(line)
        yield from _order(line, messages, answered=self.written)
        yield from said.each(messages)
        if self.format == "messages":
            if len(turns) != len(messages):
                yield f"turns are not parallel to messages: {len(turns)} beside {len(messages)}"
                return
            answered = list(zip(messages, turns, strict=True))
            if [turn["position"] for turn in turns] != list(range(len(turns))):
                yield "the positions of turns do not count from 0"
        else:
            problem = said.answer(line["completion"])
            if problem:
                yield f"completion {problem}"
                return
            answered = [(line["completion"][0], line["turn"])]
            if line["turn"]["position"] != len(line["prompt"]):
                yield "turn.position is not the number of messages in prompt"
        for message, turn in answered:
            name = f"turn {turn['position']}"
            yield from (f"{name} {problem}" for problem in _turn(message["content"], turn))
            sources = self.sources if line["source"] == "demonstrations" else None
            if message["role"] == "assistant" and sources is not None and turn["source"] not in sources:
                yield f"{name} is {turn['source']}, which was not wanted"
        self.tally.count(line)

    def _place(self, line: dict) -> Iterator[str]:
        pk = line["conversation_id"]
        if line["source"] not in ("demonstrations", "conversations"):
            # What was mixed in stands behind all else, in the order of its own.
            self.mixed = True
            return
        if pk is None:
            yield "has no conversation_id and was not mixed in"
            return
        here = (pk, -1 if self.format == "messages" else line["turn"]["position"])
        if self.mixed:
            yield "stands behind what was mixed in"
        elif here <= self.last:
            yield "stands before or beside a line of the same or a later conversation_id and position"
        self.last = here
        self.ids.add(pk)
        if line["revises"] is not None:
            self.revised.add(line["revises"])

    def counts(self) -> dict:
        """What the manifest must count; what was left out is known to the record only."""
        counts = self.tally.as_json()
        del counts["left_out"]
        return counts

    def at_the_end(self) -> Iterator[str]:
        """Conversations that stand beside the newer version that takes their place."""
        if not self.superseded_too:
            for pk in sorted(self.ids & self.revised):
                yield f"conversation_id {pk} is there beside a conversation that revises it"


class PlainLines(said.Lines):
    """Conversations of which nothing but the messages is there."""

    def said(self, line: dict) -> list[dict]:
        """All messages."""
        return line["messages"]

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next conversation."""
        messages = line["messages"]
        if "system" in [message["role"] for message in messages[1:]]:
            yield "a system message is not the first one"
        if not messages or messages[-1]["role"] != "assistant":
            yield "the last message is not the assistant's"
        yield from said.each(messages)


def _conversation(line: dict) -> Iterator[str]:
    if line["kind"] not in KINDS:
        yield f"{line['kind']} is no kind of conversation"
    if line["review_state"] not in STATES:
        yield f"{line['review_state']} is no review_state"
    if (line["review_id"] is None) != (line["reviewer"] is None):
        yield "review_id and reviewer are not there together"
    elif line["review_state"] in ("approved", "returned") and line["review_id"] is None:
        yield f"is {line['review_state']} without a review_id"
    for name in ("revises", "forked_from"):
        if line[name] is not None and line[name] == line["conversation_id"]:
            yield f"{name} is the conversation itself"
    try:
        in_utc = datetime.fromisoformat(line["finished_at"] or "").utcoffset() == timedelta(0)
    except ValueError:
        in_utc = False
    if not in_utc and not (line["finished_at"] is None and line["kind"] == "imported"):
        yield "finished_at is no time in UTC"


def _order(line: dict, messages: list[dict], *, answered: bool) -> Iterator[str]:
    roles = [message["role"] for message in messages]
    if "system" in roles[1:]:
        yield "a system message is not the first one"
    if not roles or (answered and roles[-1] != "assistant"):
        yield "the last message is not the assistant's"
    spoken = [role for role in roles if role != "system"]
    alternates = all(role == ("user", "assistant")[number % 2] for number, role in enumerate(spoken))
    if alternates != line["alternates"]:
        yield "user and assistant take turns" if alternates else "user and assistant do not take turns"


def _turn(text: str, turn: dict) -> Iterator[str]:
    """What is wrong with where one turn says that its text came from."""
    source, distance, suggestion = turn["source"], turn["edit_distance"], turn["suggestion"]
    if source not in ("written", "taken", "edited", "reply", "imported"):
        yield f"has no source: {source}"
    if distance is not None and not 0 <= distance <= 1:
        yield "has an edit_distance that is not 0 to 1"
    for name in COUNTS:
        if turn[name] < 0:
            yield f"has {name} below 0"
    suggested = turn["completion_id"] is not None
    for name in OF_A_COMPLETION:
        if (turn[name] is not None) != suggested:
            yield f"has {name} without completion_id" if not suggested else f"has completion_id without {name}"
    if suggested and source in ("written", "imported"):
        yield f"is {source} and has a completion_id"
    if not suggested and source in ("taken", "reply"):
        yield f"is {source} and has no completion_id"
    if source == "taken" and suggestion is not None and clean(suggestion).strip() != text.strip():
        yield "is taken and differs from its suggestion"
    if source in ("taken", "edited") and distance is None:
        yield f"is {source} and has no edit_distance"
    if source == "written" and distance is not None:
        yield "is written and has an edit_distance"
    passed = [one["completion_id"] for one in turn["passed"]]
    if len(set(passed)) < len(passed) or turn["completion_id"] in passed:
        yield "has a completion_id twice in passed, or the one that was taken"
