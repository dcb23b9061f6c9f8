"""Conversations as trainings read them: by the model's chat template, as engines do."""

import pytest
from transformers import AutoTokenizer

from tests import tiny
from tests.worker.test_chat_templates import WITHOUT, said, turns
from worker.engines.templates import ChatTemplate
from worker.training import conversations

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
