"""Models that think behind servers: some send the thought apart, some leave its marks in the text."""

import time

import pytest

from annotate import conversations, generation
from annotate.models import GenerationRequest, Policy
from tests import factory
from tests.worker import odd_servers
from tests.worker.odd_servers import CONTEXT_TOKENS, MODEL, Answer
from tests.worker.watching import events, over, until
from worker.engines.base import LoadError, Sampling, Server
from worker.engines.openai_compatible import OpenAICompatibleEngine, Turns

pytestmark = pytest.mark.slow

ASKED = Turns([{"role": "user", "content": "Go."}])
State = GenerationRequest.State


@pytest.fixture
def server():
    with odd_servers.running() as started:
        yield started


@pytest.fixture
def make(server):
    """Makes engines, which are closed with the test."""
    made = []

    def engine(**fields):
        made.append(OpenAICompatibleEngine(server.url, Server(served_as=MODEL, **fields)))
        return made[-1]

    yield engine
    for one in made:
        one.close()


def says(*deltas, finish="stop", pause=0.0):
    """A script: these deltas, a text by itself being content."""

    def script(answer: Answer) -> None:
        answer.begin()
        answer.delta(role="assistant", content="")
        for delta in deltas:
            answer.delta(**({"content": delta} if isinstance(delta, str) else delta))
            time.sleep(pause)
        answer.delta(finish=finish)
        answer.usage()
        answer.end()

    return script


def sample(engine):
    """The text, the thought and the last piece."""
    engine.submit("text", ASKED, Sampling(max_new_tokens=100))
    pieces = []
    until(lambda: pieces.extend(engine.read(0.05)) or (pieces and pieces[-1].finish))
    return "".join(one.text for one in pieces), "".join(one.reasoning for one in pieces), pieces[-1]


@pytest.mark.parametrize(
    ("deltas", "text", "thought"),
    [
        ([{"reasoning_content": "They"}, {"reasoning_content": " want."}, "\n\nHello", "\n"], "Hello\n", "They want."),
        ([{"reasoning": "They want."}, "Hello"], "Hello", "They want."),
        ([{"reasoning_content": "a \ud83d"}, {"reasoning_content": "\ude42"}, "Hello"], "Hello", "a 🙂"),
        (["<th", "ink>\nThey", " want.</", "think>\n\n", "Hello"], "Hello", "They want."),
        (["[THINK]They want.[/THINK]Hello"], "Hello", "They want."),
        (["<|channel|>analysis<|message|>They want.<|end|><|start|>assistant<|channel|>final<|message|>Hello"],
         "Hello", "They want."),
        (["Write <think>a</think>."], "Write <think>a</think>.", ""),
        (["a </think> b\n</think> c"], "a </think> b\n</think> c", ""),
        (["Qwen writes:\n<th", "ink>\na\n", "</think>\n", "b"], "Qwen writes:\n<think>\na\n</think>\nb", ""),
        ([{"reasoning_content": "They want."}, "It ends so:\n</think>\n"], "It ends so:\n</think>\n", "They want."),
        (["<think>They want.</think>It ends so:\n</think>\n"], "It ends so:\n</think>\n", "They want."),
        (["<"], "<", ""),
    ],
    ids=["apart", "apart, newer name", "half characters", "marks", "Mistral's", "harmony", "about marks", "odd",
         "an example", "apart, about marks", "marks, about marks", "<"],
)  # fmt: skip
def test_a_thought_is_kept_apart(server, make, deltas, text, thought):
    server.always = says(*deltas)
    assert sample(make())[:2] == (text, thought)


def test_the_counts_of_a_thought_grow_while_it_comes(server, make):
    server.always = says({"reasoning_content": "They"}, {"reasoning_content": " want."}, "Hello")
    engine = make()
    engine.submit("text", ASKED, Sampling(max_new_tokens=100))
    pieces = []
    until(lambda: pieces.extend(engine.read(0.05)) or (pieces and pieces[-1].finish))
    assert [one.completion_tokens for one in pieces if one.reasoning] == [1, 2]
    assert (pieces[-1].prompt_tokens, pieces[-1].completion_tokens) == (12, 34)


