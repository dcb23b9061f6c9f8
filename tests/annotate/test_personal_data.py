"""Personal data in exports: every text of a line is looked through, counted by kind and split, and taken out."""

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate import derive, personal
from annotate.datasets import filters, snapshots
from annotate.datasets.check import check
from annotate.datasets.personal_data import Scan, redacted
from tests import factory

MAIL, PHONE, IBAN = "vera.lindt@posteo.de", "+49 30 901820123", "DE02 1203 0000 0000 2020 51"

LINE = {
    "split": "train",
    "family": "+49 30 901820123",
    "messages": [
        {"role": "user", "content": f"Write to {MAIL}, or call {PHONE}."},
        {"role": "assistant", "content": "Gladly."},
    ],
    "turns": [{"suggestion": f"Ask {MAIL}", "hint": None, "passed": [{"completion_id": 1, "text": f"{MAIL} {MAIL}"}]}],
}


def test_every_text_is_counted_and_nothing_else():
    scan = Scan(redact=False)
    assert scan.line(LINE) is LINE
    scan.line(LINE | {"split": "test"})
    scan.line({"split": "test", "messages": [{"role": "user", "content": "Nothing here."}]})
    assert scan.report() == {
        "redacted": False,
        "lines": {"test": 1, "train": 1},
        "found": {"e-mail address": {"test": 4, "train": 4}, "phone number": {"test": 1, "train": 1}},
    }


def test_they_are_replaced_by_their_kind_and_the_line_itself_stays():
    scan, before = Scan(redact=True), copy.deepcopy(LINE)
    line = scan.line(LINE)
    assert before == LINE
    assert line["messages"][0]["content"] == "Write to [e-mail address], or call [phone number]."
    assert line["messages"][1] is LINE["messages"][1]
    assert line["turns"][0]["suggestion"] == "Ask [e-mail address]"
    assert line["turns"][0]["passed"] == [{"completion_id": 1, "text": "[e-mail address] [e-mail address]"}]
    assert line["family"] == LINE["family"]
    assert scan.report()["found"]["e-mail address"] == {"train": 4}
    assert Scan(redact=True).line(line) is line


def test_comparisons_too():
    line = {
        "split": "train",
        "context": [{"role": "user", "content": PHONE}],
        "completions": [{"completion": [{"role": "assistant", "content": MAIL}], "rank": 0, "flags": []}],
    }
    found = Scan(redact=True).line(line)
    assert found["context"][0]["content"] == "[phone number]"
    assert found["completions"][0]["completion"][0]["content"] == "[e-mail address]"


def test_names_and_facts_from_files_too():
    line = {
        "split": "train",
        "source_id": MAIL,
        "use_case": f"Letters to {MAIL}",
        "path": [{"message_id": "m1", "text": "Hi", "annotator": MAIL, "notes": {"seen": [f"by {MAIL}"]}}],
    }
    looked = Scan(redact=True).line(line)
    assert "posteo" not in json.dumps(looked)
    assert looked["path"][0]["notes"] == {"seen": ["by [e-mail address]"]}


def test_it_can_be_gone_on_with():
    scan = Scan(redact=False)
    scan.line(LINE)
    again = pickle.loads(pickle.dumps(scan))  # noqa: S301
    again.line(LINE)
    assert again.report()["found"]["e-mail address"] == {"train": 8}
    assert json.dumps(again.report())


def test_nothing_is_found_in_nothing():
    assert Scan(redact=True).report() == {"redacted": True, "lines": {}, "found": {}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Pay {IBAN} TODAY PLEASE", "Pay [bank account number (IBAN)] TODAY PLEASE"),
        (f"{MAIL} {MAIL}", "[e-mail address] [e-mail address]"),
        (f"({PHONE})", "([phone number])"),
        ("No one at all.", "No one at all."),
        ("", ""),
    ],
)
def test_what_stands_around_stays(text, expected):
    assert redacted(text) == expected
    assert personal.spans(redacted(text)) == []


def test_all_are_found_however_many_there_are():
    text = ", ".join(f"{chr(97 + number % 26)}era.lindt{number}@posteo.de" for number in range(3_000))
    assert len(personal.spans(text)) == 3_000
    assert len(personal.find(text)) == personal.MOST
    assert set(redacted(text).split(", ")) == {"[e-mail address]"}


PIECES = st.sampled_from(
    [MAIL, PHONE, IBAN, "4539 1488 0343 6467", "212-09-9999", "81.2.69.142", " ", ",", "word", "1"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES | st.text(max_size=5), max_size=20).map("".join))
def test_places_stand_in_their_order_and_apart(text):
    found = personal.spans(text)
    ends = [0]
    for one in found:
        assert ends[-1] <= one.start < one.end <= len(text)
        ends.append(one.end)
    kept = redacted(text, found)
    for one in found:
        kept = kept.replace(f"[{one.kind.partition(' ')[2]}]", text[one.start : one.end], 1)
    assert kept == text or "[" in text


@pytest.mark.django_db
@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("personal_data", ["ignore", "report", "redact"])
def test_an_export_says_what_is_in_it_and_can_leave_it_out(tmp_path, personal_data):
    project = factory.project(review_share=0)
    turns = (factory.written_turn("user", f"Write to {MAIL}."), factory.written_turn("assistant", f"Or {PHONE}?"))
    piece = factory.finished_piece(project, None, *turns)
    split = derive.split_of(project.secret, piece.family)
    made = snapshots.export(
        "demonstrations",
        project=project,
        format="messages",
        filters=filters.parse("demonstrations", {"personal": personal_data}),
        out=tmp_path / "out",
    )
    (line,) = map(json.loads, (tmp_path / "out" / f"{split}.jsonl").read_text().splitlines())
    said = [message["content"] for message in line["messages"][1:]]
    redact = personal_data == "redact"
    assert said == (
        ["Write to [e-mail address].", "Or [phone number]?"] if redact else [turn["text"] for turn in turns]
    )
    found = {"e-mail address": {split: 1}, "phone number": {split: 1}}
    expected = {"redacted": redact, "lines": {split: 1}, "found": found}
    assert made.manifest["personal_data"] == (None if personal_data == "ignore" else expected)
    assert check(tmp_path / "out").problems == []
    assert piece.messages.get(position=1).text == turns[0]["text"]


@pytest.mark.django_db
@pytest.mark.usefixtures("folders")
def test_openings_that_differed_in_what_was_taken_out_are_no_leak(tmp_path):
    project = factory.project(review_share=0)
    in_split = {}
    for number in range(500):
        opening = f"vera.lindt{number * 7919}@posteo{number}.de"
        in_split.setdefault(derive.split_of(project.secret, derive.family_of(opening)), opening)
    for opening in in_split.values():
        turns = [factory.written_turn("user", opening), factory.written_turn("assistant", "Gladly.")]
        factory.finished_piece(project, None, *turns)
    wanted = filters.Demonstrations(personal="redact")
    made = snapshots.export("demonstrations", project=project, format="messages", filters=wanted, out=tmp_path / "out")
    assert len(made.manifest["counts"]["by_split"]) == 3
    assert check(tmp_path / "out").problems == []
