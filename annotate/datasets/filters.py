"""What may be asked of an export beside its format. `parse` is the one check of it: for the command, the API, the
admin site, and for going on with an export from its record."""

import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from datetime import date, datetime, time
from pathlib import PurePath
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from annotate import demonstrations
from annotate.datasets import shapes
from annotate.errors import Invalid
from annotate.models import Comparison, Conversation, Message, Project

PERSONAL = ("ignore", "report", "redact")
ORIGINS = ("trainer", "imported")
SELECTIONS = tuple(Comparison.Selection.values)
RANKINGS = ("each", "consensus")
PAIRS = ("all", "adjacent", "best_worst")
MARGINS = ("rank", "rating")
KINDS = tuple(Conversation.Kind.values)

ReviewState = Conversation.ReviewState

OF_STATE = {ReviewState.WANTED: "unreviewed", ReviewState.RETURNED: "returned"}
"""What `include` calls those in a review state that does not count by itself."""

INCLUDE = {
    "comparisons": ("open", "surplus"),
    "demonstrations": ("unreviewed", "returned", "surplus", "superseded"),
    "conversations": (),
    "prompts": ("inactive",),
}
"""What `include` may add, by what is exported."""


EXPORT = "export:"
"""How a mix names an export; all else is a file on the machine that writes."""


@dataclass(frozen=True, slots=True)
class Mix:
    """A set that is mixed in: a file or `export:` and an export's number or digest, and how much of it.

    Either `count` conversations, or `weight` times as many as there are of the export's own.
    """

    name: str
    weight: float | None = None
    count: int | None = None

    @property
    def export(self) -> str | None:
        """The number or digest of the export that is mixed in; None where it is a file."""
        return self.name.removeprefix(EXPORT) if self.name.startswith(EXPORT) else None

    def __str__(self) -> str:
        return f"{self.name}:{self.count if self.weight is None else self.weight}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What all exports can be asked for.

    `without` are pseudonyms of people whose work is left out. `personal` says whether texts are searched for personal
    data, which is then counted (`report`) or replaced by its kind (`redact`).
    """

    iteration: int | None = None
    split: str | None = None
    since: datetime | None = None
    include: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    personal: str = "ignore"

    def as_json(self) -> dict:
        """The filters as manifest and record keep them; `parse` reads them back."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons(Filters):
    """Which rankings are wanted: by default the submitted ones of closed comparisons and those that were imported.

    `include` may hold `open` (also those of open comparisons) and `surplus` (also those that came in too late);
    `origins` narrows to rankings of a trainer or to imported ones, `selection` to comparisons that were drawn at random
    or to those that were chosen because a reward model was uncertain of them. With `rankings` "consensus" the rankings
    of one comparison become one. `pairs` says which strict pairs the formats of pairs make, `margin` what stands beside
    them.
    """

    origins: frozenset[str] | None = None
    selection: str | None = None
    rankings: str = "each"
    pairs: str = "all"
    margin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations(Filters):
    """Which written conversations are wanted: by default those that count under the project's review rule.

    `review_states` takes the place of that rule. `include` may hold `unreviewed` and `returned` (also those, though
    the rule leaves them out), `surplus` (also those that came in too late) and `superseded` (also those in whose place
    a newer version stands). With `sources` only assistant turns of these sources: conversations that have no other, or
    in `prompt_completion` the turns themselves. `mix` names sets that are mixed in, drawn under `mix_seed`.
    """

    sources: frozenset[str] | None = None
    review_states: frozenset[str] | None = None
    mix: tuple[Mix, ...] = ()
    mix_seed: int = 0

    def states(self, project: Project) -> set[str]:
        """The review states that are wanted."""
        if self.review_states is not None:
            return set(self.review_states)
        states = set(demonstrations.counting_states(project))
        return states | {state for state, name in OF_STATE.items() if name in self.include}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations(Filters):
    """Which finished conversations are wanted: by default all, of every kind."""

    kinds: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts(Filters):
    """Which openings are wanted: by default those that new conversations may open with; `include` adds `inactive`."""

    use_case: str | None = None


OF = {
    "comparisons": Comparisons,
    "demonstrations": Demonstrations,
    "conversations": Conversations,
    "prompts": Prompts,
}
"""The filters by what is exported."""


def parse(what: str, given: dict) -> Filters:
    """The filters of these values, as a person gave them or as they were kept; what is missing keeps its default.

    Raises Invalid that names the field and what it may be.
    """
    if what not in OF:
        raise Invalid(f"There is no export of {what}. What there is: {', '.join(OF)}.")
    _check_text(given)
    known = {one.name: one for one in fields(OF[what])}
    values = {}
    for name, value in given.items():
        if name in known:
            values[name] = READ[name](name, value, what) if value is not None else _default(known[name])
        elif name not in READ:
            raise Invalid(f"{name}: there is no such filter. Filters of {what}: {', '.join(known)}.")
        elif value is not None:
            owners = " and ".join(owner for owner, made in OF.items() if name in {one.name for one in fields(made)})
            raise Invalid(f"{name} is for {owners}; {what} do not have it.")
    made = OF[what](**values)
    if isinstance(made, Prompts) and made.iteration is not None:
        raise Invalid("iteration is for comparisons and demonstrations and conversations; prompts are of no round.")
    if isinstance(made, Demonstrations) and made.review_states is not None:
        both = sorted(made.include.intersection(OF_STATE.values()))
        if both:
            raise Invalid(f"review_states names all that is wanted; leave include {' '.join(both)} out.")
    return made


