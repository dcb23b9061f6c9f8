"""`docs/api.md`: every example is sent as it stands, in order, and the answers look as they are shown."""

import http.client
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from rest_framework.authtoken.models import Token

from annotate import demo, jobs
from annotate.api.refusals import CODES
from annotate.datasets import snapshots
from annotate.datasets.incoming import bringing
from annotate.errors import BothsidesError
from annotate.models import Export, GenerationRequest, Import, Role
from tests import factory, site

PAGE = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```(sh|json)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def examples() -> Iterator[tuple[str, object]]:
    """Each command with the answer that is shown after it, None where none is."""
    for (kind, text), (next_kind, next_text) in zip(BLOCKS, [*BLOCKS[1:], ("sh", "")], strict=True):
        if kind == "sh":
            yield text, json.loads(next_text) if next_kind == "json" else None


def sent(command: str) -> tuple[int, object]:
    """Send what a curl command would send."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words.pop(0) == "curl"
    method, headers, body, address = "GET", {}, None, ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, value = words.pop(0).split(": ", 1)
            headers[name] = value
        elif word == "--json":
            body, headers["Content-Type"] = words.pop(0), "application/json"
        elif word == "-F":
            body = (body or b"") + field(words.pop(0))
            headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        elif word in ("-C", "-o"):
            # Where to it is written, and to go on where it broke off: nothing is there yet.
            words.pop(0)
        else:
            assert not word.startswith("-")
            address = word
    parts = urlsplit(address)
    link = http.client.HTTPConnection(parts.netloc, timeout=30)
    if isinstance(body, bytes):
        body += f"--{BOUNDARY}--\r\n".encode()
    link.request(method, f"{parts.path}?{parts.query}", body, headers)
    answer = link.getresponse()
    text = answer.read()
    return answer.status, json.loads(text) if text else None


BOUNDARY = "part"

CONVERSATION = {"messages": [{"role": "user", "content": "Are you there?"}, {"role": "assistant", "content": "I am."}]}


def field(text: str) -> bytes:
    """A field of a form as curl sends it; a file of any name holds one conversation."""
    name, value = text.split("=", 1)
    more, content = "", value
    if value.startswith("@"):
        more, content = f'; filename="{value[1:]}"', json.dumps(CONVERSATION)
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'.encode()


def work(command: str) -> None:
    """What a worker does after a request."""
    if "/suggestions/" in command:
        factory.answer(GenerationRequest.objects.latest("id"))
    elif "/exports/" in command:
        snapshots.go_on(Export.objects.latest("id"))
    elif "/imports/" in command:
        bringing.go_on(job=Import.objects.latest("id"))


def learn(shown: object, real: object, ids: dict[str, str]) -> None:
    """Checks that an answer has what is shown of it, of the same types, and learns which id stands for which."""
    if isinstance(shown, dict):
        assert set(shown) <= set(real)
        for name in shown:
            if name == "id":
                ids.setdefault(str(shown[name]), str(real[name]))
            elif name not in ("ratings", "flags"):
                learn(shown[name], real[name], ids)
    elif isinstance(shown, list):
        assert isinstance(real, list)
        assert bool(shown) == bool(real)
        for one, other in zip(shown, real, strict=False):
            learn(one, other, ids)
    else:
        assert type(shown) is type(real)


@pytest.mark.django_db(transaction=True)
def test_every_example_is_answered_as_shown() -> None:
    prepared = demo.prepare()
    trainer = prepared.people[Role.TRAINER]
    for _ in range(3):
        factory.open_comparison(prepared.project, trainer)
    tokens = {
        "TOKEN": Token.objects.create(user=trainer).key,
        "READER": Token.objects.create(user=prepared.people[Role.REVIEWER]).key,
        "ENGINEER": Token.objects.create(user=factory.person(prepared.project, role=Role.ENGINEER)).key,
    }
    ids: dict[str, str] = {}
    done = 0
    with site.web_server(WEB_PROCESSES="1") as port:
        for command, shown in examples():
            request = re.sub(r"\b\d{4}\b", lambda number: ids.get(number[0], number[0]), command)
            for name, value in (tokens | {"SITE": f"http://127.0.0.1:{port}"}).items():
                request = request.replace(f"${name}", value)
            status, real = sent(request)
            assert status in (200, 201, 202, 204), (request, real)
            if shown is not None:
                learn(shown, real, ids)
            if "-X POST" in command:
                work(command)
            done += 1
    assert done == PAGE.count("\ncurl ") == 28


def test_every_code_of_a_refusal_is_listed() -> None:
    from rest_framework import exceptions

    listed = set(re.findall(r"^\| \d+ \| `(\w+)` \|", PAGE, re.MULTILINE))
    # Whoever holds a job hears that it was stopped or lost, and nobody else.
    to_holders = {jobs.Stopped.code, jobs.Lost.code}
    ours = {error.code for error in (BothsidesError, *all_of(BothsidesError))} - {"refused"} - to_holders
    theirs = {
        CODES.get(error.default_code, error.default_code)
        for error in all_of(exceptions.APIException)
        if error.__module__ == "rest_framework.exceptions"
    }
    assert listed == ours | theirs | {"too_large"}


def all_of(kind: type) -> set[type]:
    """All subclasses."""
    return {one for direct in kind.__subclasses__() for one in {direct, *all_of(direct)}}
