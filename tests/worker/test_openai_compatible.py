"""The engine for servers that speak /v1/chat/completions, against the odd ways in which they do."""

import json
import logging
import threading
import time

import pytest

from annotate import prompts
from tests.worker import odd_servers
from tests.worker.odd_servers import CONTEXT_TOKENS, KEY, MODEL, Answer, slowly, well
from tests.worker.watching import until
from worker.engines import openai_compatible
from worker.engines.base import Chunk, LoadError, Sampling, Server
from worker.engines.openai_compatible import OpenAICompatibleEngine, Turns

pytestmark = pytest.mark.slow

ASKED = Turns([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go."}])


@pytest.fixture
def server():
    with odd_servers.running() as started:
        yield started


@pytest.fixture(autouse=True)
def _quick(settings, monkeypatch):
    settings.SERVER_CONNECT_SECONDS = 1
    settings.SERVER_FIRST_TOKEN_SECONDS = 5
    settings.SERVER_NEXT_TOKEN_SECONDS = 5
    settings.SERVER_RETRIES = 2
    settings.SERVER_PAUSE_SECONDS = 0.1
    monkeypatch.setattr(openai_compatible, "FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def make():
    """Makes engines, which are closed with the test."""
    made = []

    def engine(url, **fields):
        made.append(OpenAICompatibleEngine(url, Server(**{"served_as": MODEL} | fields)))
        return made[-1]

    yield engine
    for one in made:
        one.close()


@pytest.fixture
def engine(server, make):
    return make(server.url)


def finished(engine, *keys, seconds=20) -> dict[object, list[Chunk]]:
    """All pieces of these texts, once each has its last."""
    pieces = {key: [] for key in keys}

    def over():
        for chunk in engine.read(0.05):
            pieces[chunk.key].append(chunk)
        return all(found and found[-1].finish for found in pieces.values())

    until(over, seconds)
    return pieces


def sample(engine, key="text", *, sampling=None, **how) -> tuple[str, Chunk]:
    """One text, and its last piece."""
    engine.submit(key, ASKED, sampling or Sampling(max_new_tokens=100), **how)
    pieces = finished(engine, key)[key]
    return "".join(piece.text for piece in pieces), pieces[-1]


def test_a_text_comes_in_pieces_with_its_counts(server, engine):
    engine.submit("text", ASKED, Sampling(max_new_tokens=100, temperature=0.7, top_p=0.9))
    pieces = finished(engine, "text")["text"]
    assert [piece.text for piece in pieces] == ["Hello", " there", ".", ""]
    assert (pieces[-1].finish, pieces[-1].prompt_tokens, pieces[-1].completion_tokens) == ("stop", 12, 34)
    asked = server.asked[0]
    assert asked["messages"] == ASKED.messages
    assert (asked["model"], asked["max_tokens"], asked["temperature"], asked["top_p"]) == (MODEL, 100, 0.7, 0.9)
    assert asked["stream_options"] == {"include_usage": True}
    assert not {"n", "seed"} & set(asked)
    assert engine.context_tokens == CONTEXT_TOKENS
    assert engine.render(ASKED.messages).template_hash == ""


def test_a_users_turn_is_played(engine):
    messages = [{"role": "system", "content": "Be brief."}, prompts.USERS_TURN]
    assert engine.render(messages).messages == prompts.play_the_user(messages)


@pytest.mark.parametrize(
    ("owner", "top_k", "sent"),
    [("vllm", 0, -1), ("vllm", 5, 5), ("sglang", 0, -1), ("llamacpp", 0, 0), ("somebody", 0, None), ("somebody", 5, 5)],
)
def test_what_would_narrow_the_distribution_is_switched_off(server, make, owner, top_k, sent):
    server.models["data"][0]["owned_by"] = owner
    sample(make(server.url), sampling=Sampling(top_k=top_k))
    assert server.asked[0].get("top_k") == sent
    assert server.asked[0].get("min_p") == (None if owner == "somebody" else 0)


def test_a_seed_is_sent_where_there_is_one(server, engine):
    sample(engine, sampling=Sampling(seed=7))
    assert server.asked[0]["seed"] == 7


def test_no_more_questions_at_once_than_agreed_and_the_urgent_first(server, make):
    engine = make(server.url, concurrency=2)
    assert engine.capacity == 2
    all_submitted = threading.Event()

    def after_all(answer: Answer) -> None:
        assert all_submitted.wait(30)
        # Of two that were begun together either may come first; so none is answered before both are there.
        if not any(answer.asked is one for one in server.asked[:2]):
            until(lambda: len(server.asked) >= 4)
        well(answer)

    server.always = after_all
    for number in range(5):
        engine.submit(number, ASKED, Sampling())
    urgent = Turns([{"role": "user", "content": "urgent"}])
    engine.submit("urgent", urgent, Sampling(), urgent=True)
    all_submitted.set()
    finished(engine, *range(5), "urgent")
    assert server.busiest == 2
    # The first two were begun before it came, and another one beside it.
    assert urgent.messages in [asked["messages"] for asked in server.asked[:4]]


# Odd streams ----------------------------------------------------------------------------------------


def no_usage(answer: Answer):
    answer.begin()
    answer.delta(role="assistant")
    for word in ("Hello", " there", "."):
        answer.delta(content=word)
    answer.delta(finish="stop")
    answer.end()


def test_without_usage_the_pieces_are_counted_and_that_is_said(server, engine, caplog):
    server.always = no_usage
    text, last = sample(engine)
    assert (text, last.finish, last.prompt_tokens, last.completion_tokens) == ("Hello there.", "stop", 0, 3)
    sample(engine, "another")
    assert [record.getMessage().count("no token counts") for record in caplog.records] == [1]


def empty_choices(answer: Answer):
    answer.begin()
    answer.data(id="1", choices=[])
    answer.data(id="1", choices=None)
    answer.data(id="1", prompt_filter_results=[])
    answer.data(choices=[{"index": 0, "delta": None}])
    answer.data(choices=[{"index": 0, "delta": {"content": None, "role": "assistant"}}])
    well_after(answer)


def well_after(answer: Answer):
    for word in ("Hello", " there", "."):
        answer.delta(content=word)
    answer.delta(finish="stop")
    answer.usage()
    answer.end()


def comments_and_split_characters(answer: Answer):
    answer.begin()
    answer.raw(b": ping\n\n")
    answer.raw(b"event: message\r\n")
    for byte in 'data: {"choices": [{"index": 0, "delta": {"content": "Hellö \U0001f600"}}]}\n\n'.encode():
        answer.raw(bytes([byte]))
    answer.raw(b": ping\n\n")
    answer.raw(b'data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d"}}]}\n\n')
    answer.raw(b'data: {"choices": [{"index": 0, "delta": {"content": "\\ude00!"}}]}\n\n')
    answer.delta(finish="stop")
    answer.end()


def usage_with_each_piece(answer: Answer):
    answer.begin()
    for count, word in enumerate(("Hello", " there", "."), 1):
        usage = {"prompt_tokens": 12, "completion_tokens": count, "total_tokens": 12 + count}
        answer.data(choices=[{"index": 0, "delta": {"content": word}, "finish_reason": None}], usage=usage)
    answer.delta(finish="stop")
    answer.end()


def thoughts(answer: Answer):
    answer.begin()
    answer.delta(role="assistant", content=None, reasoning_content="They want")
    answer.delta(reasoning=" a greeting.")
    well_after(answer)


def no_done(answer: Answer):
    answer.begin()
    answer.delta(content="Hello there.")
    answer.delta(finish="stop")
    answer._handler.wfile.write(b"0\r\n\r\n")


def breaks_after_its_end(answer: Answer):
    answer.begin()
    answer.delta(content="Hello there.", finish="stop")
    answer.break_off()


@pytest.mark.parametrize("odd", [empty_choices, usage_with_each_piece, thoughts, no_done, breaks_after_its_end])
def test_odd_streams_give_the_text(server, engine, odd):
    server.always = odd
    text, last = sample(engine)
    assert (text, last.finish) == ("Hello there.", "stop")
    assert last.completion_tokens > 0


def test_comments_are_passed_over_and_split_characters_joined(server, engine):
    server.always = comments_and_split_characters
    text, last = sample(engine)
    assert last.error == ""
    assert (text, last.finish) == ("Hellö \U0001f600\U0001f600!", "stop")


@pytest.mark.parametrize(
    ("said", "meant"), [("length", "length"), ("stop", "stop"), ("tool_calls", "stop"), ("eos", "stop")]
)
def test_how_a_text_ended(server, engine, said, meant):
    def script(answer):
        answer.begin()
        answer.delta(content="Hello")
        answer.delta(finish=said)
        answer.end()

    server.always = script
    assert sample(engine)[1].finish == meant


@pytest.mark.parametrize(("said", "told"), [("content_filter", "filter"), ("abort", "gave the text up")])
def test_a_text_that_the_server_cut_is_none(server, engine, said, told):
    def script(answer):
        answer.begin()
        answer.delta(content="Hello")
        answer.delta(finish=said)
        answer.end()

    server.always = script
    last = sample(engine)[1]
    assert (last.finish, last.again) == ("error", True)
    assert told in last.error


# What goes wrong ------------------------------------------------------------------------------------


def breaks(answer: Answer):
    answer.begin()
    answer.delta(content="Hel")
    time.sleep(0.1)
    answer.break_off()


def ends_early(answer: Answer):
    answer.begin()
    answer.delta(content="Hel")
    answer.end()


def error_in_the_middle(answer: Answer):
    answer.begin()
    answer.delta(content="Hel")
    answer.data(error={"message": f"CUDA error for {KEY}", "type": "InternalServerError", "code": 500})
    answer.end()


def error_as_a_chunk(answer: Answer):
    answer.begin()
    answer.delta(content="Hel")
    answer.data(object="error", message=f"EngineDeadError {KEY}", code=500)
    answer.end()


def too_long_in_the_middle(answer: Answer):
    answer.begin()
    answer.delta(content="Hel")
    answer.data(error={"message": "maximum context length reached", "code": 400})
    answer.end()


def no_json(answer: Answer):
    answer.begin()
    answer.delta(content="Hel")
    answer.raw(b"data: Hel{lo\n\n")
    answer.end()


@pytest.mark.parametrize(
    "odd", [breaks, ends_early, error_in_the_middle, error_as_a_chunk, too_long_in_the_middle, no_json]
)
def test_a_stream_that_breaks_is_an_error_for_another_attempt(server, make, monkeypatch, odd):
    monkeypatch.setenv("ODD_API_KEY", KEY)
    engine = make(server.url, key_variable="ODD_API_KEY")
    server.scripts = [odd]
    text, last = sample(engine)
    assert (text, last.finish, last.again) == ("Hel", "error", True)
    assert last.error
    assert KEY not in last.error
    # One such is no reason to call the server away.
    assert engine.away() == ""
    assert sample(engine, "again")[0] == "Hello there."
    assert len(server.asked) == 2


def refuses(status, body=None, **headers):
    return lambda answer: answer.refuse(status, body or {"error": {"message": "No.", "code": None}}, **headers)


def hangs_up(answer: Answer):
    answer.break_off()


def breaks_before_a_word(answer: Answer):
    answer.begin()
    answer.delta(role="assistant")
    answer.break_off()


def a_page(answer: Answer):
    answer.refuse(200, "<html><body>Welcome</body></html>")


@pytest.mark.parametrize(
    "odd",
    [
        refuses(500),
        refuses(503),
        refuses(429),
        refuses(502, "<html>Bad gateway</html>"),
        hangs_up,
        breaks_before_a_word,
        a_page,
    ],
)
def test_what_fails_before_the_first_word_is_asked_again(server, engine, odd):
    server.scripts = [odd, odd]
    assert sample(engine)[0] == "Hello there."
    assert len(server.asked) == 3
    assert engine.away() == ""


def test_a_server_is_left_alone_as_long_as_it_wants(server, engine):
    server.scripts = [refuses(429, Retry_After="1")]
    began = time.monotonic()
    assert sample(engine)[0] == "Hello there."
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    ("status", "message"), [(400, "top_k is not known here"), (422, "temperature is too high"), (400, "bad roles")]
)
def test_a_question_that_is_refused_fails_for_good(server, engine, status, message):
    server.always = refuses(status, {"error": {"message": message}})
    last = sample(engine)[1]
    assert (last.finish, last.again) == ("error", False)
    assert message in last.error
    assert (len(server.asked), engine.away()) == (1, "")


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("This model's maximum context length is 1000 tokens. However, you requested 1012 tokens (912 in the messages, "
         "100 in the completion).", [100, 88]),
        ("'max_tokens' or 'max_completion_tokens' is too large: 100. This model's maximum context length is 1000 "
         "tokens and your request has 950 input tokens (100 > 1000 - 950).", [100, 50]),
        ("This model's maximum context length is 1000 tokens. However, you requested 100 output tokens and your prompt "
         "contains at least 901 input tokens, for a total of at least 1001 tokens.", [100, 50]),
    ],
)  # fmt: skip
def test_a_reply_is_as_long_as_the_context_leaves_room_for(server, engine, message, asked):
    server.scripts = [refuses(400, {"error": {"message": message, "type": "BadRequestError"}})]
    assert sample(engine)[0] == "Hello there."
    assert [one["max_tokens"] for one in server.asked] == asked


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, {"message": "However, you requested 1090 tokens: 990 tokens from the input messages and 100 tokens for "
               "the completion. context length is 1000"}, "This is 22 tokens too long"),
        (400, {"message": "too much", "code": "context_length_exceeded"}, "too much"),
        (400, {"message": "it exceeds the available context size", "n_prompt_tokens": 3000}, "2032 tokens too long"),
        (400, {"message": "The input (5000 tokens) is longer than the model's context length"}, "4032 tokens too long"),
        (400, {"message": "request (1500 tokens) exceeds the available context size"}, "532 tokens too long"),
        (413, {"message": "Payload too large"}, "Payload too large"),
    ],
)  # fmt: skip
def test_what_is_too_long_is_refused(server, engine, status, body, told):
    server.always = refuses(status, {"error": body})
    last = sample(engine)[1]
    assert last.finish == "refused"
    assert told in last.error
    assert engine.away() == ""


