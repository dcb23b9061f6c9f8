"""`import_prompts`: openings come in once, from every form that is read, or not at all."""

import io
import json
import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotate import derive
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factory.project(slug="demo")


def bring(file: Path | str, *arguments: str) -> str:
    said = StringIO()
    call_command("import_prompts", str(file), "--project", "demo", *arguments, stdout=said, stderr=said)
    return said.getvalue()


def refused(file: Path | str, *arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        bring(file, *arguments)
    assert refusal.value.returncode == 2
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def texts(project) -> list[str]:
    return list(project.prompts.values_list("text", flat=True))


@pytest.fixture
def file(tmp_path):
    def write(*lines: str | bytes | dict, name: str = "prompts.jsonl") -> Path:
        path = tmp_path / name
        whole = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in whole))
        return path

    return write


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"prompt": "One"}, {"text": " Two\n"}, {"instruction": "Three"}], ["One", "Two", "Three"]),
        ([{"instruction": "Translate", "input": "Hund"}], ["Translate\n\nHund"]),
        ([{"instruction": "Translate", "input": ""}, {"instruction": "Sing", "input": None}], ["Translate", "Sing"]),
        ([{"instruction": "Sort", "instances": [{"input": "b a"}, {"input": ""}]}], ["Sort\n\nb a", "Sort"]),
        ([{"prompt": "Not", "input": "joined"}], ["Not"]),
        (["", "  ", {"prompt": "After blank lines"}, ""], ["After blank lines"]),
        (['[{"prompt": "In a list"},', ' "and a text"]'], ["In a list", "and a text"]),
        ([b"\xef\xbb\xbf" + '{"prompt": "Mark Ü"}'.encode()], ["Mark Ü"]),
        ([{"prompt": "Nul\x00 has no place"}], ["Nul has no place"]),
        ([{"prompt": None, "text": "The next field"}], ["The next field"]),
        (['"A text"', {"prompt": "An object"}], ["A text", "An object"]),
    ],
)
def test_forms_that_it_reads(project, file, lines, expected):
    bring(file(*lines))
    assert texts(project) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["One to a line", "", "  Another  "], ["One to a line", "Another"]),
        (["[sic] is no JSON", "and so this is text"], ["[sic] is no JSON", "and so this is text"]),
        (["One", "\u200b\u2060", "\ufeff", "Another\u200d"], ["One", "Another\u200d"]),
        (["5"], ["5"]),
    ],
)
def test_all_else_is_plain_text(project, file, lines, expected):
    bring(file(*lines, name="prompts"))
    assert texts(project) == expected


@pytest.mark.parametrize("name", ["prompts.jsonl", "PROMPTS.JSONL", "prompts.json"])
@pytest.mark.parametrize(
    ("line", "reason"), [("5", "it is neither a text nor an object"), ("Sing a song", "it is not JSON")]
)
def test_a_file_called_json_is_never_plain_text(project, file, name, line, reason):
    assert f"1 bad line (line 1: {reason})" in refused(file(line, name=name))
    assert f"1 bad line (line 1: {reason})" in refused(file(line, name=name), "--on-error", "skip")
    assert texts(project) == []


@pytest.mark.parametrize("arguments", [[], ["--on-error", "skip"]])
def test_a_list_that_was_cut_off(project, file, arguments):
    path = file("[", '{"prompt": "One"},', '"Two"', name="list.json")
    assert refused(path, *arguments) == "list.json begins a list and is not JSON: it is damaged or cut off."
    assert texts(project) == []


def test_a_list_that_was_cut_off_among_json_lines(project, file):
    assert "3 bad lines (line 1: it is not JSON;" in refused(file('["One",', '"Two",', '"Three",'))
    assert texts(project) == []


def test_a_use_case_that_is_too_long(project, file):
    message = refused(file({"prompt": "One"}), "--use-case", "x" * 41)
    assert message == "--use-case may have 40 characters; this one has 41."
    bring(file({"prompt": "One"}), "--use-case", "x" * 40)


def test_a_text_file_is_text_whatever_it_begins_with(project, file):
    bring(file("{name} asks", "why?", name="ideas.txt"))
    assert texts(project) == ["{name} asks", "why?"]


def test_it_keeps_where_a_prompt_came_from(project, file):
    bring(
        file(
            {"prompt": "One", "id": 7, "use_case": "chat"},
            {"instruction": "Two", "id": "seed", "instances": [{"input": "a"}, {"input": "b"}]},
        ),
        "--use-case",
        "rewrite",
    )
    kept = list(project.prompts.values_list("source", "source_id", "use_case"))
    assert kept == [
        ("prompts.jsonl", "7", "chat"),
        ("prompts.jsonl", "seed#0", "rewrite"),
        ("prompts.jsonl", "seed#1", "rewrite"),
    ]
    prompt = project.prompts.first()
    assert (prompt.digest, prompt.family) == (derive.digest_of("One"), derive.family_of("One"))


