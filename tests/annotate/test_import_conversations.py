"""`import_conversations`: files come in whole or not at all, each conversation once, and the report says what came."""

import gzip
import io
import json
import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotate import comparisons
from annotate.datasets.incoming import bringing, copying
from annotate.management.commands import import_conversations
from annotate.models import (
    Candidate,
    Comparison,
    Completion,
    Conversation,
    FamilyMember,
    Import,
    Message,
    Prompt,
    RankedCandidate,
    Ranking,
)
from tests import factory

pytestmark = pytest.mark.django_db

EXAMPLES = Path(__file__).parent / "incoming" / "examples"

SYSTEM = "You are a helpful, honest and harmless assistant."

TABLES = (Conversation, Message, Comparison, Completion, Candidate, Ranking, RankedCandidate, Prompt, FamilyMember)


@pytest.fixture
def project():
    return factory.project(slug="demo", system_message=SYSTEM)


def bring(file: Path | str, *arguments: str) -> str:
    said = StringIO()
    call_command("import_conversations", str(file), "--project", "demo", *arguments, stdout=said, stderr=said)
    return said.getvalue()


def refused(file: Path | str, *arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        bring(file, *arguments)
    assert refusal.value.returncode == 2
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def counts() -> dict[str, int]:
    return {table.__name__: table.objects.count() for table in (*TABLES, Import)}


def chat(*texts: str, **more) -> dict:
    roles = ("user", "assistant") * len(texts)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]} | more


def node(name: str, text: str, *replies: dict, rank: int | None = None, **more) -> dict:
    role = "prompter" if rank is None else "assistant"
    return {"message_id": name, "text": text, "role": role, "rank": rank, "replies": list(replies)} | more


def tree(*replies: dict, name: str = "t1") -> dict:
    root = node(name, "How do I boil an egg?", *replies)
    return {"message_tree_id": name, "tree_state": "ready_for_export", "prompt": root}


EGGS = tree(
    node("a1", "Eight minutes.", node("q2", "And a soft one?", node("a3", "Five.", rank=0)), rank=0),
    node("a2", "In water.", rank=1, model_name="chip20b"),
)


