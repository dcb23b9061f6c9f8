"""Files as a stream of values: what opens, what is one bad value, and what makes the whole file damaged."""

import gzip
import io
import json
import os
import sys
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from annotate.datasets.incoming import files, jsons
from annotate.datasets.incoming.items import Bad
from annotate.errors import Invalid

VALUES = [{"prompt": "Eins", "completion": "één"}, {"prompt": "two", "completion": 'a "quoted" [bracket]'}, {"n": None}]
LINES = b"".join(json.dumps(value).encode() + b"\n" for value in VALUES)
LIST = json.dumps(VALUES, indent=1).encode()


def values(data: bytes, name: str = "rows.jsonl") -> list:
    """The values with their numbers; what is wrong with one as a text."""
    with files.lines_of(io.BytesIO(data), name=name) as rows:
        return [(number, str(value) if isinstance(value, Bad) else value) for number, value in rows]


def refused(data: bytes, name: str = "rows.jsonl") -> str:
    with pytest.raises(Invalid) as refusal:
        values(data, name)
    return refusal.value.message


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def table(rows: list[dict], **options) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, **options), file, compression="zstd")
    return file.getvalue()


# --- What opens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl", LINES),
        ("rows.json", LINES),
        ("rows.jsonl", LINES.rstrip()),
        ("rows.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("rows.jsonl", b"\xef\xbb\xbf" + LINES),
        ("rows.json", LIST),
        ("rows.json", b"\xef\xbb\xbf\n \n" + LIST + b"\n\n"),
        ("rows.jsonl", json.dumps(VALUES).encode()),
        ("rows.jsonl.gz", gzip.compress(LINES)),
        ("rows.JSONL.GZ", gzip.compress(LINES[:20]) + gzip.compress(LINES[20:])),
        ("rows.json.gz", gzip.compress(LIST)),
        ("rows.jsonl.zst", zstd(LINES)),
        ("rows.jsonl.zst", zstd(LINES[:20]) + zstd(LINES[20:])),
        ("rows.json.zst", zstd(LIST)),
        # Without a suffix their beginning tells.
        ("upload", gzip.compress(LINES)),
        ("upload", zstd(LINES)),
    ],
)
def test_values_of_a_file(tmp_path, name, data):
    wanted = list(enumerate(VALUES, 1))
    assert values(data, name) == wanted
    path = tmp_path / name
    path.write_bytes(data)
    with files.lines_of(path, name="rows") as rows:
        assert list(rows) == wanted
        assert (rows.read, rows.size) == (len(data), len(data))


def test_blank_lines_count_and_are_left_out():
    assert values(b'\n{"a": 1}\n  \n{"a": 2}') == [(2, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize("data", [b"", b"\n \n", b"[]", b" [ \n ] "])
def test_an_empty_file(data):
    assert values(data) == []


def test_a_table(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "Hi"}], "n": 1, "x": 0.5}, {"messages": [], "n": None, "x": None}]
    data = table(rows)
    assert values(data, "rows.parquet") == list(enumerate(rows, 1))
    assert values(data, "upload") == list(enumerate(rows, 1))
    (tmp_path / "rows.parquet").write_bytes(data)
    with files.lines_of(tmp_path / "rows.parquet", name="rows") as found:
        assert list(found) == list(enumerate(rows, 1))
        assert found.read == found.size == len(data)


def test_columns_that_json_has_not():
    kinds = {
        "moment": pyarrow.array([0], pyarrow.timestamp("ms")),
        "bytes": pyarrow.array([b"\x00"], pyarrow.binary()),
        "price": pyarrow.array(["1.50"]).cast(pyarrow.decimal128(5, 2)),
        "none": pyarrow.array([float("nan")]),
        "large": pyarrow.array([2**63], pyarrow.uint64()),
    }
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(kinds), file)
    (row,) = values(file.getvalue(), "rows.parquet")
    assert row == (
        1,
        {"moment": "1970-01-01T00:00:00", "bytes": None, "price": "1.50", "none": None, "large": str(2**63)},
    )


