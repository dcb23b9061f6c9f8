"""Conversations as token ids, with a mark at each token that a training learns to write."""

import functools
from collections.abc import Iterator

import transformers

from annotate.errors import Invalid
from worker.engines import templates


def encoded(
    tokenizer: transformers.PreTrainedTokenizerBase, messages: list[dict], learnt_from: int = 0
) -> Iterator[tuple[list[int], list[int]]]:
    """The token ids of a conversation and, for each, 1 where the assistant wrote it, its end of turn included. What
    the assistant said in messages before `learnt_from` is read as the rest is, and not learnt.

    One example where the template renders a conversation's beginning alike whatever follows; else, as with templates
    that leave out thoughts of earlier turns, one for each turn of the assistant. What a policy would be given to answer
    is tokenised by itself, as it will be when it answers. Raises Invalid where the template does not render a turn
    behind its own opening.
    """
    parts: list[tuple[str, int]] = []  # text, and whether the assistant wrote it
    before = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant" or number < learnt_from:
            continue
        opened = _rendered(tokenizer, messages[:number], add_generation_prompt=True)
        whole = _rendered(tokenizer, messages[: number + 1])
        if not whole.startswith(opened):
            raise Invalid("The model's chat template renders an answer otherwise than it opens one.")
        if not opened.startswith(before):
            yield _tokens(tokenizer, parts)
            parts, before = [], ""
        parts += [(opened[len(before) :], 0), (whole[len(opened) :], 1)]
        before = whole
    if parts:
        yield _tokens(tokenizer, parts)


def answered(tokenizer: transformers.PreTrainedTokenizerBase, messages: list[dict], answer: str) -> list[int]:
    """The token ids of an answer behind the messages before it, up to the end of its turn: white space that the
    template puts behind that is left out, so that a policy which ends its turn has written exactly these.

    Raises Invalid where the template does not render an answer behind its own opening.
    """
    opened = _rendered(tokenizer, messages, add_generation_prompt=True)
    whole = _rendered(tokenizer, [*messages, {"role": "assistant", "content": answer}])
    if not whole.startswith(opened):
        raise Invalid("The model's chat template renders an answer otherwise than it opens one.")
    return _tokens(tokenizer, [(opened, 0), (whole[len(opened) :].rstrip(), 1)])[0]


def opened(tokenizer: transformers.PreTrainedTokenizerBase, messages: list[dict]) -> list[int]:
    """The token ids of what a policy is given to answer: the beginning of those that `answered` returns."""
    return _tokens(tokenizer, [(_rendered(tokenizer, messages, add_generation_prompt=True), 0)])[0]


def _tokens(tokenizer, parts: list[tuple[str, int]]) -> tuple[list[int], list[int]]:
    ids, marks = [], []
    for text, written in parts:
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        ids += tokens
        marks += [written] * len(tokens)
    return ids, marks


# A training asks it of one or two tokenizers, of each conversation.
_takes_system = functools.lru_cache(maxsize=4)(templates.takes_system)


def _rendered(tokenizer, messages: list[dict], **how) -> str:
    """As engines render them: where the template knows no system role, the user's first turn begins with it."""
    if messages and not _takes_system(tokenizer):
        messages = templates.without_system(messages)
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **how)
    # A template is a program of the model's authors and raises what it likes.
    except Exception as error:
        raise Invalid(f"The model's chat template refuses a conversation: {error}") from error