@pytest.fixture
def file(tmp_path):
    def write(*rows: dict | str, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return write


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return list(conversation.messages.order_by("position").values_list("role", "text"))


# --- Works -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.jsonl")), ids=lambda path: path.stem)
@pytest.mark.parametrize("named", [True, False], ids=["named", "auto"])
def test_every_format(project, path, named):
    format = path.name.partition(".")[0]
    told = bring(path, *(["--format", format] if named else []))
    rows = len(path.read_text().splitlines())
    assert told.startswith(f"read as {format}: {rows} lines\n")
    ranked = format in ("hh", "preference") or path.stem in ("sharegpt.ranking", "oasst.trees")
    assert Comparison.objects.exists() == ranked
    assert Prompt.objects.count() == (rows if format == "prompts" else 0)
    assert Conversation.objects.exists() == (format != "prompts")
    before = counts()
    again = bring(path)
    assert "conversations added: 0; messages: 0" in again
    assert counts() == before | {"Import": 2}


def test_what_a_conversation_becomes(project, file):
    told = bring(file(chat(" Hi\r\nthere ", "Hello \\ \t you\n\\N", id="c-1", split="test", mood="good")))
    assert "conversations added: 1; messages: 3; system messages added: 1; there already: 0" in told
    job = Import.objects.get()
    assert (job.state, job.source, job.format, job.background, job.reason) == (
        "done", "rows.jsonl", "messages", False, ""
    )  # fmt: skip
    assert job.report["conversations"] == 1
    conversation = Conversation.objects.get()
    assert (conversation.kind, conversation.state, conversation.imported_in) == ("imported", "finished", job)
    assert (conversation.trainer, conversation.iteration, conversation.source_id) == (None, None, "c-1")
    assert conversation.facts == {"mood": "good", "split": "test"}
    assert conversation.finished_at == conversation.created_at
    assert conversation.family == FamilyMember.objects.get().family
    assert said(conversation) == [
        ("system", SYSTEM),
        ("user", "Hi\nthere"),
        ("assistant", "Hello \\ \t you\n\\N"),
    ]
    assert set(conversation.messages.values_list("source", "completion")) == {("imported", None)}


def test_what_a_tree_becomes(project, file):
    told = bring(file(EGGS))
    assert "conversations added: 2; messages: 8; comparisons: 1; system messages added: 2" in told
    deep, flat = Conversation.objects.order_by("id")
    assert (deep.source_id, flat.source_id) == ("a3", "a2")
    assert list(deep.messages.order_by("position").values_list("source_id", flat=True)) == ["", "t1", "a1", "q2", "a3"]
    assert flat.messages.get(source_id="a2").facts["model_name"] == "chip20b"
    comparison = Comparison.objects.get()
    assert (comparison.message.conversation, comparison.message.source_id) == (deep, "a1")
    assert (comparison.state, comparison.k, comparison.source_id, comparison.iteration) == ("closed", 2, "t1", None)
    assert [message.text for message in comparisons.context(comparison)] == [SYSTEM, "How do I boil an egg?"]
    ranking = comparison.rankings.get()
    assert (ranking.kind, ranking.current, ranking.trainer, ranking.assignment) == ("imported", True, None, None)
    answers = ranking.places.order_by("rank").values_list(
        "candidate__completion__text", "rank", "candidate__original", "candidate__completion__model"
    )
    assert list(answers) == [("Eight minutes.", 0, True, ""), ("In water.", 1, False, "chip20b")]


@pytest.mark.parametrize(
    ("arguments", "system"), [([], SYSTEM), (["--system", "none"], None), (["--system", " Be brief. "], "Be brief.")]
)
def test_the_system_message_of_those_without_one(project, file, arguments, system):
    own = {"messages": [{"role": "system", "content": "Own."}, *chat("Ho", "He")["messages"]]}
    told = bring(file(chat("Hi", "Hello"), own), *arguments)
    first, second = Conversation.objects.order_by("id")
    assert said(first)[:-2] == ([("system", system)] if system else [])
    assert said(second)[0] == ("system", "Own.")
    assert ("system messages added: 1" in told) == bool(system)
    # It is no part of what a conversation is told by.
    assert "there already: 2" in bring(file(chat("Hi", "Hello"), own), "--system", "Another one.")


def test_shared_beginnings_are_called_the_same(project, file):
    bring(file(chat("Hi", "Hello", "How are you?", "Fine."), chat("Hi", "Hello", "Bye", "Bye."), chat("Ho", "Hello")))
    names = [
        list(one.messages.exclude(role="system").order_by("position").values_list("source_id", flat=True))
        for one in Conversation.objects.order_by("id")
    ]
    assert names[0][:2] == names[1][:2]
    assert len({name for row in names for name in row}) == 8
    assert all(name.startswith("sha256:") and len(name) == 39 for row in names for name in row)


def test_standard_input(project, monkeypatch):
    data = gzip.compress(json.dumps(chat("Hi", "Hello")).encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    bring("-")
    assert Import.objects.get().source == "stdin"
    assert Conversation.objects.count() == 1


def test_mends_are_told_with_what_they_mean(project, file):
    told = bring(file(chat("Hi", "Hello", "Anything else?")))
    assert "mended, dropped last user turn: 1 (the last turn, of the user and without an answer, was left out)" in told
    assert Import.objects.get().report["mends"] == {"dropped_last_user_turn": 1}
    message = refused(file(chat("Hi", "Hello", "Anything else?")), "--broken", "refuse")
    assert "line 1: its last turn has no answer" in message


def test_prompts(project, file):
    told = bring(
        file({"prompt": "Write a poem."}, {"instruction": "Add.", "input": "1 1"}, {"prompt": "Write a poem."})
    )
    assert told.startswith("read as prompts: 3 lines\n")
    assert "prompts added: 2" in told
    assert "there already: 1" in told
    assert list(Prompt.objects.values_list("text", "source")) == [
        ("Write a poem.", "rows.jsonl"),
        ("Add.\n\n1 1", "rows.jsonl"),
    ]
    assert not Prompt.objects.filter(family="").exists()


@pytest.mark.parametrize("size", [1, 3, 5_000])
def test_batches_change_nothing(project, file, monkeypatch, size):
    monkeypatch.setattr(copying, "MESSAGES", size)
    rows = [chat(f"Question {n % 7}", "Answer", id=str(n)) for n in range(20)]
    told = bring(file(*rows, *rows[:2]))
    assert (
        "conversations added: 7; messages: 21; system messages added: 7; there already: 0; twice in the file: 15"
        in told
    )


def test_pieces_of_one_batch(project, file, monkeypatch):
    monkeypatch.setattr(copying, "PIECE", 10)
    bring(file(EGGS, tree(node("b1", "Ten minutes.", rank=0), name="t2")))
    assert (Conversation.objects.count(), Message.objects.count()) == (3, 11)


def test_answers_are_drawn_among_what_came_in(project, file):
    bring(file(EGGS, tree(node("b1", "Ten minutes.", rank=0), name="t2")))
    call_command("sample_comparisons", "--project", "demo", "--count", "10", stdout=StringIO())
    drawn = Comparison.objects.filter(iteration__isnull=False)
    # a1 has a comparison, which came with it.
    assert sorted(drawn.values_list("message__source_id", flat=True)) == ["a2", "a3", "b1"]
    assert set(drawn.values_list("state", flat=True)) == {"sampling"}


# --- Once ------------------------------------------------------------------------------------------------------------


def test_the_same_file_twice(project, file):
    pairs = [{"prompt": f"Name {n}.", "chosen": "Good", "rejected": "Bad"} for n in range(3)]
    path = file(*pairs)
    bring(path)
    before = counts()
    told = bring(path)
    assert "conversations added: 0; messages: 0; there already: 3; comparisons there already: 3" in told
    assert counts() == before | {"Import": 2}


def test_a_new_ranking_of_a_conversation_that_is_there(project, file):
    bring(file({"prompt": "Name one.", "chosen": "Good", "rejected": "Bad"}))
    told = bring(file({"prompt": "Name one.", "chosen": "Good", "rejected": "Worse"}, name="more.jsonl"))
    assert "conversations added: 0; messages: 0; comparisons: 1; there already: 1" in told
    first, second = Comparison.objects.order_by("id")
    assert first.message == second.message
    assert second.rankings.count() == 1


def test_two_rankings_of_one_conversation_in_a_file(project, file):
    rows = [{"prompt": "Name one.", "chosen": "Good", "rejected": worse} for worse in ("Bad", "Worse", "Bad")]
    told = bring(file(*rows))
    assert "comparisons: 2" in told
    assert "twice in the file: 2" in told
    assert "comparisons there already: 1" in told
    assert set(Comparison.objects.values_list("message__text")) == {("Good",)}


def test_ties_are_part_of_a_ranking(project, file):
    def row(*ranks: int) -> dict:
        answers = [
            {"rank": rank, "completion": [{"role": "assistant", "content": text}]}
            for rank, text in zip(ranks, ("A", "B", "C"), strict=True)
        ]
        return {"context": [{"role": "user", "content": "Name one."}], "completions": answers}

    told = bring(file(row(0, 1, 1), row(0, 1, 2), row(0, 2, 2)))
    assert "comparisons: 2" in told
    ranks = [list(one.places.order_by("candidate").values_list("rank", flat=True)) for one in Ranking.objects.all()]
    assert sorted(ranks) == [[0, 1, 1], [0, 1, 2]]


def test_another_text_under_the_same_id(project, file):
    bring(file(chat("Hi", "Hello", id=1), chat("Ho", "He", id=2)))
    told = bring(file(chat("Hi", "Hello there", id=1), chat("Ho", "He", id=2), chat("Ha", "Hu", id=3)))
    assert "conversations added: 1" in told
    assert "there already: 1; under an id that came in before with another text, and left as they are: 1" in told
    assert [said(one)[-1][1] for one in Conversation.objects.order_by("id")] == ["Hello", "He", "Hu"]
    # Under another source it is another row, and within a file an id alone says nothing.
    rows = file(chat("Hi", "Hello there", id=1), chat("Hi", "Good day", id=1))
    assert "conversations added: 2" in bring(rows, "--source", "elsewhere")
    assert "conversations added: 0; messages: 0; there already: 2" in bring(rows, "--source", "elsewhere")


def test_a_ranking_of_a_conversation_that_changed(project, file):
    pair = {"id": "p", "prompt": "Name one.", "rejected": "Bad"}
    bring(file(pair | {"chosen": "Good"}))
    told = bring(file(pair | {"chosen": "Better"}))
    assert "comparisons left out with conversations that changed: 1" in told
    assert Comparison.objects.count() == 1


def test_a_tree_that_grew(project, file):
    bring(file(EGGS))
    grown = tree(
        node("a1", "Eight minutes.", node("q2", "And a soft one?", node("a3", "Five.", rank=0)), rank=0),
        node("a2", "In water.", node("q4", "Cold?", node("a5", "Boiling.", rank=0), node("a6", "No", rank=1)), rank=1),
    )
    told = bring(file(grown))
    assert "conversations added: 2; messages: 10; comparisons: 1" in told
    assert "there already: 1; comparisons there already: 1" in told
    assert set(Comparison.objects.values_list("source_id", "message__source_id")) == {("t1", "a1"), ("q4", "a5")}


def test_rankings_of_two_sources_under_one_id(project, file):
    bring(file(EGGS))
    other = tree(node("z1", "Salt it.", rank=0), node("z2", "Do not.", rank=1))
    assert "comparisons: 1" in bring(file(other, name="other.jsonl"))
    assert Comparison.objects.count() == 2
    assert "comparisons there already: 1" in bring(file(other, name="other.jsonl"))
    assert "comparisons there already: 1" in bring(file(EGGS))


def test_another_project_knows_nothing_of_it(project, file):
    path = file(EGGS)
    bring(path)
    factory.project(slug="second")
    call_command("import_conversations", str(path), "--project", "second", stdout=(told := StringIO()))
    assert "conversations added: 2; messages: 8; comparisons: 1" in told.getvalue()


# --- Whole or not at all ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_batches(monkeypatch):
    """Rows are in the tables long before the end of a file."""
    monkeypatch.setattr(copying, "MESSAGES", 1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "it is not JSON"),
        ({"prompt": {"text": "no id"}}, "a message has no message_id"),
        ("[" * 100_000, "it is nested too deep"),
        (tree(node("x", "half \ud83d", rank=0)), "it holds half a character"),
        (tree(node("x", "same", node("x", "same"), rank=0)), "message_id x is there twice"),
    ],
)
def test_one_bad_line_and_nothing_comes_in(project, file, small_batches, bad, reason):
    before = counts()
    path = file(EGGS, tree(node("b1", "Ten.", rank=0), name="t2"), bad)
    message = refused(path, "--format", "oasst")
    assert message.startswith(f"Nothing was imported: 1 bad line (line 3: {reason}")
    assert message.endswith("With --on-error skip the rest comes in.")
    assert counts() == before
    told = bring(path, "--format", "oasst", "--on-error", "skip")
    assert f"line 3 left out: {reason}" in told
    assert "bad lines left out: 1" in told
    assert Conversation.objects.count() == 3
    assert Import.objects.get().report["refused_lines"][0][0] == 3


