"""Files of exports as they are sent: as a stream, whole or from a byte on, so that a download can be gone on with."""

import hashlib
import re
from collections.abc import Iterator
from typing import BinaryIO

from django.db import connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from annotate.datasets import stored
from annotate.datasets.manifest import MANIFEST
from annotate.errors import NotFound, Unavailable
from annotate.models import Export

CHUNK = 2**18

TYPES = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".jsonl": "application/x-ndjson",
    ".zst": "application/zstd",
    ".parquet": "application/vnd.apache.parquet",
}
"""What a file is sent as, by the end of its name; all else is just bytes."""

RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*")


def names(export: Export) -> list[str]:
    """The names of its files, the manifest last; none where it is not done."""
    return [*export.manifest.get("files", {}), MANIFEST] if export.location else []


def response(request: HttpRequest, export: Export, name: str) -> HttpResponse:
    """The answer to a request for a file of an export.

    Knows `Range` (one range), `If-Range` and `If-None-Match`; the ETag is the file's SHA-256. Raises NotFound where the
    export has no such file, and Unavailable where the storage does not give it.
    """
    if name not in names(export):
        done = "has no such file" if export.location else f"is {export.state}, so that it has no files yet"
        raise NotFound(f"Export {export.pk} {done}.")
    sha256, size = _described(export, name)
    etag = f'"{sha256}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if etag in re.split(r"\s*,\s*", request.headers.get("If-None-Match", "").replace("W/", "")):
        return HttpResponse(status=304, headers=headers)
    begin, end, status = 0, size, 200
    wanted = request.headers.get("Range", "") if request.headers.get("If-Range", etag) == etag else ""
    if span := _span(wanted, size):
        begin, end = span
        if begin >= end:
            return HttpResponse(status=416, headers=headers | {"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    headers |= {
        "Content-Length": str(end - begin),
        "Content-Type": TYPES.get(f".{name.rpartition('.')[2]}", "application/octet-stream"),
        "Content-Disposition": f'attachment; filename="{name}"',
        # So that a proxy passes it on as it comes, instead of keeping all of it first.
        "X-Accel-Buffering": "no",
    }
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    return StreamingHttpResponse(_Part(_opened(export, name), begin, end), status=status, headers=headers)


def _described(export: Export, name: str) -> tuple[str, int]:
    """Digest and size of a file."""
    if name == MANIFEST:
        with _opened(export, name) as file:
            data = file.read()
        return hashlib.sha256(data).hexdigest(), len(data)
    described = export.manifest["files"][name]
    return described["sha256"], described["bytes"]


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """From which byte to before which; an empty span where the range lies outside, None where it is no single range."""
    match = RANGE.fullmatch(wanted)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return max(0, size - int(suffix)), size if int(suffix) else 0
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _opened(export: Export, name: str) -> BinaryIO:
    try:
        return stored.opened(export, name)
    except OSError as error:
        raise Unavailable(f"The file {name} is not in the storage: {error.strerror or error}.") from error


class _Part:
    """A part of a file as the server reads it, which closes it also where the reader leaves early."""

    def __init__(self, file: BinaryIO, begin: int, end: int):
        self._file, self._begin, self._end = file, begin, end
        # A download may take hours: it must not keep a connection that pages need.
        connections.close_all()

    def __iter__(self) -> Iterator[bytes]:
        # A file in S3 would first be brought whole into memory by its own `read`.
        remote = getattr(self._file, "obj", None)
        return self._from_s3(remote) if remote is not None else self._from_folder()

    def _from_folder(self) -> Iterator[bytes]:
        self._file.seek(self._begin)
        left = self._end - self._begin
        while left and (data := self._file.read(min(CHUNK, left))):
            left -= len(data)
            yield data

    def _from_s3(self, remote) -> Iterator[bytes]:
        if self._begin < self._end:
            body = remote.get(Range=f"bytes={self._begin}-{self._end - 1}")["Body"]
            try:
                yield from body.iter_chunks(CHUNK)
            finally:
                body.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
