"""Chat templates with a system role, and those that refuse it, leave it out, or demand that roles alternate."""

import pytest
from transformers import AutoTokenizer

from annotate.prompts import USERS_TURN, render_suggestion
from tests import tiny
from worker.engines.base import LoadError
from worker.engines.templates import ChatTemplate

TURN = "<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
OPENED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('the user and the assistant take turns') }}{% endif %}"
)
REFUSES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    f"{{% for message in messages %}}{ALTERNATE}{TURN}{{% endfor %}}{OPENED}"
)
LEAVES_OUT = (
    "{% for message in messages %}{% if message['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + OPENED
)
ANY_ROLE_BUT = (
    "{% for message in messages %}{% if message['role'] not in ('user', 'assistant') %}"
    "{{ raise_exception('only user and assistant roles') }}{% endif %}" + TURN + "{% endfor %}" + OPENED
)
INTO_THE_USERS = (
    "{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] %}{% set said = messages[1:] %}"
    "{% else %}{% set told = '' %}{% set said = messages %}{% endif %}"
    "{% for message in said %}" + ALTERNATE + "<|im_start|>{{ message['role'] }}\n"
    "{% if loop.first and told %}[{{ told }}] {% endif %}{{ message['content'] }}<|im_end|>\n{% endfor %}" + OPENED
)
WITHOUT = {"refuses": REFUSES, "leaves out": LEAVES_OUT, "other roles": ANY_ROLE_BUT}
ROLES = {"s": "system", "u": "user", "a": "assistant"}


def said(shape):
    return [{"role": ROLES[letter], "content": f"text {place}"} for place, letter in enumerate(shape)]


@pytest.fixture
def template(tmp_path):
    """A chat template of this text, with the tokenizer of the tiny model."""

    def make(text, thinking=""):
        folder = tiny.build(tmp_path / "model", template=text)
        return ChatTemplate(AutoTokenizer.from_pretrained(folder), thinking)

    return make


def read(template, messages):
    return template._tokenizer.decode(template.to_reply(messages))


def turns(*said):
    """A rendered prompt: the turns that were said, and the assistant's open one."""
    done = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said)
    return f"{done}<|im_start|>assistant\n"


def test_a_template_with_a_system_role_gets_the_system_message(template):
    made = template(tiny.CHAT_TEMPLATE)
    assert made.takes_system
    assert read(made, said("su")) == turns(("system", "text 0"), ("user", "text 1"))


def test_one_that_has_a_place_of_its_own_for_it_is_left_to_do_so(template):
    made = template(INTO_THE_USERS)
    assert made.takes_system
    assert read(made, said("suau")) == turns(("user", "[text 0] text 1"), ("assistant", "text 2"), ("user", "text 3"))


@pytest.mark.parametrize("text", WITHOUT.values(), ids=WITHOUT)
def test_without_a_system_role_the_users_first_message_begins_with_it(template, text):
    made = template(text)
    assert not made.takes_system
    assert read(made, said("su")) == turns(("user", "text 0\n\ntext 1"))
    assert read(made, said("suau")) == turns(("user", "text 0\n\ntext 1"), ("assistant", "text 2"), ("user", "text 3"))


@pytest.mark.parametrize("text", WITHOUT.values(), ids=WITHOUT)
def test_where_the_assistant_speaks_first_it_is_a_turn_of_the_user(template, text):
    made = template(text)
    assert read(made, said("sau")) == turns(("user", "text 0"), ("assistant", "text 1"), ("user", "text 2"))


@pytest.mark.parametrize("text", WITHOUT.values(), ids=WITHOUT)
def test_where_nobody_has_spoken_it_is_all_there_is(template, text):
    assert read(template(text), said("s")) == turns(("user", "text 0"))


@pytest.mark.parametrize("text", WITHOUT.values(), ids=WITHOUT)
def test_an_empty_one_adds_nothing(template, text):
    messages = [{"role": "system", "content": " "}, *said("u")]
    assert read(template(text), messages) == turns(("user", "text 0"))


@pytest.mark.parametrize("text", WITHOUT.values(), ids=WITHOUT)
@pytest.mark.parametrize("shape", ["s", "su", "sua", "suau", "sa"])
def test_the_users_turn_is_left_open_in_the_same_way(template, text, shape):
    made = template(text)
    asked = render_suggestion(said(shape), role="user", hint="shorter")
    assert asked[-1] == USERS_TURN
    ids, ends = made.into_users_turn(asked)
    opened = made._tokenizer.decode(ids)
    assert opened.startswith("<|im_start|>user\ntext 0\n\nThe user's next message: shorter\n\n")
    assert all(one["content"] in opened for one in said(shape))
    assert ends == {made._tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert "system" not in opened


def test_what_a_template_refuses_for_another_reason_is_told(template):
    with pytest.raises(ValueError, match="refuses this conversation: the user and the assistant take turns"):
        template(REFUSES).to_reply(said("suu"))


CHOICE = tiny.CHAT_TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}-{% else %}+{% endif %}"


@pytest.mark.parametrize(("thinking", "sign"), [("", "+"), ("on", "+"), ("off", "-")])
def test_whether_the_model_thinks_is_told_to_the_template(template, thinking, sign):
    assert read(template(CHOICE, thinking), said("u")).endswith(f"assistant\n{sign}")


def test_a_template_that_lets_nobody_choose_is_no_policy_that_chooses(template):
    with pytest.raises(LoadError, match="does not let one choose whether the model thinks"):
        template(tiny.CHAT_TEMPLATE, "off")
