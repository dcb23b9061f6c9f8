"""A conversation through a model's own chat template: up to the assistant's next message, or into the user's."""

import transformers

from annotate import prompts

MARK = "The user’s turn is left open here."


def to_reply(tokenizer: transformers.PreTrainedTokenizerBase, messages: list[dict]) -> list[int]:
    """The tokens up to the first one of the assistant's next message. Raises ValueError where the template refuses."""
    return list(_apply(tokenizer, messages, tokenize=True, return_dict=False))


def into_users_turn(
    tokenizer: transformers.PreTrainedTokenizerBase, messages: list[dict]
) -> tuple[list[int], set[int]]:
    """The same for messages that end with USERS_TURN, up to the user's first word, and the token that ends a turn of
    the user. A template that marks that end with no token of its own has the model play the user instead.
    """
    before, content = messages[:-1], MARK
    if before[-1]["role"] == "user":
        # Templates demand that roles alternate: the user says more in the same message.
        before, content = before[:-1], f"{before[-1]['content']}\n\n{MARK}"
    text = _apply(tokenizer, [*before, {"role": "user", "content": content}], tokenize=False)
    opened, mark, after = text.rpartition(MARK)
    ending = tokenizer(after, add_special_tokens=False).input_ids[:1]
    if not mark or not ending or ending[0] not in tokenizer.added_tokens_decoder:
        return to_reply(tokenizer, prompts.play_the_user(messages)), set()
    return list(tokenizer(opened, add_special_tokens=False).input_ids), set(ending)


def _apply(tokenizer, messages: list[dict], **how):
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, **how)
    # A template is a program of the model's authors and raises what it likes.
    except Exception as error:
        raise ValueError(f"The model's chat template refuses this conversation: {error}") from error