@pytest.mark.parametrize(
    ("message", "before", "after"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
         "max_tokens", "max_completion_tokens"),
        ("Extra inputs are not permitted: stream_options", "stream_options", None),
    ],
)  # fmt: skip
def test_a_server_is_asked_in_its_own_words(server, engine, message, before, after):
    server.scripts = [refuses(400, {"error": {"message": message}})]
    assert sample(engine)[0] == "Hello there."
    assert before in server.asked[0]
    assert before not in server.asked[1]
    assert after is None or server.asked[1][after] == 100
    sample(engine, "another")
    assert before not in server.asked[2]


def test_a_server_that_never_begins_is_given_up(server, engine, settings):
    settings.SERVER_FIRST_TOKEN_SECONDS = 0.3
    server.scripts = [lambda answer: time.sleep(2)]
    last = sample(engine)[1]
    assert (last.finish, last.again) == ("error", True)
    assert "silent for 0.3 seconds before the first word" in last.error
    assert len(server.asked) == 1


def test_a_server_that_hangs_in_the_middle_is_given_up(server, engine, settings):
    settings.SERVER_NEXT_TOKEN_SECONDS = 0.3

    def script(answer):
        answer.begin()
        answer.delta(content="Hel")
        for _ in range(20):
            # A sign of life is no word.
            answer.raw(b": ping\n\n")
            time.sleep(0.1)

    server.scripts = [script]
    text, last = sample(engine)
    assert (text, last.finish) == ("Hel", "error")
    assert "in the middle of a text" in last.error
    assert server.gone.wait(5)


