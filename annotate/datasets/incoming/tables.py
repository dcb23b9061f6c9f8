"""Rows of a Parquet file, as JSON would hold them, by small batches."""

import datetime
import decimal
import math
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow
from pyarrow import parquet

from annotate.datasets.incoming.items import Bad
from annotate.datasets.incoming.jsons import LARGEST

BATCH = 200
"""Rows that are in memory at once."""


def rows(file: BinaryIO, moved: Callable[[float], None]) -> Iterator[tuple[int, object]]:
    """The rows with their numbers; `moved` is told which share of them is behind."""
    table = parquet.ParquetFile(pyarrow.PythonFile(file, mode="r"), buffer_size=1 << 20)
    total = max(table.metadata.num_rows, 1)
    plain = all(_is_plain(field.type) for field in table.schema_arrow)
    number = 0
    for batch in table.iter_batches(batch_size=BATCH):
        for row in _rows(batch):
            number += 1
            yield number, row if plain or isinstance(row, Bad) else _as_json(row)
        moved(number / total)


def _rows(batch: pyarrow.RecordBatch) -> Iterator[dict | Bad]:
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, UnicodeError, OverflowError, pyarrow.ArrowException):
        pass
    for place in range(batch.num_rows):
        try:
            yield batch.slice(place, 1).to_pylist()[0]
        except UnicodeError:
            yield Bad("it is not UTF-8")
        except (ValueError, OverflowError, pyarrow.ArrowException) as error:
            yield Bad(f"it holds a value that cannot be read ({error})")


def _is_plain(kind: pyarrow.DataType) -> bool:
    """Whether values of this type are what JSON would have given."""
    types = pyarrow.types
    if types.is_struct(kind):
        return all(_is_plain(kind.field(place).type) for place in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    if types.is_integer(kind):
        return kind != pyarrow.uint64()
    return types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind) or types.is_null(kind)


def _as_json(value):
    """A value of a table as JSON would hold it: moments as text, what is no number as null."""
    if isinstance(value, dict):
        return {key: _as_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value < LARGEST else str(value)
    if isinstance(value, bool | str | None):
        return value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta | uuid.UUID):
        return str(value)
    # Bytes, pairs of a map: nothing that a dialogue is made of.
    return None
