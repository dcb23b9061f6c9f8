"""The demo's real model, from its wheel to a sensible answer."""

import os
import time
from pathlib import Path

import pytest
from django.conf import settings

from worker import demo_model
from worker.engines.base import Sampling
from worker.engines.transformers import TransformersEngine

pytestmark = [pytest.mark.model, pytest.mark.slow]


@pytest.fixture(scope="module")
def engine():
    # Converting takes half a minute: what the site in this folder has already converted is as good.
    site = Path(settings.BASE_DIR) / "var" / "models"
    models = site if (site / demo_model.NAME / "config.json").exists() else settings.BOTHSIDES_HOME / "models"
    made = TransformersEngine(str(demo_model.bring(models, print)))
    yield made
    made.close()


def written(engine, key):
    text, until = "", time.monotonic() + 120
    while time.monotonic() < until:
        for chunk in engine.read(1):
            assert chunk.key == key
            text += chunk.text
            if chunk.finish:
                return text, chunk
    raise AssertionError(os.getloadavg())


def test_it_answers_in_english_and_ends_its_turn(engine):
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France? Answer in one short sentence."},
    ]
    engine.submit("capital", engine.render(messages), Sampling(max_new_tokens=60, temperature=0), urgent=True)
    text, end = written(engine, "capital")
    assert "Paris" in text
    assert end.finish == "stop"
    assert end.prompt_tokens > 20


def test_its_template_gets_the_projects_system_message_only(engine):
    rendered = engine.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    text = engine._tokenizer.decode(rendered.token_ids)
    assert text == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
