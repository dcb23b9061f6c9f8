"""What can be exported. Each is one `What`, a handful of functions; the writer in `writing` is the same for all."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotate.datasets.filters import Filters
from annotate.models import Project


@dataclass(frozen=True)
class What:
    """One thing that can be exported, from the query to the words of its manifest."""

    name: str
    title: str
    """The beginning of the card's heading."""
    about: str
    """What the card says of every line, beside its format."""

    keys: Callable[[Project, Any], Iterator[tuple[int, int]]]
    """(project, filters): what counts under these filters, all splits, as pairs of group and key in the order of the
    lines; the keys of a group stand together. Read once, inside a transaction, through a server-side cursor."""
    rows: Callable[[list[int]], Iterator[dict]]
    """The rows of these keys (whole groups) in their order, each with its key as `id`; what is gone is left out."""
    renderer: Callable[[Project, Any], Callable[[dict], dict]]
    """(project, filters): the function that makes of a row the whole line, with its `split` and `family`."""
    formats: dict[str, Callable[[list[dict], Any], Iterator[dict]]]
    """By name: (whole lines of one group, filters) to the lines of this format, which may be none."""
    tally: Callable[[Project, str, Any], Any]
    """(project, format, filters): a tally in which nothing is counted yet, which can be pickled; `add` takes the whole
    lines of a group and the lines that the format made of them."""
    nothing: Callable[[Project, Any], str]
    """(project, filters): what to say where nothing was found."""
    no_lines: Callable[[str, Any, Any], str]
    """(format, filters, tally): what to say where no line came of what was found."""
    made_by: Callable[[Project, array, int], set[int]]
    """(project, keys, user id): which of the keys are the work of this person, wholly or in part."""
    ranked_by: Callable[[Project, array, int], bool] = lambda project, keys, user_id: False
    """(project, keys, user id): whether rankings of this person are in the lines though the keys are of something else;
    these go by `without`, and no key leaves for them."""
    more: Callable[[Project, Any, int], Iterator[list[dict]] | None] = lambda project, filters, own: None
    """(project, filters, how many groups of its own are in it): groups of further whole lines, the same every time."""
    parents: Callable[[Project, Any], list[dict]] = lambda project, filters: []
    """(project, filters): what the further lines are from, as the manifest lists it; `export` is an export's id."""
    made_from: Callable[[Project, Any], list[str]] = lambda project, filters: []
    """(project, filters): digests of what the further lines are from; while these are the same, so are the lines."""
    beside: dict[str, Callable[[dict[str, list[str]]], dict[str, bytes]]] = field(default_factory=dict)
    """By format: of the names of the files by split, further files with their content."""
    mark: Callable[[Sequence[int]], None] | None = None
    """Told the keys of what is in it, some at a time, in the transaction that registers the export."""
    says: dict = field(default_factory=dict)
    """What its manifest says beside the rest."""
    instead: dict[str, "What"] = field(default_factory=dict)
    """By format: what makes it in the place of this, where a format needs other keys and rows."""

    def of(self, format: str) -> "What":
        """What makes this format."""
        return self.instead.get(format, self)


__all__ = ["Filters", "What"]
