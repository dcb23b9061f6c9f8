"""Reads rows by plain statements: many a second, and no model of each."""

from collections.abc import Iterable, Iterator

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet


def as_array(ids: Iterable[int]) -> str:
    """The ids as one parameter; as a list each would be a parameter of its own, adapted by itself."""
    return f"{{{','.join(map(str, ids))}}}"


def read(cursor, statement: str, ids: Iterable[int]) -> list[dict]:
    """The rows of a statement for these `ids`, by the names of its columns."""
    cursor.execute(statement, {"ids": as_array(ids)})
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def streamed(found: QuerySet) -> Iterator[tuple]:
    """The rows of `values_list`, a part at a time by a cursor of the server, so that memory stays flat.

    Within a transaction only: one that outlives its transaction would be lost in a pooler. For the same reason
    `iterator()` reads all at once here (DISABLE_SERVER_SIDE_CURSORS).
    """
    try:
        statement, given = found.query.sql_with_params()
    except EmptyResultSet:
        return
    with connection.chunked_cursor() as cursor:
        cursor.execute(statement, given)
        while rows := cursor.fetchmany(10_000):
            yield from rows
