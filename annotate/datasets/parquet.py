"""Lines as Parquet. Imported only where Parquet is written or read: pyarrow takes a while and much memory to load."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import orjson
import pyarrow
import pyarrow.json
import pyarrow.parquet

# The pools of pyarrow's own keep what was freed: 20 MB more, for nothing that could be measured.
pyarrow.set_memory_pool(pyarrow.system_memory_pool())

TYPES = {
    "string": pyarrow.string(),
    "int64": pyarrow.int64(),
    "float64": pyarrow.float64(),
    "bool": pyarrow.bool_(),
}

ROW_GROUP_BYTES = 2 * 2**20
"""Bytes of JSON that make a group of rows: what is held in memory at once."""

READ_ROWS = 500
"""Rows that are read at once."""


def schema_of(shape: dict) -> pyarrow.Schema:
    """The schema of such lines. Never inferred: what is null or empty in all of one file keeps its type there."""
    return pyarrow.schema([pyarrow.field(name, _of(inner)) for name, inner in shape.items()])


def _of(shape) -> pyarrow.DataType:
    if isinstance(shape, dict):
        return pyarrow.struct([pyarrow.field(name, _of(inner)) for name, inner in shape.items()])
    if isinstance(shape, list):
        return pyarrow.list_(_of(shape[0]))
    return TYPES[shape.removesuffix("?")]


def write(lines: Path, path: Path, *, shape: dict) -> None:
    """Write a file of lines of JSON as a Parquet file; the same lines give the same bytes."""
    schema = schema_of(shape)
    parsing = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd", compression_level=3) as writer:
        for block in _blocks(lines):
            # In one block and one thread, so that a line of any length fits and the order is that of the file.
            reading = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
            table = pyarrow.json.read_json(BytesIO(block), read_options=reading, parse_options=parsing)
            writer.write_table(table.cast(schema), row_group_size=table.num_rows)


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, about so many bytes at a time."""
    with path.open("rb") as file:
        while block := file.readlines(ROW_GROUP_BYTES):
            yield b"".join(block)


def rows(path: Path) -> Iterator[bytes]:
    """The rows of a Parquet file, each as a line of JSON. Raises ValueError where it is none."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=READ_ROWS):
                for row in batch.to_pylist():
                    yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except pyarrow.ArrowException as error:
        raise ValueError(" ".join(str(error).split())) from None


def fits(path: Path, *, shape: dict) -> bool:
    """Whether the columns of a Parquet file are those of the shape, in its order and with its types."""
    try:
        return pyarrow.parquet.read_schema(path).equals(schema_of(shape))
    except pyarrow.ArrowException:
        return False