def test_duplicates_are_counted_and_left_as_they_are(project, file):
    bring(file({"prompt": "One"}), "--use-case", "chat")
    said = bring(file({"prompt": "One"}, {"prompt": "Two"}, {"prompt": "Two "}), "--use-case", "other")
    assert said.startswith("prompts added to demo: 1; there already or twice: 2; bad lines left out: 0")
    assert list(project.prompts.values_list("text", "use_case")) == [("One", "chat"), ("Two", "other")]


def test_standard_input(project, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"From\nafar\n")))
    bring("-")
    assert list(project.prompts.values_list("text", "source")) == [("From", "stdin"), ("afar", "stdin")]


TWO_TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

BAD = [
    ("{broken", "it is not JSON"),
    ("[" * 100_000, "it is not JSON"),
    ("[]", "it is neither a text nor an object"),
    ({"question": "?"}, "it has none of the fields prompt, text, instruction"),
    ({"prompt": 7}, "prompt is not a text"),
    ({"prompt": ["a"]}, "prompt is not a list of messages"),
    ({"prompt": TWO_TURNS}, "prompt is a conversation; an opening is one message of the user"),
    ({"prompt": " \n"}, "prompt is empty"),
    ({"text": "\u200b \u2060\ufeff"}, "text is empty"),
    ('"\\u200b"', "it is empty"),
    ({"instruction": "a", "input": 3}, "input is not a text"),
    ({"instruction": "a", "instances": []}, "instances is not a list of objects"),
    ({"instruction": "a", "instances": ["b"]}, "instances is not a list of objects"),
    ({"prompt": "x" * 50_001}, "it has 50,001 characters; a message may have 50,000"),
    ({"prompt": "half \ud83d"}, "it holds half a character (a lone surrogate)"),
    ({"prompt": "a", "use_case": "x" * 41}, "its use case has more than 40 characters"),
    ({"prompt": "a", "id": "x" * 201}, "id has more than 200 characters"),
    (b'{"prompt": "\xff"}', "it is not UTF-8"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_one_bad_line_and_nothing_comes_in(project, file, line, reason):
    path = file({"prompt": "Good"}, line, {"prompt": "Also good"})
    message = refused(path)
    assert message == f"Nothing was imported: 1 bad line (line 2: {reason}). With --on-error skip the rest comes in."
    assert texts(project) == []
    said = bring(path, "--on-error", "skip")
    assert f"line 2 left out: {reason}" in said
    assert "prompts added to demo: 2" in said
    assert "bad lines left out: 1" in said
    assert texts(project) == ["Good", "Also good"]


def test_many_bad_lines_are_counted(project, file):
    message = refused(file({"prompt": "Good"}, *["?"] * 8))
    assert "8 bad lines (line 2: it is not JSON; line 3:" in message
    assert "line 6: it is not JSON; and 3 more)" in message


def test_bytes_that_are_no_text(project, file):
    assert "line 2: it is not UTF-8" in refused(file("Text", b"\xff\xfe", name="a.txt"))
    assert "line 2: it is not UTF-8" in refused(file("[Text", b"\xff\xfe", name="b"))


def test_a_file_without_prompts(project, file):
    assert refused(file("")) == "prompts.jsonl holds no prompt."
    assert "holds no prompt: 1 bad line" in refused(file("{"), "--on-error", "skip")


def test_a_file_that_is_not_there(project, tmp_path):
    assert refused(tmp_path / "nope") == f"{tmp_path}/nope cannot be read: No such file or directory."
    assert refused(tmp_path) == f"{tmp_path} cannot be read: Is a directory."


def test_a_project_that_is_not_there(file):
    factory.project(slug="other")
    assert refused(file({"prompt": "One"})) == "There is no project demo. Projects: other."


def test_real_instructions(project):
    folder = os.environ.get("BOTHSIDES_TEST_DATA", "")
    path = Path(folder) / "instructions_seed.jsonl"
    if not folder or not path.exists():
        pytest.skip("BOTHSIDES_TEST_DATA names no folder with instructions_seed.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    wanted = {
        f"{row['instruction'].strip()}\n\n{one['input'].strip()}".strip() for row in rows for one in row["instances"]
    }
    said = bring(path)
    assert set(texts(project)) == wanted
    assert said.startswith(f"prompts added to demo: {len(wanted)};")
    again = bring(path)
    assert again.startswith("prompts added to demo: 0;")
    assert sum(len(row["instances"]) for row in rows) >= len(wanted)


def test_prompts_of_messages_without_their_system_message(project, file):
    question = {"role": "user", "content": "Why is the sky blue?"}
    bring(
        file(
            {"prompt": [question]},
            {"prompt": [{"role": "system", "content": "Be brief."}, question | {"content": "And red?"}]},
        )
    )
    assert texts(project) == ["Why is the sky blue?", "And red?"]


def test_what_export_prompts_wrote(project):
    bring(Path(__file__).with_name("export_examples") / "prompt_only.jsonl")
    assert texts(project)
