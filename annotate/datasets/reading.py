"""Reads rows by plain statements: many a second, and no model of each."""

from typing import Any


def read(cursor, statement: str, given: Any) -> list[dict]:
    """The rows of a statement, by the names of its columns."""
    cursor.execute(statement, given)
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