def test_a_text_that_is_given_up_closes_its_connection(server, engine):
    server.always = slowly()
    engine.submit("text", ASKED, Sampling())
    until(lambda: engine.read(0.05))
    engine.cancel("text")
    assert server.gone.wait(5)
    engine.read(0.1)
    assert engine.read(0.2) == []


def test_a_text_that_waits_for_another_try_is_given_up_too(server, engine):
    server.always = refuses(503, Retry_After="30")
    engine.submit("text", ASKED, Sampling())
    until(lambda: server.asked)
    engine.cancel("text")
    until(lambda: not engine._tasks)
    assert engine.read(0.1) == []


# The circuit ----------------------------------------------------------------------------------------


def test_a_server_that_fails_again_and_again_is_away_until_it_answers(server, engine):
    server.always = server.greeting = refuses(500)
    assert sample(engine)[1].finish == "error"
    assert "answers 500: No." in engine.away()
    greeted = server.greeted
    until(lambda: server.greeted > greeted)
    assert engine.away()
    asked = len(server.asked)
    server.always = server.greeting = well
    until(lambda: not engine.away())
    assert len(server.asked) == asked == 3
    assert sample(engine, "again")[0] == "Hello there."


def test_texts_that_break_off_one_after_the_other_mean_that_it_is_away(server, engine, settings):
    settings.SERVER_PAUSE_SECONDS = 5
    server.always = breaks
    for number in range(3):
        assert engine.away() == ""
        sample(engine, number)
    assert engine.away()


