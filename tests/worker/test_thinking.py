"""Models that think, in the engine and in what is told of them: the thought is kept apart from the text."""

import time

import pytest

from annotate import prompts
from annotate.models import GenerationRequest
from tests import tiny
from worker.engines.base import Chunk, LoadError, Sampling
from worker.engines.transformers import TransformersEngine
from worker.jobs import Job

TEMPLATE = tiny.CHAT_TEMPLATE + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
OPENS = tiny.CHAT_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
HARMONY = "<|channel|>analysis<|message|>They greet 🙂.<|end|><|start|>assistant<|channel|>final<|message|>Hello 🙂."
HARMONY_TOKENS = ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def engine(tmp_path):
    """Makes engines of tiny models that write what they are told to."""
    made = []

    def make(said, *, thinking="", **model):
        folder = tiny.build(tmp_path / f"model {len(made)}", **model)
        one = TransformersEngine(str(folder), capacity=4, device="cpu", thinking=thinking)
        made.append(one)
        script = [*one._tokenizer(said, add_special_tokens=False).input_ids, one._tokenizer.eos_token_id]
        write = one._write

        def scripted(texts, tokens):
            write(texts, [script[text.written] for text in texts])

        one._write = scripted
        return one

    yield make
    for one in made:
        one.close()


def written(engine, **sampling):
    """The text, the thought and the last piece of what it writes."""
    engine.submit("text", engine.render(MESSAGES), Sampling(**{"max_new_tokens": 100} | sampling))
    chunks, until = [], time.monotonic() + 30
    while not (chunks and chunks[-1].finish):
        assert time.monotonic() < until
        chunks += engine.read(1)
    return "".join(one.text for one in chunks), "".join(one.reasoning for one in chunks), chunks[-1]


WORDS = ["<think>", "</think>"]


def test_a_thought_is_no_part_of_the_text(engine):
    made = engine("<think>\nThey greet 🙂.\n</think>\n\nHello 🙂.", tokens=WORDS)
    text, thought, last = written(made)
    assert (text, thought, last.finish) == ("Hello 🙂.", "They greet 🙂.", "stop")


def test_marks_may_be_made_of_many_tokens(engine):
    made = engine("<think>They greet.</think>Hello.", template=TEMPLATE)
    assert written(made)[:2] == ("Hello.", "They greet.")


def test_the_template_may_have_opened_the_thought(engine):
    made = engine("They greet.\n</think>\n\nHello.", template=OPENS, tokens=WORDS)
    assert made.render(MESSAGES).thinks
    assert written(made)[:2] == ("Hello.", "They greet.")


@pytest.mark.parametrize("after", [[], [prompts.USERS_TURN]], ids=["reply", "turn of the user"])
def test_who_writes_a_mark_opens_no_thought(engine, after):
    made = engine("Hello.", tokens=WORDS)
    rendered = made.render([MESSAGES[0], {"role": "user", "content": "What is <think>"}, *after])
    assert "What is <think>" in made._tokenizer.decode(rendered.token_ids)
    assert not rendered.thinks


def test_special_tokens_as_marks_are_never_shown(engine):
    made = engine("[THINK]They greet.[/THINK]Hello.", special_tokens=["[THINK]", "[/THINK]"])
    assert written(made)[:2] == ("Hello.", "They greet.")


def test_the_channels_of_harmony(engine):
    assert written(engine(HARMONY, special_tokens=HARMONY_TOKENS))[:2] == ("Hello 🙂.", "They greet 🙂.")


def test_a_model_without_marks_may_write_about_them(engine):
    said = "<think>a</think> b"
    assert written(engine(said))[:2] == (said, "")


def test_a_thought_without_end_leaves_no_text(engine):
    made = engine("<think>" + " the" * 50, tokens=WORDS)
    text, thought, last = written(made, max_new_tokens=9)
    assert (text, thought, last.finish, last.completion_tokens) == ("", " ".join(["the"] * 8), "length", 9)


@pytest.mark.parametrize(("thinking", "end"), [("", "assistant\n"), ("on", "assistant\n"), ("off", "</think>\n\n")])
def test_a_policy_says_whether_its_model_thinks(engine, thinking, end):
    made = engine("Hello.", template=TEMPLATE, tokens=WORDS, thinking=thinking)
    rendered = made.render(MESSAGES)
    assert made._tokenizer.decode(rendered.token_ids).endswith(end)
    assert not rendered.thinks
    assert written(made)[:2] == ("Hello.", "")


def test_a_model_that_lets_nobody_choose_is_not_loaded(tmp_path):
    with pytest.raises(LoadError, match="does not let one choose"):
        TransformersEngine(str(tiny.build(tmp_path / "model")), device="cpu", thinking="on")


# The job ---------------------------------------------------------------------------


def job(n=1):
    request = GenerationRequest(pk=1, n=n, attempt=1)
    return Job(request, "token")


def kinds(events):
    return [event["kind"] for event in events]


def test_a_thought_is_told_as_going_on_only():
    one = job()
    assert one.take(Chunk((1, "token", 0), reasoning="They", completion_tokens=1))
    told = one.news()
    assert told == [{"kind": "thinking", "request": 1, "attempt": 1, "index": 0}]
    assert not one.take(Chunk((1, "token", 0), reasoning=" greet", completion_tokens=2))
    assert one.news() == []
    assert one.take(Chunk((1, "token", 0), text="Hello", completion_tokens=3))
    assert kinds(one.news()) == ["text"]


def test_a_page_that_came_late_hears_of_it_too():
    one = job()
    one.take(Chunk((1, "token", 0), reasoning="They", completion_tokens=1))
    one.news()
    one.whole_told_at -= 10
    assert kinds(one.news()) == ["thinking"]


def test_the_first_token_may_be_one_of_the_thought():
    one = job()
    one.take(Chunk((1, "token", 0), reasoning="The\x00y", completion_tokens=1))
    one.claimed_at -= 5
    one.take(Chunk((1, "token", 0), text="Hello", finish="stop", completion_tokens=2))
    [sampled] = one.sampled()
    assert sampled.first_token_ms < 5000 <= sampled.total_ms
    assert (sampled.text, sampled.reasoning) == ("Hello", "They")


def test_what_was_stopped_keeps_its_thought():
    one = job()
    one.take(Chunk((1, "token", 0), reasoning="They greet.", completion_tokens=1))
    one.take(Chunk((1, "token", 0), text="Hel", completion_tokens=2))
    [sampled] = one.sampled()
    assert (sampled.text, sampled.reasoning, sampled.finish_reason) == ("Hel", "They greet.", "stopped")