def test_a_broken_text_in_a_table():
    # Arrow does not look whether a text is UTF-8 when it is written.
    broken = pyarrow.array([b"good", b"\xff\xfe", b"fine"]).view(pyarrow.string())
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": broken}), file)
    assert values(file.getvalue(), "rows.parquet") == [
        (1, {"text": "good"}),
        (2, "it is not UTF-8"),
        (3, {"text": "fine"}),
    ]


def test_standard_input(monkeypatch):
    into, out = os.pipe()
    with os.fdopen(out, "wb") as pipe:
        pipe.write(gzip.compress(LINES))
    with os.fdopen(into, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        rows = files.lines_of("-", name="standard input")
        assert rows.size is None
        assert [value for _, value in rows] == VALUES
        assert rows.read == len(gzip.compress(LINES))


def test_standard_input_that_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Invalid, match="Standard input is closed"):
        files.lines_of("-", name="stdin")


def test_a_table_from_a_pipe(monkeypatch):
    into, out = os.pipe()
    with os.fdopen(out, "wb") as pipe:
        pipe.write(table(VALUES[:2]))
    with os.fdopen(into, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        with pytest.raises(Invalid, match=r"Parquet, which cannot be read from a pipe; give the file's name"):
            list(files.lines_of("-", name="standard input"))


def test_a_look_at_the_first_values_takes_none_away():
    rows = files.lines_of(io.BytesIO(b"broken\n" + LINES), name="rows")
    assert rows.first(2) == VALUES[:2]
    assert rows.first(2) == VALUES[2:]
    assert [number for number, _ in rows] == [1, 2, 3, 4]


def test_a_look_goes_behind_a_value_that_is_too_long(monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 100)
    monkeypatch.setattr(files, "PEEKED", 50)
    data = json.dumps({"prompt": "x" * 1000}).encode() + b"\n" + b" " * files.CHUNK + b"\n" + LINES
    with files.lines_of(io.BytesIO(data), name="rows.jsonl") as rows:
        assert rows.first() == VALUES[:1]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("rows.jsonl", b"", "rows.jsonl is empty."),
        ("rows.json", b"[ ]", "rows.json is empty."),
        ("rows.jsonl", b'{"a": 1\n\nb\n', "line 1: it is not JSON (Expecting ',' delimiter at character 9); "
         "line 3: it is not JSON (Expecting value at character 1)."),
        ("rows.jsonl", b"<html>\n" * 5, "line 1: it is not JSON (Expecting value at character 1); line 2: "),
    ],
)  # fmt: skip
def test_a_look_that_finds_nothing_good_says_why(name, data, told):
    with files.lines_of(io.BytesIO(data), name=name) as rows, pytest.raises(Invalid) as refusal:
        rows.first()
    assert told in refusal.value.message
    assert "line 4" not in refusal.value.message


def test_a_look_ends_after_some_bytes(monkeypatch):
    monkeypatch.setattr(files, "PEEKED", 1000)
    monkeypatch.setattr(files, "CHUNK", 1000)
    rows = files.lines_of(io.BytesIO(b'{"a": 1}\n' * 5000), name="rows")
    assert len(rows.first(5000)) < 1000
    assert len(list(rows)) == 5000


# --- One bad value ---------------------------------------------------------------------------------------------------

