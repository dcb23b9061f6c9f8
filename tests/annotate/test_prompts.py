"""What a model is given that suggests the next message."""

import itertools

import pytest

from annotate.models import Message
from annotate.prompts import BEGIN, USERS_TURN, play_the_user, render_for_sampling, render_suggestion

SYSTEM = {"role": "system", "content": "Be kind."}
ROLES = {"u": "user", "a": "assistant"}
SHAPES = ["", "u", "ua", "uau", "uaua", "uu", "uua", "uaa", "a", "au", "aa"]


def conversation(shape):
    return [SYSTEM, *({"role": ROLES[letter], "content": f"text {place}"} for place, letter in enumerate(shape))]


def said(messages):
    return [(one["role"], one["content"]) for one in messages]


def test_for_the_assistant_the_conversation_is_given_as_it_is():
    assert render_suggestion(conversation("uau"), role="assistant", hint="") == conversation("uau")


@pytest.mark.parametrize("shape", ["u", "uau", "uu", "uaau", "au", "a"])
@pytest.mark.parametrize("own", [True, False])
def test_what_is_sampled_begins_with_a_system_message_and_alternates(shape, own):
    whole = conversation(shape) if own else conversation(shape)[1:]
    messages = [Message(role=one["role"], text=one["content"]) for one in whole]
    rendered = render_for_sampling(messages, system="The project's.")
    assert rendered[0] == {"role": "system", "content": "Be kind." if own else "The project's."}
    assert [one["role"] for one in rendered[1:]] == ["user", "assistant", "user"][: len(rendered) - 1]
    turns = "\n\n".join(one["content"] for one in rendered[1:])
    begun = f"{BEGIN}\n\n" if shape[0] == "a" else ""
    assert turns == begun + "\n\n".join(one["content"] for one in conversation(shape)[1:])


def test_for_the_user_their_turn_is_left_open():
    assert render_suggestion(conversation("ua"), role="user", hint="") == [*conversation("ua"), USERS_TURN]
    assert render_suggestion(conversation(""), role="user", hint="") == [SYSTEM, USERS_TURN]


@pytest.mark.parametrize(
    ("role", "line"), [("user", "The user's next message: shorter"), ("assistant", "Make your next answer shorter.")]
)
def test_a_hint_is_said_at_the_end_of_the_system_message(role, line):
    plain = render_suggestion(conversation("uau"), role=role, hint="")
    hinted = render_suggestion(conversation("uau"), role=role, hint="shorter")
    assert hinted[0]["content"] == f"Be kind.\n\n{line}"
    assert hinted[1:] == plain[1:]


def test_the_topic_is_said_where_the_user_has_the_first_words():
    first = render_suggestion(conversation(""), role="user", hint="", topic="gardening")
    assert first[0]["content"] == "Be kind.\n\nThe user wants to talk about: gardening"
    for shape, role in (("ua", "user"), ("u", "assistant")):
        later = render_suggestion(conversation(shape), role=role, hint="", topic="gardening")
        assert later[0] == SYSTEM


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_roles_alternate_from_the_user_on_whatever_the_turns_are(shape, role):
    rendered = render_suggestion(conversation(shape), role=role, hint="")
    before = rendered[1:-1] if role == "user" else rendered[1:]
    assert rendered[0]["role"] == "system"
    assert [one["role"] for one in before] == [
        role for role, _ in zip(itertools.cycle(["user", "assistant"]), before, strict=False)
    ]
    if role == "assistant":
        assert before[-1]["role"] == "user"
    else:
        assert rendered[-1] == USERS_TURN
    words = "\n\n".join(one["content"] for one in before)
    assert [f"text {place}" in words for place in range(len(shape))] == [True] * len(shape)


def test_neighbours_of_one_role_are_one_message_for_the_model():
    assert said(render_suggestion(conversation("uau"), role="assistant")) == said(conversation("uau"))
    turns = conversation("uua")
    assert said(render_suggestion(turns, role="user"))[1:3] == [("user", "text 0\n\ntext 1"), ("assistant", "text 2")]
    assert turns == conversation("uua")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_that_plays_the_user_hears_the_assistant(shape):
    played = play_the_user(render_suggestion(conversation(shape), role="user", hint="shorter"))
    roles = [one["role"] for one in played]
    assert roles == ["system"] + ["user", "assistant"] * ((len(roles) - 2) // 2) + ["user"]
    assert "The user's next message: shorter" in played[0]["content"]
    sides = {"u": "assistant", "a": "user"}
    for place, letter in enumerate(shape):
        holder = next(one["role"] for one in played if f"text {place}" in one["content"])
        assert holder == sides[letter]
