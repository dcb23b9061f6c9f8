"""Real files come in whole: no line of them is bad."""

import os
from pathlib import Path

import pytest

from annotate.datasets.incoming import files, formats
from annotate.datasets.incoming.items import Bad


def real(name: str) -> Path:
    folder = os.environ.get("BOTHSIDES_TEST_DATA", "")
    path = Path(folder) / name
    if not folder or not path.exists():
        pytest.skip(f"BOTHSIDES_TEST_DATA names no folder with {name}")
    return path


def brought(path: Path, format: str) -> list:
    with files.lines_of(path, name=path.name) as rows:
        assert formats.recognise(rows.first(), path.name) == format
        items = [item for _, item in formats.read(rows, format=format, options=formats.Options())]
        assert rows.read == rows.size
    assert not [item for item in items if isinstance(item, Bad)]
    return items


def test_trees():
    items = brought(real("oasst_trees_en.jsonl"), "oasst")
    assert len(items) == 70
    messages = {turn.source_id: turn for item in items for talk in item.talks for turn in talk.turns}
    assert len(messages) == 797
    assert sum(len(item.talks) for item in items) == 416
    judged = [one for item in items for one in item.judged]
    assert len(judged) == 146
    assert sorted({len(one.answers) for one in judged}) == [2, 3, 4, 5, 6, 8, 9]
    assert not any(item.mended for item in items)


def test_instructions():
    items = brought(real("instructions_seed.jsonl"), "instructions")
    assert len(items) == 120
    assert {turn.role for item in items for talk in item.talks for turn in talk.turns} == {"user", "assistant"}
    assert sum(len(item.talks) for item in items) == 120
