"""Metrics of a training as tables that people read: whatever is nested in them becomes a table of its own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ERROR = "_error"
NAMES = {"kl": "KL", "k": "K"}
ORDER = (
    *("unseen_accuracy", "unseen_log_loss", "reward_gain", "validation_loss", "validation_accuracy", "train_loss"),
    *("unseen", "validation", "test", "train"),
    *("before", "after"),
    *("from", "to", "comparisons", "rankings", "pairs", "reward"),
)
"""What comes first, as the record keeps no order of names; all else stays as it is."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of each row names it. What is `aside` is of less interest."""

    title: str
    head: list[str]
    rows: list[list[str]]
    aside: bool = False


def titled(name: str) -> str:
    """A name in words."""
    return " ".join(NAMES.get(word, word) for word in name.replace("/", "_").split("_"))


def said(value) -> str:
    """A value in as many digits as tell something; a dash for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        value = round(value, 12)
        return f"{value:,.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(said, value)) or "–"
    return str(value)


def tables(metrics: dict) -> list[Table]:
    """All that was measured, its plain numbers first. Errors stand behind what they are of."""
    return list(_tables((), metrics))


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name not in ORDER, ORDER.index(name) if name in ORDER else 0))


def _tables(path: tuple[str, ...], value: dict) -> Iterator[Table]:
    value = {name: value[name] for name in _ordered(value)}
    plain = _plain(value)
    if plain:
        yield _table(path, ["", ""], [[titled(name), told] for name, told in plain.items()])
    alike: dict[frozenset, list[str]] = {}
    for name, one in value.items():
        if isinstance(one, dict) and one:
            alike.setdefault(frozenset(one), []).append(name)
        elif _is_rows(one):
            head = _ordered(one[0])
            yield _table((*path, name), list(map(titled, head)), [[said(row.get(key)) for key in head] for row in one])
    for names in alike.values():
        columns = list(_plain(value[names[0]]))
        by = path[-1].removeprefix("by_") if path and path[-1].startswith("by_") else ""
        if columns and (len(names) > 1 or by):
            cells = [[titled(name), *(_plain(value[name]).get(one, "–") for one in columns)] for name in names]
            yield _table(path or tuple(names), [titled(by), *map(titled, columns)], cells)
            for name in names:
                yield from _tables((*path, name), {key: one for key, one in value[name].items() if _is_nested(one)})
        else:
            for name in names:
                yield from _tables((*path, name), value[name])


def _table(path: tuple[str, ...], head: list[str], rows: list[list[str]]) -> Table:
    inner = path[1:] if path[:1] == ("splits",) and len(path) > 1 else path
    return Table(
        title=", ".join(map(titled, inner)),
        head=head,
        rows=rows,
        # Of a reward model the short answer is what it foretells of the unseen.
        aside=inner is not path and inner[0] != "unseen",
    )


def _plain(value: dict) -> dict[str, str]:
    """What is no table, each with its error."""
    found = {}
    for name in _ordered(value):
        one = value[name]
        if _is_nested(one) or (name.endswith(ERROR) and name.removesuffix(ERROR) in value):
            continue
        error = value.get(f"{name}{ERROR}")
        found[name] = said(one) if error is None else f"{said(one)} ± {error:.2g}"
    return found


def _is_nested(value) -> bool:
    return isinstance(value, dict) or _is_rows(value)


def _is_rows(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
