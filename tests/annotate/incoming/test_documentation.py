"""What the document on import formats says is so."""

import io
import json
import re
from pathlib import Path

import pytest

from annotate.datasets.incoming import chat, few_shot, fields, files, formats, oasst
from annotate.datasets.incoming.mends import FAULTS, MENDS
from annotate.datasets.incoming.options import Options

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "import-formats.md").read_text()
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", TEXT, flags=re.M | re.S))
EXAMPLES = [
    (format, line)
    for format, text in SECTIONS.items()
    for block in re.findall(r"^```json\n(.*?)^```", text, flags=re.M | re.S)
    for line in block.splitlines()
]


def test_every_format_has_its_section():
    assert list(SECTIONS) == list(formats.FORMATS)


@pytest.mark.parametrize(("format", "line"), EXAMPLES)
def test_an_example_is_of_its_format_and_comes_in(format, line):
    value = json.loads(line)
    assert formats.recognise([value], "rows") == format
    item = formats.FORMATS[format].read(value, Options(broken="refuse"))
    assert bool(item.judged) == (format in ("oasst", "hh", "preference") or "chosen" in value)


def test_every_mend_is_in_its_table_and_those_that_are_never_refused_are_last():
    names = re.findall(r"^\| `(\w+)` \| (?!.*\|.*\|)", TEXT.split("| mend |")[1].split("\n\n")[0], flags=re.M)
    assert names == list(MENDS)
    assert [name in FAULTS for name in names] == [True] * 8 + [False] * 4


def test_every_name_of_a_speaker_is_there():
    assert not [name for name in chat.NAMES if f"`{name}`" not in SECTIONS["sharegpt"] + SECTIONS["oasst"]]


def test_every_label_of_few_shot_prompts_is_there():
    told = " ".join(SECTIONS["instructions"].split())
    assert ", ".join(f"`{asks}` and `{answers}`" for asks, answers in few_shot.LABELS) in told


def test_every_limit_is_there():
    for limit in (
        f"{files.LONGEST // 1024**2} MiB",
        f"{oasst.TURNS:,} turns",
        f"{fields.DEEPEST} deep",
        f"{fields.FACT_CHARACTERS:,} characters",
        f"{fields.USE_CASE_CHARACTERS} characters",
    ):
        assert limit in TEXT


def test_every_option_is_there():
    assert "`few_shot` as `apart`" in TEXT
    assert "`few_shot` as `whole`" in TEXT
    assert "`broken` is `refuse` rather than `mend`" in " ".join(TEXT.split())


def test_how_deep_a_tree_may_be():
    assert "some 500 messages in a row" in " ".join(SECTIONS["oasst"].split())
    (_, found), *_ = files.lines_of(_tree_of(500), name="rows")
    assert len(oasst.read(found, Options()).talks[0].turns) == 500
    (_, found), *_ = files.lines_of(_tree_of(520), name="rows")
    assert str(found) == "it is nested too deep"


def _tree_of(messages: int) -> io.BytesIO:
    begun = [
        f'{{"message_id": "{place}", "text": "a", "role": "{("prompter", "assistant")[place % 2]}", "replies": ['
        for place in range(messages)
    ]
    return io.BytesIO(f'{{"prompt": {"".join(begun)}{"]}" * messages}}}\n'.encode())
