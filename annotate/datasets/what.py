"""What can be exported. Each is one `What`, a handful of functions; the writer in `snapshots` is the same for all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet

from annotate.models import Project


@dataclass(frozen=True)
class What:
    """One thing that can be exported, from the query to the words of its manifest."""

    name: str
    title: str
    """The beginning of the card's heading."""
    about: str
    """What the card says of every line, beside its format."""

    found: Callable[..., QuerySet]
    """(project, filters): what counts under these filters, all splits."""
    rows: Callable[[QuerySet], Iterator[dict]]
    """The rows of what was found, sorted, through a server-side cursor. Called inside a transaction."""
    renderer: Callable[[Project], Callable[[dict], dict]]
    """Of a project: the function that makes the whole line, with its `split`, of a row."""
    group: str
    """The field of whole lines by which they belong together; the rows come sorted by it."""
    formats: dict[str, Callable[[list[dict], Any], Iterator[dict]]]
    """By name: (whole lines of one group, filters) to the lines of this format, which may be none."""
    tally: Callable[[Project, str, Any], Any]
    """(project, format, filters): a tally in which nothing is counted yet; `add` takes the whole lines of a group and
    the lines that the format made of them."""
    nothing: Callable[[Project, Any], str]
    """(project, filters): what to say where nothing was found."""
    no_lines: Callable[[str, Any, Any], str]
    """(format, filters, tally): what to say where no line came of what was found."""
    mark: Callable[[Sequence[int]], None] | None = None
    """Told the ids of the conversations that are in it, in the transaction that registers the export."""
    says: dict = field(default_factory=dict)
    """What its manifest says beside the rest."""
