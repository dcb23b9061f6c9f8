"""Conversations as trainings read them: by the model's chat template, as engines do."""

import pytest
from transformers import AutoTokenizer

from annotate.errors import Invalid
from annotate.models import Policy
from tests import tiny
from tests.worker.test_chat_templates import WITHOUT, said, turns
from worker.engines.templates import ChatTemplate
from worker.training import conversations, models

NO_THOUGHT = "<think>\\n\\n</think>\\n\\n"
THINKS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\\n"
    f"{{% if loop.last and message['role'] == 'assistant' %}}{NO_THOUGHT}{{% endif %}}"
    "{{ message['content'] }}<|im_end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n"
    f"{{% if enable_thinking is defined and not enable_thinking %}}{NO_THOUGHT}{{% endif %}}{{% endif %}}"
)
"""As Qwen3's: the last answer has its thought before it, and where the model is not to think an empty one is there."""
TEMPLATES = {"system role": tiny.CHAT_TEMPLATE, **WITHOUT}


@pytest.fixture
def tokenizer(tmp_path):
    def make(template):
        return AutoTokenizer.from_pretrained(tiny.build(tmp_path / "model", template=template))

    return make


@pytest.mark.parametrize("shape", ["su", "suau", "sau", "u"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_what_is_answered_is_what_an_engine_is_given(tokenizer, template, shape):
    made = tokenizer(template)
    assert conversations.opened(made, said(shape)) == ChatTemplate(made).to_reply(said(shape))


@pytest.mark.parametrize("template", WITHOUT.values(), ids=WITHOUT)
def test_without_a_system_role_the_users_first_message_begins_with_it(tokenizer, template):
    made = tokenizer(template)
    [(ids, marks)] = conversations.encoded(made, said("sua"))
    assert made.decode(ids) == turns(("user", "text 0\n\ntext 1")) + "text 2<|im_end|>\n"
    assert made.decode([one for one, mark in zip(ids, marks, strict=True) if mark]) == "text 2<|im_end|>\n"
    assert made.decode(conversations.answered(made, said("su"), "text 2")) == made.decode(ids).rstrip()


@pytest.mark.parametrize("thinking", ["on", "off"])
def test_a_model_thinks_in_training_as_it_does_when_it_is_served(tokenizer, settings, tmp_path, thinking):
    settings.BOTHSIDES_HOME = tmp_path
    plain = tokenizer(THINKS)
    (tmp_path / "models").mkdir()
    (tmp_path / "model").rename(tmp_path / "models" / "thinks")
    policy = Policy(name="thinks", location="thinks", thinking=thinking)
    _, read = models.load(policy)
    given = ChatTemplate(plain, thinking).to_reply(said("su"))
    assert conversations.opened(read, said("su")) == given
    assert conversations.answered(read, said("su"), "text 2")[: len(given)] == given
    # Where one chooses, that counts still; and training again adds nothing.
    for chosen in ("on", "off"):
        assert ChatTemplate(read, chosen).to_reply(said("su")) == ChatTemplate(plain, chosen).to_reply(said("su"))
    read.save_pretrained(tmp_path / "models" / "thinks")
    _, again = models.load(policy)
    assert again.chat_template == read.chat_template


def test_a_model_that_lets_nobody_choose_is_not_trained_as_if_it_did(tokenizer, settings, tmp_path):
    settings.BOTHSIDES_HOME = tmp_path
    tokenizer(tiny.CHAT_TEMPLATE)
    (tmp_path / "models").mkdir()
    (tmp_path / "model").rename(tmp_path / "models" / "thinks")
    with pytest.raises(Invalid, match="does not let one choose whether the model thinks"):
        models.load(Policy(name="thinks", location="thinks", thinking="off"))