def test_bad_lines_are_looked_for_up_to_twenty(project, file):
    message = refused(file(chat("Hi", "Hello"), *["{"] * 30))
    assert "20 bad lines (line 2: " in message
    assert "line 21: " in message
    assert "; it was read no further. With --on-error skip" in message
    assert "line 22: " not in message


def test_many_bad_lines_are_counted_and_the_first_thousand_listed(project, file):
    told = bring(file(chat("Hi", "Hello"), *["{"] * 1_003), "--on-error", "skip")
    assert "and 3 more" in told
    assert "bad lines left out: 1,003" in told
    report = Import.objects.get().report
    assert (report["refused"], len(report["refused_lines"])) == (1_003, 1_000)


def test_bad_prompts(project, file):
    path = file({"prompt": "Write a poem."}, {"prompt": " "}, "{")
    message = refused(path)
    assert "2 bad lines (line 2: prompt is empty; line 3: it is not JSON" in message
    assert not Prompt.objects.exists()
    assert not Import.objects.exists()
    assert "bad lines left out: 2" in bring(path, "--on-error", "skip")
    assert Prompt.objects.count() == 1
    # A good one and a bad one in one line: not all of it is bad.
    several = {"instruction": "Sort.", "instances": [{"input": "b a"}, {"input": 3}]}
    assert "prompts added: 1" in bring(file(several), "--format", "prompts", "--on-error", "skip")