def test_one_that_fails_while_others_are_answered_says_nothing_of_the_server(server, engine):
    server.scripts = [slowly(100)]
    engine.submit("good", ASKED, Sampling())
    until(lambda: engine.read(0.05))
    server.always = refuses(500)
    engine.submit("bad", ASKED, Sampling())
    pieces = []
    until(lambda: pieces.extend(engine.read(0.05)) or any(piece.key == "bad" for piece in pieces))
    assert engine.away() == ""


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_or_model_that_is_refused_stops_everything_at_once(server, engine, status, settings):
    settings.SERVER_PAUSE_SECONDS = 5
    server.always = refuses(status)
    last = sample(engine)[1]
    assert (last.finish, last.again) == ("error", True)
    assert str(status) in engine.away()
    assert len(server.asked) == 1


# Loading --------------------------------------------------------------------------------------------


def test_a_context_that_the_server_does_not_tell_is_the_policys(server, make):
    server.models = None
    assert make(server.url, context_tokens=777).context_tokens == 777
    server.models = {"data": [{"id": "another", "max_model_len": 5}, "odd"]}
    assert make(server.url, context_tokens=777).context_tokens == 777


def test_a_context_that_nobody_tells_is_asked_for(server, make):
    server.models = None
    with pytest.raises(LoadError, match="context tokens"):
        make(server.url)


