"""JSON as bytes to values: one line, or the items of one long list, with a reason where it is none."""

import json
import re
from collections.abc import Callable, Iterator

import orjson

from annotate.datasets.incoming.items import Bad

LARGEST = 2**63
"""Whole numbers from here on are refused: columns and most readers of the exports have 64 bits."""

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_STRING = re.compile(rb"(?:[^\"\\]++|\\.)*+", re.DOTALL)
_INSIDE = re.compile(rb"(?:[^\"\[\]{}]++|\"(?:[^\"\\]++|\\.)*+\")*+", re.DOTALL)
_BLANK = re.compile(r"[ \t\n\r]*+")
_TOP = re.compile(rb"[^\"\[\]{},]*+")


class Damaged(Exception):
    """The file is not what it began as; the message says what is wrong with it."""


class _Refused(ValueError):
    """A value that JSON, or Python's reading of it, allows and nothing here can keep."""


def _no_constant(name: str):
    raise _Refused(f"it holds {name}, which JSON has not")


def _whole(digits: str) -> int:
    # More digits are not even read: Python refuses 4,300 of them.
    value = int(digits) if len(digits) < 21 else LARGEST
    if not -LARGEST <= value < LARGEST:
        raise _Refused("it holds a number that is too large")
    return value


def _decimal(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _Refused("it holds a number that is too large")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_int=_whole, parse_float=_decimal)


def decoded(data: bytes):
    """The value that these bytes are, or a Bad that says why they are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return Bad(f"it is not UTF-8 (byte {error.start + 1:,})")
    try:
        value = _DECODER.decode(text)
        _without_halves(value, text, 0, len(text))
    except json.JSONDecodeError as error:
        return Bad(f"it is not JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1:,})")
    except UnicodeEncodeError:
        return Bad("it holds half a character (a lone surrogate)")
    except _Refused as error:
        return Bad(str(error))
    except RecursionError:
        # Python's reader counts the stack of its caller in; this one takes 1,024 levels wherever it is called.
        return _deep(data)
    return value


def _without_halves(value, text: str, begin: int, end: int) -> None:
    """Raises UnicodeEncodeError where the value, read from there, holds half a character."""
    if SURROGATE.search(text, begin, end):
        json.dumps(value, ensure_ascii=False).encode()


def _deep(data: bytes):
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return Bad("it is nested too deep")


def listed(read: Callable[[], bytes], *, longest: int, too_long: str) -> Iterator[object]:
    """The items of a list as values, given what reads on after its opening bracket; a Bad for each that is none.

    One that has more than `longest` bytes is Bad(`too_long`). One bad item leaves the next ones as they are. Raises
    Damaged where the list does not end, or more stands after its end.
    """
    rest, begun = b"", False
    slowly = misses = 0
    while True:
        item, rest, mark = _cut(rest, read, longest)
        item = item if item is None else item.strip()
        # Nothing before the end of the list is no item, but after a comma one is missing.
        if item or item is None or begun or mark == b",":
            yield Bad(too_long) if item is None else decoded(item)
        if mark != b",":
            break
        begun = True
        if slowly:
            slowly -= 1
            continue
        values, rest = _quickly(rest)
        yield from values
        # Where one bad item follows another, each try would read the whole chunk for nothing.
        slowly = misses = 0 if values else min(2 * misses + 1, 1000)
    _nothing_after(rest, read)


def _quickly(data: bytes) -> tuple[list, bytes]:
    """The good items, each with its comma, that these bytes begin with, and the rest of the bytes."""
    try:
        text, tail = data.decode(), b""
    except UnicodeDecodeError as error:
        # The end of a chunk may part a character.
        text, tail = data[: error.start].decode(), data[error.start :]
    values, at = [], 0
    while True:
        begin = _BLANK.match(text, at).end()
        try:
            value, end = _DECODER.raw_decode(text, begin)
            _without_halves(value, text, begin, end)
        except (ValueError, RecursionError):
            break
        end = _BLANK.match(text, end).end()
        if text[end : end + 1] != ",":
            break
        values.append(value)
        at = end + 1
    return values, text[at:].encode() + tail if at else data


def _cut(chunk: bytes, read: Callable[[], bytes], longest: int) -> tuple[bytes | None, bytes, bytes]:
    """The next item as bytes, or None where it is too long, what was read beyond it, and the mark that ended it.

    Only brackets, commas and quotes are looked at: the end of a broken item is found too, and none is held that is
    too long.
    """
    depth, in_string = 1, False
    held: list[bytes] = []
    size = 0
    while True:
        at = 0
        while at < len(chunk):
            if in_string:
                at = _STRING.match(chunk, at).end()
                if chunk[at : at + 1] != b'"':
                    # The end of the chunk, or a backslash whose character is in the next one.
                    break
                in_string = False
                at += 1
                continue
            at = (_TOP if depth == 1 else _INSIDE).match(chunk, at).end()
            mark = chunk[at : at + 1]
            if depth == 1 and mark == b"}":
                raise Damaged("a bracket closes in it that none opens")
            if depth == 1 and mark in (b",", b"]"):
                size += at
                return b"".join([*held, chunk[:at]]) if size <= longest else None, chunk[at + 1 :], mark
            in_string = mark == b'"'
            depth += (mark in (b"[", b"{")) - (mark in (b"]", b"}"))
            at += 1
        at = min(at, len(chunk))
        size += at
        held = [*held, chunk[:at]] if size <= longest else []
        if not (more := read()):
            raise Damaged("its list does not end")
        chunk = chunk[at:] + more


def _nothing_after(rest: bytes, read: Callable[[], bytes]) -> None:
    while True:
        if rest.strip():
            raise Damaged("more stands after the end of its list")
        if not (rest := read()):
            return