def test_a_file_that_is_cut_off(project, tmp_path, small_batches):
    whole = "".join(f"{json.dumps(chat(f'Question {n}', os.urandom(40).hex()))}\n" for n in range(300))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(whole.encode())[:-1_000])
    before = counts()
    assert "rows.jsonl.gz is damaged or cut off" in refused(path)
    assert "rows.jsonl.gz is damaged or cut off" in refused(path, "--on-error", "skip")
    assert counts() == before


def test_an_error_that_nobody_expected(project, file, small_batches, monkeypatch):
    before = counts()

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(copying.Copying, "_write_rankings", broken)
    with pytest.raises(ZeroDivisionError):
        bring(file(EGGS))
    assert counts() == before


def test_nothing_in_it(project, file):
    assert "none of the formats" in refused(file("{}"))
    assert "rows.jsonl holds nothing that can be imported" in refused(file(""), "--format", "oasst")
    message = refused(file("{}", "{}"), "--format", "oasst", "--on-error", "skip")
    assert message.startswith("rows.jsonl holds nothing that can be imported: 2 bad lines (line 1: prompt is not an")
    assert not Import.objects.exists()


def test_what_the_command_refuses(project, file, tmp_path):
    path = file(EGGS)
    assert "There is no project" in refused(path, "--project", "nowhere")
    assert f"{tmp_path.name}" in refused(tmp_path)
    assert "cannot be read" in refused(tmp_path / "nope")
    with pytest.raises(CommandError, match="invalid choice: 'yaml'"):
        bring(path, "--format", "yaml")
    assert "it is empty" in refused(path, "--system", " ")
    assert "The source needs a name of at most 200 characters" in refused(path, "--source", "x" * 201)
    assert "leave FILE and --project out" in refused(path, "--go-on", "7")
    with pytest.raises(CommandError, match=r"Name a FILE, or - for standard input, and its --project\."):
        call_command("import_conversations", "--project", "demo")
    with pytest.raises(CommandError, match=r"There is no import 7\."):
        call_command("import_conversations", "--go-on", "7")
    assert not Import.objects.exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"format": "csv"}, "There is no format csv. Formats: oasst, "),
        ({"on_error": "ignore"}, "on_error is stop or skip, not 'ignore'."),
        ({"few_shot": "both"}, "few_shot is apart or whole, not 'both'."),
        ({"system": None}, "system is project, none or the text"),
        ({"colour": "red"}, "There is no option colour. Options: format, "),
    ],
)
def test_options_are_checked_in_one_place(given, told):
    with pytest.raises(bringing.Invalid, match=told.replace(".", r"\.")):
        bringing.How.given(given)


