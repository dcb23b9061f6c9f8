"""Reads rows by plain statements: many a second, and no model of each."""

from collections.abc import Iterable


def as_array(ids: Iterable[int]) -> str:
    """The ids as one parameter; as a list each would be a parameter of its own, adapted by itself."""
    return f"{{{','.join(map(str, ids))}}}"


def read(cursor, statement: str, ids: Iterable[int]) -> list[dict]:
    """The rows of a statement for these `ids`, by the names of its columns."""
    cursor.execute(statement, {"ids": as_array(ids)})
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