@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        (refuses(401, {"error": {"message": f"Incorrect key {KEY}"}}), "refuses the key in ODD_API_KEY"),
        (refuses(404, {"error": {"message": "The model `odd` does not exist."}}), "does not exist"),
        (refuses(404, "<html>Not found</html>"), "a web page"),
        (a_page, "no stream of text"),
        (refuses(500), "answers 500"),
    ],
)
def test_a_server_that_refuses_its_greeting_is_not_loaded(server, make, monkeypatch, greeting, told):
    monkeypatch.setenv("ODD_API_KEY", KEY)
    server.greeting = greeting
    with pytest.raises(LoadError, match=told) as raised:
        make(server.url, key_variable="ODD_API_KEY")
    assert KEY not in str(raised.value)


def test_a_greeting_that_fails_once_is_said_again(server, make):
    greetings = [hangs_up, refuses(503), well]
    server.greeting = lambda answer: greetings.pop(0)(answer)
    assert sample(make(server.url))[0] == "Hello there."


def test_a_server_that_is_not_there_is_said_so(server, make):
    server.stop()
    with pytest.raises(LoadError, match="does not answer"):
        make(server.url)


@pytest.mark.parametrize("url", ["http://", "nowhere", "ftp://host/v1"])
def test_a_url_that_cannot_be_asked_is_said_so(make, url):
    with pytest.raises(LoadError):
        make(url)


def test_the_key_is_sent_and_never_shown(server, make, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    monkeypatch.setenv("ODD_API_KEY_FILE", str(file))
    engine = make(server.url, key_variable="ODD_API_KEY")
    sample(engine)
    assert set(server.keys) == {f"Bearer {KEY}"}
    server.always = refuses(500, {"error": {"message": f"bad {KEY}"}})
    last = sample(engine, "bad")[1]
    assert "[the key]" in last.error
    assert KEY not in caplog.text + last.error + engine.away() + json.dumps(server.asked)


def test_a_key_that_is_missing_or_none_is_said_so(server, make, monkeypatch):
    with pytest.raises(LoadError, match="set ODD_API_KEY in the environment"):
        make(server.url, key_variable="ODD_API_KEY")
    monkeypatch.setenv("ODD_API_KEY", "two\nlines")
    with pytest.raises(LoadError, match="is no key") as raised:
        make(server.url, key_variable="ODD_API_KEY")
    assert "two" not in str(raised.value)