BAD = [
    (b'{"a": "\xff"}', "it is not UTF-8 (byte 8)"),
    (b'{"a": "\x00"}', "it is not JSON (Invalid control character at character 8)"),
    (b'{"a": 1', "it is not JSON (Expecting ',' delimiter at character 9)"),
    (b"nonsense", "it is not JSON (Expecting value at character 1)"),
    (b'{"a": 1} {"b": 2}', "it is not JSON (Extra data at character 10)"),
    (rb'{"a": "\ud83d"}', "it holds half a character (a lone surrogate)"),
    (rb'{"\uDE00": 1}', "it holds half a character (a lone surrogate)"),
    (b'{"a": NaN}', "it holds NaN, which JSON has not"),
    (b'{"a": -Infinity}', "it holds -Infinity, which JSON has not"),
    (b'{"a": 1e999}', "it holds a number that is too large"),
    (b'{"a": 9223372036854775808}', "it holds a number that is too large"),
    (b'{"a": -' + b"1" * 5000 + b"}", "it holds a number that is too large"),
    (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "it is nested too deep"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line(line, reason):
    assert values(b'{"a": 1}\n' + line + b'\n{"a": 3}\n') == [(1, {"a": 1}), (2, reason), (3, {"a": 3})]


@pytest.mark.parametrize(("item", "reason"), [(item, reason) for item, reason in BAD if item != b'{"a": 1'])
def test_a_bad_item(item, reason):
    found = values(b'[{"a": 1},' + item + b',{"a": 3}]', "rows.json")
    assert found == [(1, {"a": 1}), (2, reason), (3, {"a": 3})]


@pytest.mark.parametrize("data", [b'[{"a": 1},]', b'[{"a": 1},,{"a": 3}]', b"[,]"])
def test_a_missing_item(data):
    assert "it is not JSON (Expecting value at character 1)" in [value for _, value in values(data)]


def test_what_json_does_allow():
    line = rb'{"a": "\ud83d\ude00", "b": -9223372036854775808, "c": 1e-999, "d": "\\ud83d"}'
    assert values(line) == [(1, {"a": "😀", "b": -(2**63), "c": 0.0, "d": "\\ud83d"})]


def test_lines_that_are_too_long(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        for line in (
            b"{" * 20_000_000,
            b'{"a": 2}',
            b'{"a": "' + b"x" * 20_000_000 + b'"}',
            b"[" * 40_000_000,
            b'{"a": 5}',
        ):
            file.write(line + b"\n")
    tracemalloc.start()
    try:
        with files.lines_of(path, name="rows") as rows:
            found = [(number, str(value)) for number, value in rows]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    too_long = "it is longer than 16 MiB"
    assert found == [(1, too_long), (2, "{'a': 2}"), (3, too_long), (4, too_long), (5, "{'a': 5}")]
    # The longest that one may be, and the pieces that it is put together from.
    assert peak < 2.5 * files.LONGEST


def test_an_item_that_is_too_long(monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 1000)
    monkeypatch.setattr(files, "CHUNK", 100)
    items = [b'{"a": 1}', b'{"a": "' + b"x" * 5000 + b'"}', b'{"a": "' + b"y" * 990 + b'"}', b'{"a": 3}']
    assert values(b"[" + b",\n".join(items) + b"]") == [
        (1, {"a": 1}),
        (2, "it is longer than 16 MiB"),
        (3, {"a": "y" * 990}),
        (4, {"a": 3}),
    ]


def test_a_line_as_long_as_it_may_be(monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 12)
    assert values(b'{"a": 12345}\n{"a": 123456}\n{"a": 1}') == [
        (1, {"a": 12345}),
        (2, "it is longer than 16 MiB"),
        (3, {"a": 1}),
    ]


# --- The whole file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl.gz", gzip.compress(LINES * 1000)[:-9]),
        ("rows.jsonl.gz", gzip.compress(LINES)[:-1]),
        ("rows.jsonl.gz", gzip.compress(LINES) + b"more"),
        ("rows.jsonl.gz", LINES),
        ("rows.jsonl.zst", zstd(LINES * 1000)[:-9]),
        ("rows.jsonl.zst", zstd(LINES)[:-1]),
        ("rows.jsonl.zst", zstd(LINES) + zstd(LINES)[:10]),
        ("rows.jsonl.zst", zstd(LINES) + b"more"),
        ("rows.jsonl.zst", LINES),
        ("rows.parquet", table(VALUES[:2])[:-9]),
        ("rows.parquet", LINES),
        ("rows.parquet", b""),
        ("rows.parquet", b"PAR1" + b"\0" * 100 + b"PAR1"),
        ("rows.json", LIST[:-3]),
        ("rows.json", LIST + b"more"),
        ("rows.json", b'[{"a": "open]'),
        ("rows.json", b"["),
        ("rows.json", b'[{"a": 1}}, {"a": 2}]'),
        ("rows.jsonl", b'["a"]\n["b"]\n'),
    ],
)
def test_a_damaged_file(name, data):
    said = refused(data, name)
    assert said.startswith(f"{name} is damaged or cut off: ")
    assert "Read before that: " in said
    assert "\n" not in said


def test_a_damaged_file_says_how_much_of_it_was_read():
    assert refused(b'[{"a": 1}, {"a": 2}', "rows.json") == (
        "rows.json is damaged or cut off: its list does not end. Read before that: 1."
    )
    assert refused(b"[1, 2] 3", "rows.json") == (
        "rows.json is damaged or cut off: more stands after the end of its list. Read before that: 2."
    )


@pytest.mark.parametrize("data", [b'{\n "rows": [\n', b'{"rows": [\n{"a": 1},\n{"a": 2}\n]}', b'\n{"a": 1,\n"b": 2}'])
def test_one_object_over_several_lines(data):
    assert refused(data) == ("rows.jsonl is one JSON object over several lines; one object a line, or a list, is read.")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Invalid, match=r"rows cannot be read: No such file or directory\."):
        files.lines_of(tmp_path / "nope", name="rows")
    with pytest.raises(Invalid, match=r"rows cannot be read: Is a directory\."):
        files.lines_of(tmp_path, name="rows")
    with pytest.raises(Invalid, match=r"rows cannot be read: embedded null byte\."):
        files.lines_of("a\0b", name="rows")


