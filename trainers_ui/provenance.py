"""Where each turn of a written conversation came from, in quiet words: nothing here judges."""

from dataclasses import dataclass, field

from django.utils.safestring import SafeString

from annotate.models import Completion, Message
from trainers_ui import changes
from trainers_ui.templatetags.words import minutes, percent

SLOW = 5
"""Seconds below which a typing speed says nothing."""


@dataclass(slots=True)
class Origin:
    """A turn's provenance: `word` in short, `facts` in a few words each, and what its text is compared with."""

    word: str
    facts: list[str] = field(default_factory=list)
    typed: int = 0  # these three are parts of what came into the box, in percent
    pasted: int = 0
    taken: int = 0
    began_as: str = ""  # "suggestion" or "opening", where the text was changed
    compared: SafeString | None = None
    completion: Completion | None = None
    passed: list[Completion] = field(default_factory=list)

    @property
    def mix(self) -> str:
        """What came into the box, for those who do not see the bar."""
        parts = ((self.typed, "typed"), (self.pasted, "pasted"), (self.taken, "taken"))
        return ", ".join(f"{share} % {word}" for share, word in parts if share)


def of(messages: list[Message], *, prompt=None) -> dict[int, Origin]:
    """The provenance of messages by their position. They come with `completion__request__policy`."""
    wanted = {pk for message in messages for pk in message.passed}
    passed = Completion.objects.select_related("request__policy").in_bulk(wanted) if wanted else {}
    return {message.position: _origin(message, passed, prompt) for message in messages if message.role != "system"}


def _origin(message: Message, passed: dict[int, Completion], prompt) -> Origin:
    began_as = "suggestion" if message.completion_id else "opening"
    origin = Origin(
        word=_word(message, began_as),
        facts=_facts(message),
        completion=message.completion,
        passed=[passed[pk] for pk in message.passed if pk in passed],
    )
    origin.typed, origin.pasted, origin.taken = _shares(message.typed, message.pasted, message.taken)
    if message.source == Message.Source.EDITED:
        start = message.completion.text if message.completion else prompt.text if prompt else None
        if start is not None:
            origin.began_as, origin.compared = began_as, changes.shown(start, message.text)
    return origin


def _word(message: Message, began_as: str) -> str:
    if message.source == Message.Source.EDITED:
        return f"{began_as}, {percent(message.edit_distance)} changed"
    return {
        "written": "written",
        "taken": "suggestion, whole",
        "imported": "opening, as it was",
        "reply": "the model's own",
    }[message.source]


def _shares(*counts: int) -> tuple[int, ...]:
    """Parts of a whole in percent that add up to 100, or all 0."""
    whole = sum(counts)
    if not whole:
        return tuple(0 for _ in counts)
    shares = [round(count * 100 / whole) for count in counts]
    shares[shares.index(max(shares))] += 100 - sum(shares)
    return tuple(shares)


def _facts(message: Message) -> list[str]:
    facts = []
    if message.active_seconds:
        facts.append(f"{minutes(message.active_seconds)} at it")
    if message.typed and message.active_seconds >= SLOW:
        facts.append(f"typed at {round(message.typed * 60 / message.active_seconds):,} characters a minute")
    return facts
