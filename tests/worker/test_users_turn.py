"""The user's turn, left open in the model's own chat template."""

import re
from pathlib import Path

import pytest
import trl
from transformers import AutoTokenizer

from annotate.prompts import play_the_user, render_suggestion
from tests import tiny
from worker.engines.base import Sampling
from worker.engines.templates import ChatTemplate
from worker.engines.transformers import TransformersEngine

SYSTEM = {"role": "system", "content": "Be kind."}
ROLES = {"u": "user", "a": "assistant"}
SHAPES = ["", "u", "ua", "uau", "uaua", "uu", "uua", "uaa", "a", "au"]
TEMPLATES = [
    path
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    # Two of models that read lists of pictures and texts only.
    if "training" not in path.name and path.stem not in ("idefics3", "llava_next")
]


def conversation(shape):
    return [SYSTEM, *({"role": ROLES[letter], "content": f"text {place}"} for place, letter in enumerate(shape))]


@pytest.fixture
def engine(tmp_path):
    """The engine of a tiny model, whose template a test may change."""
    made = TransformersEngine(str(tiny.build(tmp_path / "model")), capacity=4, device="cpu")
    yield made
    made.close()


def read(engine, shape, role="user"):
    rendered = engine.render(render_suggestion(conversation(shape), role=role, hint=""))
    return engine._tokenizer.decode(rendered.token_ids), rendered


def test_it_ends_where_the_user_begins_to_speak(engine):
    text, rendered = read(engine, "ua")
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\ntext 0<|im_end|>\n"
        "<|im_start|>assistant\ntext 1<|im_end|>\n<|im_start|>user\n"
    )
    assert rendered.ends == {engine._tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert rendered.template_hash == engine.render(conversation("u")).template_hash


def test_a_user_who_has_just_spoken_says_more(engine):
    assert read(engine, "uau")[0].endswith("<|im_start|>user\ntext 2\n\n")


def test_an_assistants_turn_is_rendered_as_ever(engine):
    text, rendered = read(engine, "u", role="assistant")
    assert text.endswith("<|im_start|>assistant\n")
    assert not rendered.ends


def test_the_turn_ends_with_the_templates_own_mark(tmp_path):
    # To this model the mark is no end of its own turns.
    made = TransformersEngine(str(tiny.build(tmp_path / "model", stops=False)), capacity=4, device="cpu")
    rendered = read(made, "ua")[1]
    [end] = rendered.ends
    assert end not in made._ends
    written = []
    made._write = lambda texts, tokens, write=made._write: (
        written.append(len(texts)),
        write(texts, [end] * len(tokens)),
    )
    made.submit("text", rendered, Sampling(max_new_tokens=50))
    chunks = made.read(30)
    made.close()
    assert (chunks[-1].finish, chunks[-1].completion_tokens, written) == ("stop", 1, [1])


def test_a_template_without_a_mark_has_the_model_play_the_user(engine):
    engine._tokenizer.chat_template = (
        "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    text, rendered = read(engine, "ua")
    assert "[assistant] text 0\n[user] text 1\n[assistant]" in text
    assert text.startswith("[system] You are a person who uses an AI assistant.")
    assert not rendered.ends


def test_a_template_that_refuses_says_so(engine):
    engine._tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ValueError, match="refuses this conversation: no"):
        read(engine, "ua")


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return AutoTokenizer.from_pretrained(tiny_models / "tiny")


@pytest.mark.parametrize("path", TEMPLATES, ids=[path.stem for path in TEMPLATES])
def test_templates_of_larger_models_take_every_shape(path, tokenizer):
    tokenizer.chat_template = path.read_text()
    marks = set(re.findall(r"<[^<>\s{}'\"]{2,40}>", tokenizer.chat_template))
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(marks)})
    template = ChatTemplate(tokenizer)
    for shape in SHAPES:
        said = [f"text {place}" for place in range(len(shape))]
        for hint in ("", "shorter"):
            wanted = render_suggestion(conversation(shape), role="assistant", hint=hint)
            reply = tokenizer.decode(template.to_reply(wanted))
            wanted = render_suggestion(conversation(shape), role="user", hint=hint)
            ids, ends = template.into_users_turn(wanted)
            opened = tokenizer.decode(ids)
            played = tokenizer.decode(template.to_reply(play_the_user(wanted)))
            for text in (reply, opened, played):
                assert all(one in text for one in said), shape
                assert hint in text
            assert len(ends) == 1
            assert "You are a person" not in opened
            assert shape.endswith("u") == opened.endswith(f"{(said or [None])[-1]}\n\n")