def check(*, what: str, format: str, filters: Filters, kind: str = "jsonl") -> None:
    """Raises Invalid where this format of it does not go with these filters or this kind of files."""
    known = shapes.FORMATS[what]
    if format not in known:
        raise Invalid(f"There is no format {format} of {what}. Formats: {', '.join(known)}.")
    unfit, why = shapes.UNFIT.get(format, ((), ""))
    if kind in unfit:
        raise Invalid(f"{format} cannot be written as {kind}: {why}. Choose jsonl.")
    if isinstance(filters, Comparisons):
        if filters.pairs != "all" and format not in shapes.PAIRS:
            raise Invalid(f"pairs: {format} has no pairs; {', '.join(shapes.PAIRS)} have.")
        if filters.margin is not None and format not in shapes.MARGIN:
            raise Invalid(f"margin: {format} has none; {', '.join(shapes.MARGIN)} may have.")


def mix(text: str) -> Mix:
    """A set to mix in from `NAME:WEIGHT`: a whole number is a count of conversations, one with a point a weight."""
    name, _, amount = text.rpartition(":")
    count = weight = None
    try:
        if amount.isdecimal():
            count = int(amount)
        else:
            weight = float(amount)
    except ValueError:
        amount = ""
    enough = (count is not None and 1 <= count < 2**63) or (weight is not None and 0 < weight <= 1_000_000)
    if not name.strip() or not amount or not enough:
        raise Invalid(
            f"mix: {text!r} is not NAME:WEIGHT; write file.jsonl:5000 for 5,000 conversations of it, or file.jsonl:0.5 "
            "for half as many as the export's own."
        )
    return Mix(name=name, weight=weight, count=count)


def _check_text(given: dict) -> None:
    """Raises Invalid where something in it could be neither kept nor told."""
    try:
        json.dumps(given, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise Invalid("The filters hold half a character (a lone surrogate), which is no text.") from None


def _default(known) -> Any:
    return known.default if known.default is not MISSING else known.default_factory()


def _plain(value):
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _whole(least: int) -> Callable[[str, Any, str], int]:
    def read(name: str, value, what: str) -> int:
        if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            raise Invalid(f"{name}: {value!r} is no whole number from {least} on.")
        return value

    return read


def _one_of(*known: str) -> Callable[[str, Any, str], str]:
    def read(name: str, value, what: str) -> str:
        if value not in known:
            raise Invalid(f"{name}: {value!r} is none of {', '.join(known)}.")
        return value

    return read


def _some_of(*known: str) -> Callable[[str, Any, str], frozenset[str]]:
    def read(name: str, value, what: str) -> frozenset[str]:
        given = _texts(name, value)
        if unknown := [one for one in given if one not in known]:
            raise Invalid(f"{name}: {unknown[0]!r} is none of {', '.join(known)}.")
        if not given:
            raise Invalid(f"{name}: name one or more of {', '.join(known)}, or leave it out.")
        return frozenset(given)

    return read


def _texts(name: str, value) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise Invalid(f"{name}: {value!r} is no list.")
    given = list(value)
    if not all(isinstance(one, str) for one in given):
        raise Invalid(f"{name}: a list of words is wanted.")
    return given


def _include(name: str, value, what: str) -> frozenset[str]:
    given, known = _texts(name, value), INCLUDE[what]
    if unknown := [one for one in given if one not in known]:
        knows = f"which know {', '.join(known)}" if known else "which have no more to include"
        raise Invalid(f"include {unknown[0]} is not for {what}, {knows}.")
    return frozenset(given)


def _pseudonyms(name: str, value, what: str) -> frozenset[str]:
    given = _texts(name, value)
    for one in given:
        if len(one) != 16 or not set(one) <= set("0123456789abcdef"):
            raise Invalid(f"{name}: {one!r} is no pseudonym; it has 16 hexadecimal digits, as in exports.")
    return frozenset(given)


def _moment(name: str, value, what: str) -> datetime:
    try:
        if isinstance(value, str):
            value = parse_datetime(value) or parse_date(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time.min)
        return value if timezone.is_aware(value) else timezone.make_aware(value)
    except (ValueError, TypeError, AttributeError, OverflowError):
        pass
    raise Invalid(f"{name}: not a date; write it as 2026-01-31 or 2026-01-31T12:00:00+00:00.")


def _mixes(name: str, value, what: str) -> tuple[Mix, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise Invalid(f"{name}: {value!r} is no list.")
    given = tuple(one if isinstance(one, Mix) else mix(one if isinstance(one, str) else repr(one)) for one in value)
    names = [one.name for one in given]
    for one in names:
        if names.count(one) > 1:
            raise Invalid(f"{name}: {one} is there twice; name it once, with all that is wanted of it.")
    # A set is called by this on its lines.
    files = [PurePath(one).name for one in names if not one.startswith("export:")]
    for one in files:
        if files.count(one) > 1 or one in OF:
            raise Invalid(f"{name}: {one} could not be told from another set on its lines; rename the file.")
    return given


def _text(name: str, value, what: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Invalid(f"{name}: a text is wanted.")
    return value


READ: dict[str, Callable[[str, Any, str], Any]] = {
    "iteration": _whole(1),
    "split": _one_of(*shapes.SPLITS),
    "since": _moment,
    "include": _include,
    "without": _pseudonyms,
    "personal": _one_of(*PERSONAL),
    "origins": _some_of(*ORIGINS),
    "selection": _one_of(*SELECTIONS),
    "rankings": _one_of(*RANKINGS),
    "pairs": _one_of(*PAIRS),
    "margin": _one_of(*MARGINS),
    "sources": _some_of(*Message.Source.values),
    "review_states": _some_of(*ReviewState.values),
    "mix": _mixes,
    "mix_seed": _whole(0),
    "kinds": _some_of(*KINDS),
    "use_case": _text,
}
"""How each field is read: (its name, what was given, what is exported) to its value. None stands for its default."""