# --- Cost ------------------------------------------------------------------------------------------------------------


def test_the_number_of_queries_does_not_grow(project, file):
    def queries(first: int, count: int) -> int:
        rows = [{"prompt": f"Name {first + n}.", "chosen": "Good", "rejected": "Bad"} for n in range(count)]
        with CaptureQueriesContext(
            connection,
        ) as captured:
            bring(file(*rows))
        return len(captured)

    queries(0, 2)
    few = queries(100, 2)
    assert queries(1_000, 200) <= few + 2


# --- Real files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("oasst_trees_en.jsonl", (416, 1_884, 146)),
        ("instructions_seed.jsonl", (120, None, 0)),
    ],
)
def test_real_files(project, name, expected):
    folder = os.environ.get("BOTHSIDES_TEST_DATA", "")
    path = Path(folder) / name
    if not folder or not path.exists():
        pytest.skip(f"BOTHSIDES_TEST_DATA names no folder with {name}")
    bring(path)
    conversations, messages, ranked = expected
    assert Conversation.objects.count() == conversations
    assert messages in (None, Message.objects.count())
    assert (Comparison.objects.count(), Ranking.objects.count()) == (ranked, ranked)
    assert not Conversation.objects.filter(family="").exists()
    originals = Candidate.objects.filter(original=True).values_list("completion__text", "comparison__message__text")
    assert len(originals) == ranked
    assert all(completion == message for completion, message in originals)
    before = counts()
    assert f"there already: {conversations}" in bring(path)
    assert counts() == before | {"Import": 2}


@pytest.mark.parametrize(
    ("step", "told"),
    [("Reading", "Stopped; nothing came in.\n"), ("Finding families", "Stopped; all of the file came in. ")],
)
def test_ctrl_c_says_what_came_of_the_file(project, tmp_path, monkeypatch, step, told):
    def interrupt(self, now: str, done: int, total: int | None) -> None:
        if now == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(import_conversations._Bars, "show", interrupt)
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps(chat("How do I boil an egg?", "Eight minutes.")))
    said = StringIO()
    with pytest.raises(KeyboardInterrupt):
        call_command("import_conversations", str(file), "--project", "demo", stderr=said)
    assert said.getvalue().startswith(told)
    there = Import.objects.filter(state="stopped").values_list("pk", flat=True)
    assert Conversation.objects.count() == len(there) == (step != "Reading")
    assert all(f"--go-on {pk} " in said.getvalue() for pk in there)