# --- Memory, and whatever else there is ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, ending):
    row = {"messages": [{"role": "user", "content": "word " * 200}]}
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        path.write_bytes(table([row | {"n": n} for n in range(8_000)]))
    else:
        text = json.dumps(row)
        path.write_text("\n".join([text] * 8_000) if ending == "jsonl" else f"[{','.join([text] * 8_000)}]")
    tracemalloc.start()
    try:
        with files.lines_of(path, name="rows") as rows:
            assert sum(1 for _ in rows) == 8_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@given(
    value=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    ),
    chunk=st.integers(1, 20),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_list_in_any_pieces(value, chunk, indent, ascii_only):
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    pieces = [data[at : at + chunk] for at in range(1, len(data), chunk)] + [b""]
    assert list(jsons.listed(iter(pieces).__next__, longest=10**6, too_long="")) == value


SOUND = [
    ("rows.jsonl", LINES),
    ("rows.json", LIST),
    ("rows.jsonl.gz", gzip.compress(LINES)),
    ("rows.jsonl.zst", zstd(LINES)),
    ("rows.parquet", table(VALUES[:2])),
]


@given(
    sound=st.sampled_from(SOUND),
    cut=st.floats(0, 1),
    wrong=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    before=st.binary(max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_a_file_that_was_tampered_with(sound, cut, wrong, before):
    name, data = sound
    changed = bytearray(data)
    for place, byte in wrong:
        changed[int(place * len(changed))] = byte
    cut_off = before + bytes(changed[: int(cut * len(changed)) + 1])
    _clear(cut_off, name)


@given(data=st.binary(max_size=200), name=st.sampled_from([name for name, _ in SOUND]), listed=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes(data, name, listed):
    _clear(b"[" + data if listed else data, name)


def _clear(data: bytes, name: str) -> None:
    """Values, or what is wrong with them by number, or one sentence on the file: nothing else comes of any bytes."""
    rows = files.lines_of(io.BytesIO(data), name=name)
    found, said = [], name
    try:
        found.extend((number, str(value) if isinstance(value, Bad) else value) for number, value in rows)
    except Invalid as refusal:
        said = refusal.message
    assert said.startswith(name)
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    json.dumps([value for _, value in found], ensure_ascii=False, allow_nan=False).encode()


def test_the_path_may_be_a_path(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    for path in (tmp_path / "rows.jsonl", str(tmp_path / "rows.jsonl"), Path(tmp_path) / "rows.jsonl"):
        with files.lines_of(path, name="rows") as rows:
            assert len(list(rows)) == 3
