"""The engine for servers and the serving loop on a real `transformers serve`, which each test module starts itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings as site

from annotate import conversations
from annotate.models import GenerationRequest, Policy
from tests import factory, tiny
from tests.worker.watching import events, over, shown, until
from worker import demo_model
from worker.engines.base import LoadError, Sampling, Server
from worker.engines.openai_compatible import OpenAICompatibleEngine

pytestmark = pytest.mark.slow


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """The base URL of a server that has loaded this model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    with log.open("w") as output:
        child = subprocess.Popen(
            [*command, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        )
    try:

        def listens() -> bool:
            assert child.poll() is None, log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, 150)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The tiny model, which is told to draw: else `transformers serve` takes the likeliest token at any temperature."""
    folder = tiny.build(tmp_path_factory.mktemp("served") / "tiny")
    config = folder / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"do_sample": True}))
    return folder


@pytest.fixture(scope="module")
def url(small, tmp_path_factory):
    with serving(small, tmp_path_factory.mktemp("log") / "serve.log") as served:
        yield served


def make(url: str, folder: Path, **fields) -> OpenAICompatibleEngine:
    return OpenAICompatibleEngine(url, Server(**{"served_as": str(folder), "context_tokens": 2048} | fields))


def sample(engine, text: str, sampling: Sampling, count: int = 1):
    """`count` texts of one question, with the last piece of each."""
    rendered = engine.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}])
    for key in range(count):
        engine.submit(key, rendered, sampling)
    texts, last = dict.fromkeys(range(count), ""), {}
    deadline = time.monotonic() + 120
    while len(last) < count:
        assert time.monotonic() < deadline
        for chunk in engine.read(0.5):
            texts[chunk.key] += chunk.text
            if chunk.finish:
                last[chunk.key] = chunk
    return [(texts[key], last[key]) for key in range(count)]


def test_texts_are_drawn_and_counted(url, small):
    engine = make(url, small)
    try:
        found = sample(engine, "the word", Sampling(max_new_tokens=30), 4)
        assert {last.finish for _, last in found} <= {"stop", "length"}
        assert len({text for text, _ in found}) > 1
        assert all(0 < last.completion_tokens <= 30 and last.prompt_tokens > 10 for _, last in found)
    finally:
        engine.close()


def test_a_setting_that_it_does_not_take_is_said(url, small):
    engine = make(url, small)
    try:
        [(_, last)] = sample(engine, "the word", Sampling(max_new_tokens=5, top_k=4))
        assert (last.finish, last.again) == ("error", False)
        assert "top_k" in last.error
    finally:
        engine.close()


def test_another_model_is_not_served(url):
    with pytest.raises(LoadError, match="nope"):
        make(url, Path("nope"))


@pytest.mark.django_db(transaction=True)
def test_a_chat_goes_on_by_it(serve, settings, url, small):
    settings.WORKER_POLL_SECONDS = 0.1
    policy = factory.policy(
        engine=Policy.Engine.OPENAI_COMPATIBLE,
        location=url,
        served_as=str(small),
        concurrency=4,
        context_tokens=tiny.CONTEXT_TOKENS,
    )
    project = factory.project(served_by=policy, max_new_tokens=30)
    slot = factory.held_chat(project, factory.trainer(project))
    loop = serve(policy)
    request = over(conversations.say(assignment=slot, user=slot.trainer, text="the word"), 60)
    assert request.state == GenerationRequest.State.DONE, (request.reason, loop.reason)
    completion = request.completions.get()
    told = until(lambda: (found := events(request)) and found[-1]["kind"] == "done" and found)
    assert shown(told) == completion.text == slot.conversation.messages.last().text
    assert completion.prompt_tokens > 10


@pytest.mark.model
def test_the_demo_model_answers_in_english(tmp_path):
    own = Path(site.BASE_DIR) / "var" / "models"
    models = own if (own / demo_model.NAME / "config.json").exists() else site.BOTHSIDES_HOME / "models"
    folder = demo_model.bring(models, print)
    with serving(folder, tmp_path / "serve.log") as url:
        engine = make(url, folder)
        try:
            [(text, last)] = sample(engine, "What is the capital of France?", Sampling(max_new_tokens=40))
            assert "Paris" in text
            assert last.prompt_tokens > 20
        finally:
            engine.close()