def test_a_thought_that_breaks_off_is_begun_anew_by_the_queue(server, make):
    def breaks(answer: Answer) -> None:
        answer.begin()
        answer.delta(reasoning_content="They")
        answer.break_off()

    server.scripts = [breaks]
    text, thought, last = sample(make())
    assert (text, thought, last.finish, last.again) == ("", "They", "error", True)
    assert len(server.asked) == 1


def test_a_thought_that_comes_as_text_is_not_taken_for_an_answer(server, make):
    server.always = says("They want a", " greeting.\n", "</think>", "\n\nHello")
    _, thought, last = sample(make())
    assert (thought, last.finish, last.again) == ("", "error", False)
    assert "--reasoning-parser" in last.error


# Policies that choose ------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize(("thinking", "told"), [("on", True), ("off", False)])
def test_a_policy_chooses_where_the_server_says_who_it_is(server, make, owner, thinking, told):
    server.models = {"data": [{"id": MODEL, "owned_by": owner}]}
    sample(make(thinking=thinking, context_tokens=CONTEXT_TOKENS))
    assert server.asked[0]["chat_template_kwargs"] == {"enable_thinking": told}


def test_nothing_is_said_of_it_by_a_policy_that_does_not_choose(server, make):
    sample(make())
    assert "chat_template_kwargs" not in server.asked[0]


@pytest.mark.parametrize("models", [None, {"data": [{"id": MODEL, "owned_by": "somebody"}]}])
def test_a_server_that_does_not_say_who_it_is_cannot_be_told(server, make, models):
    server.models = models
    with pytest.raises(LoadError, match="does not say that it is vLLM"):
        make(thinking="off", context_tokens=CONTEXT_TOKENS)
    assert server.greeted == 0


def test_a_server_that_refuses_it_is_told_as_such(server, make):
    refusal = "Unrecognized request argument: chat_template_kwargs"
    server.greeting = lambda answer: answer.refuse(400, {"error": {"message": refusal}})
    with pytest.raises(LoadError, match=f"answers 400: {refusal}"):
        make(thinking="on")


# The loop, and the record --------------------------------------------------------------------------


@pytest.fixture
def slot(server, settings):
    settings.WORKER_POLL_SECONDS = 0.1
    fields = {"engine": Policy.Engine.OPENAI_COMPATIBLE, "location": server.url, "served_as": MODEL, "concurrency": 8}
    project = factory.project(served_by=factory.policy(**fields, thinking="on"), max_new_tokens=40)
    return factory.held_chat(project, factory.trainer(project))


def ask(slot):
    return conversations.say(assignment=slot, user=slot.trainer, text="Hi.")


@pytest.mark.django_db(transaction=True)
def test_a_reply_is_stored_with_its_thought_which_no_page_was_sent(serve, server, slot):
    server.always = says({"reasoning_content": "They want a greeting."}, "Hello.", pause=0.3)
    serve(slot.iteration.reply_policy)
    request = over(ask(slot))
    completion = request.completions.get()
    assert (completion.text, completion.reasoning) == ("Hello.", "They want a greeting.")
    assert slot.conversation.messages.last().text == "Hello."
    assert server.asked[0]["chat_template_kwargs"] == {"enable_thinking": True}
    told = until(lambda: (found := events(request)) and found[-1]["kind"] == "done" and found)
    assert told[0]["kind"] == "thinking"
    assert "greeting" not in str(told)


@pytest.mark.django_db(transaction=True)
def test_a_reply_that_is_all_thought_fails_with_what_to_do(serve, server, slot):
    server.always = says({"reasoning_content": "They want"}, finish="length")
    serve(slot.iteration.reply_policy)
    request = over(ask(slot))
    assert (request.state, request.attempt) == (State.FAILED, 1)
    assert request.reason == generation.THOUGHT_TO_THE_END.format(34)
    assert not request.completions.exists()
    assert slot.conversation.messages.last().role == "user"
