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

from annotate import demo
from annotate.api.refusals import CODES
from annotate.errors import BothsidesError
from annotate.models import GenerationRequest, Role
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
        else:
            assert not word.startswith("-")
            address = word
    parts = urlsplit(address)
    link = http.client.HTTPConnection(parts.netloc, timeout=30)
    link.request(method, f"{parts.path}?{parts.query}", body, headers)
    answer = link.getresponse()
    text = answer.read()
    return answer.status, json.loads(text) if text else None


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
    }
    ids: dict[str, str] = {}
    done = 0
    with site.web_server(WEB_PROCESSES="1") as port:
        for command, shown in examples():
            request = re.sub(r"\b\d{4}\b", lambda number: ids.get(number[0], number[0]), command)
            for name, value in (tokens | {"SITE": f"http://127.0.0.1:{port}"}).items():
                request = request.replace(f"${name}", value)
            status, real = sent(request)
            assert status in (200, 201, 204), (request, real)
            if shown is not None:
                learn(shown, real, ids)
            if "-X POST" in command and "/suggestions/" in command:
                factory.answer(GenerationRequest.objects.latest("id"))
            done += 1
    assert done == PAGE.count("\ncurl ") == 21


def test_every_code_of_a_refusal_is_listed() -> None:
    from rest_framework import exceptions

    listed = set(re.findall(r"^\| \d+ \| `(\w+)` \|", PAGE, re.MULTILINE))
    ours = {error.code for error in (BothsidesError, *all_of(BothsidesError))} - {"refused", "unavailable"}
    theirs = {
        CODES.get(error.default_code, error.default_code)
        for error in all_of(exceptions.APIException)
        if error.__module__ == "rest_framework.exceptions"
    }
    assert listed == ours | theirs | {"too_large"}


def all_of(kind: type) -> set[type]:
    """All subclasses."""
    return {one for direct in kind.__subclasses__() for one in {direct, *all_of(direct)}}
