"""A conversation through a model's own chat template: up to the assistant's next message, or into the user's."""

import hashlib

import transformers

from annotate import prompts
from worker.engines.base import LoadError

MARK = "The user’s turn is left open here."
RULE = "The system message stands here."


class ChatTemplate:
    """A model's chat template, and what was found out about it by trying.

    `thinking` is `on` or `off` for templates that let one choose whether the model thinks first, and empty for what
    the template does by itself. Raises LoadError where it lets nobody choose.
    """

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase, thinking: str = ""):
        self._tokenizer = tokenizer
        source = tokenizer.get_chat_template()
        if thinking:
            check_lets_choose(tokenizer)
        self._more = {"enable_thinking": thinking == "on"} if thinking else {}
        self.hash = hashlib.sha256(source.encode()).hexdigest()
        self.takes_system = takes_system(tokenizer, **self._more)

    def to_reply(self, messages: list[dict]) -> list[int]:
        """The tokens up to the first one of the assistant's next message. Raises ValueError where it refuses them."""
        return list(self._apply(messages, tokenize=True, return_dict=False))

    def into_users_turn(self, messages: list[dict]) -> tuple[list[int], set[int]]:
        """The same for messages that end with USERS_TURN, up to the user's first word, and the token that ends a
        turn of the user. A template that marks that end with no token of its own has the model play the user instead.
        """
        before, content = messages[:-1], MARK
        if before[-1]["role"] == "user":
            # Templates demand that roles alternate: the user says more in the same message.
            before, content = before[:-1], f"{before[-1]['content']}\n\n{MARK}"
        text = self._apply([*before, {"role": "user", "content": content}], tokenize=False)
        opened, mark, after = text.rpartition(MARK)
        ending = self._tokenizer(after, add_special_tokens=False).input_ids[:1]
        if not mark or not ending or ending[0] not in self._tokenizer.added_tokens_decoder:
            return self.to_reply(prompts.play_the_user(messages)), set()
        return list(self._tokenizer(opened, add_special_tokens=False).input_ids), set(ending)

    def _apply(self, messages: list[dict], **how):
        try:
            return self._render(messages if self.takes_system else without_system(messages), **how)
        except Exception as error:
            raise ValueError(f"The model's chat template refuses this conversation: {error}") from error

    def _render(self, messages: list[dict], **how):
        return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, **how, **self._more)


def check_lets_choose(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Raise LoadError where the chat template does not let one choose whether the model thinks first."""
    if "enable_thinking" not in tokenizer.get_chat_template():
        raise LoadError(
            f"The chat template of {tokenizer.name_or_path} does not let one choose whether the model thinks: add a "
            "policy whose field thinking is left empty."
        )


def choose(tokenizer: transformers.PreTrainedTokenizerBase, thinking: str) -> None:
    """Have the chat template do by itself what a policy's `thinking` says, `on` or `off`, where nobody chooses.

    So all that reads the tokenizer, and the model that is saved with it, do the same. Raises LoadError where the
    template lets nobody choose.
    """
    check_lets_choose(tokenizer)
    told = f"{{% if enable_thinking is not defined %}}{{% set enable_thinking = {str(thinking == 'on').lower()} %}}"
    chosen = f"{told}{{% endif %}}"
    # What was trained from here begins with it already.
    if not tokenizer.get_chat_template().startswith(chosen):
        tokenizer.chat_template = chosen + tokenizer.get_chat_template()


def takes_system(tokenizer: transformers.PreTrainedTokenizerBase, **how) -> bool:
    """Whether a system message reaches the model. Some templates refuse one, some leave it out without a word."""
    told = [{"role": "system", "content": RULE}, {"role": "user", "content": MARK}]
    try:
        return RULE in tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True, **how)
    # A template is a program of the model's authors and raises what it likes.
    except Exception:
        return False


def without_system(messages: list[dict]) -> list[dict]:
    """The system message as the beginning of the user's first turn, for templates that know no system role.

    Where the assistant speaks first, or nobody does yet, it is a turn of the user by itself: such templates also
    demand that the user begins.
    """
    if messages[0]["role"] != "system":
        return messages
    told, turns = messages[0]["content"].strip(), messages[1:]
    if not told and turns:
        return turns
    if not turns or turns[0]["role"] != "user":
        return [{"role": "user", "content": told}, *turns]
    return [{"role": "user", "content": f"{told}\n\n{turns[0]['content']}"}, *turns[1:]]
