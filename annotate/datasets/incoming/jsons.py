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
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
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


def _deep(data: bytes):
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return Bad("it is nested too deep")


def items(read: Callable[[], bytes], *, longest: int) -> Iterator[bytes | None]:
    """The items of a list as bytes, given what reads on after its opening bracket; None for one that is too long.

    Only brackets, commas and quotes are looked at, so that a broken item is found by whoever decodes it and the next
    one is still read. Raises Damaged where the list does not end, or more stands after its end.
    """
    depth, in_string = 1, False
    held: list[bytes] = []
    size = count = 0
    chunk = b""
    while more := read():
        chunk += more
        start = at = 0
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
            at += 1
            if mark == b'"':
                in_string = True
            elif mark in (b"[", b"{"):
                depth += 1
            elif mark:
                depth -= mark != b","
                if depth == 0 or (depth == 1 and mark == b","):
                    size += at - 1 - start
                    item = b"".join([*held, chunk[start : at - 1]]) if size <= longest else None
                    if depth or count or item is None or item.strip():
                        yield item
                    if depth == 0:
                        _nothing_after(chunk[at:], read)
                        return
                    count += 1
                    held, size, start = [], 0, at
        at = min(at, len(chunk))
        size += at - start
        held = [*held, chunk[start:at]] if size <= longest else []
        chunk = chunk[at:]
    raise Damaged("its list does not end")


def _nothing_after(rest: bytes, read: Callable[[], bytes]) -> None:
    while True:
        if rest.strip():
            raise Damaged("more stands after the end of its list")
        if not (rest := read()):
            return
