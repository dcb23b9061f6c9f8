"""How a model is asked for the user's next message: the way that is used beside others, over real conversations.

Needs BOTHSIDES_TEST_DATA, a folder with `oasst_trees_en.jsonl`. For each way, on the demo model: how likely the
words are that a person really wrote next, and what the texts that it writes look like beside those.
"""

import difflib
import json
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

from annotate.prompts import play_the_user, render_suggestion
from tests.bench.sampling import _engine, _models
from worker.engines.base import Sampling

CASES = 40
CONTEXT_CHARACTERS = 1200
SYSTEM = {"role": "system", "content": "You are a helpful, honest and harmless assistant."}
SAMPLING = Sampling(max_new_tokens=96, temperature=0.8, top_p=0.95)

ASSISTANT = re.compile(
    r"^\W*(sure|certainly|of course|absolutely|as an ai|i'm here to|i am here to|here (is|are|'s)|i'd be happy|"
    r"i'm happy to|i'm glad|glad|you're welcome|you are welcome|how can i (help|assist)|that's a great|that's great|"
    r"great question|yes, |no, |i understand|i apologi[sz]e|i'm sorry|to (answer|help))|"
    r"(here to help|as an ai|language model|feel free to|let me know if|i can help you|"
    r"hope (this|that) helps|assist you)",
    re.IGNORECASE,
)
ITEM = re.compile(r"(?m)^\s*(\d+\.|[-*]) ")
NAMED = re.compile(r"\W*(user|human|assistant|you|me|person|next|message)\w*\s*:", re.IGNORECASE)

Turns = list[dict[str, str]]


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _open(turns: Turns) -> Turns:
    return render_suggestion([SYSTEM, *turns], role="user")


def _swapped(turns: Turns) -> Turns:
    return play_the_user(_open(turns))


def _swapped_and_reminded(turns: Turns) -> Turns:
    messages = _swapped(turns)
    return [*messages[:-1], _user(f"{messages[-1]['content']}\n\n(Write your next message to the assistant.)")]


def _told_at_the_end(turns: Turns) -> Turns:
    return [
        SYSTEM,
        *turns,
        _user("Write the next message that the user would send in this conversation. Write only that message."),
    ]


def _told_as_oneself(turns: Turns) -> Turns:
    asked = "What could I ask or tell you next? Write my next message to you, in my words, and nothing else."
    return [SYSTEM, *turns, _user(asked)]


def _transcript(turns: Turns) -> str:
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)


def _told_with_a_transcript(turns: Turns) -> Turns:
    asked = f"This is a conversation between a user and an AI assistant.\n\n{_transcript(turns)}\n\n"
    return [
        {"role": "system", "content": "You write what the user of an AI assistant says next."},
        _user(f"{asked}Write the user's next message. Write only the message."),
    ]


def _a_transcript_to_go_on(turns: Turns) -> Turns:
    told = "You continue conversations between a user and an AI assistant with the user's next message."
    return [{"role": "system", "content": told}, _user(f"{_transcript(turns)}\n\nUser:")]


WAYS: dict[str, Callable[[Turns], Turns]] = {
    "the user's turn left open (used)": _open,
    "roles swapped (where it cannot)": _swapped,
    "roles swapped, reminded": _swapped_and_reminded,
    "told in a last message": _told_at_the_end,
    "told in a last message, as I": _told_as_oneself,
    "told with a transcript": _told_with_a_transcript,
    "a transcript to go on with": _a_transcript_to_go_on,
}


def main() -> None:
    """Print one table; about ten minutes on two cores."""
    folder = os.environ.get("BOTHSIDES_TEST_DATA", "")
    if not folder:
        print("user_turns: left out, because BOTHSIDES_TEST_DATA names no folder.")
        return
    cases = _cases(Path(folder) / "oasst_trees_en.jsonl")
    _models()
    engine = _engine()
    print(f"\nThe user's next message, {len(cases)} conversations")
    heads = [("nats a token", 14), ("first", 7), ("assistant", 11), ("asks", 6), ("copies", 8), ("named", 7)]
    print(" " * 34 + "".join(f"{head:>{width}}" for head, width in [*heads, ("empty", 7), ("letters", 9)]))
    _row("what people wrote", None, cases, [real for _, real in cases])
    for name, way in WAYS.items():
        likely = _likelihood(engine, way, cases)
        _row(name, likely, cases, _written(engine, way, cases))
    engine.close()


def _cases(file: Path) -> list[tuple[Turns, str]]:
    """Conversations that end with the assistant, of different trees, and what a person wrote next."""
    cases = []
    for line in file.read_text().splitlines():
        found: list[list[dict]] = []
        _walk(json.loads(line)["prompt"], [], found)
        random.Random(0).shuffle(found)
        cases += found[:1]
    roles = {"prompter": "user", "assistant": "assistant"}
    return [
        ([{"role": roles[one["role"]], "content": one["text"]} for one in path[:-1]], path[-1]["text"].strip())
        for path in cases[:CASES]
    ]


def _walk(node: dict, path: list[dict], found: list[list[dict]]) -> None:
    path = [*path, node]
    for reply in node.get("replies", []):
        _walk(reply, path, found)
    short = sum(len(one["text"]) for one in path[:-1]) < CONTEXT_CHARACTERS and len(node["text"]) < 500
    if node["role"] == "prompter" and len(path) > 2 and short:
        found.append(path)


def _likelihood(engine, way, cases) -> tuple[float, float]:
    """Negative log-likelihood in nats of what people wrote, with the end of the turn: a token, and the first one."""
    import torch

    total = count = first = 0.0
    for turns, real in cases:
        rendered = engine.render(way(turns))
        ends = rendered.ends or {engine._tokenizer.eos_token_id}
        answer = [*engine._tokenizer(real, add_special_tokens=False).input_ids, min(ends)]
        with torch.inference_mode():
            ids = torch.tensor([rendered.token_ids + answer], device=engine._device)
            logits = engine._model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]
        said = torch.log_softmax(logits.float(), -1)[range(len(answer)), answer]
        total, count, first = total - said.sum().item(), count + len(answer), first - said[0].item()
    return total / count, first / len(cases)


def _written(engine, way, cases) -> list[str]:
    import torch

    torch.manual_seed(0)
    texts, open_ones = dict.fromkeys(range(len(cases)), ""), set(range(len(cases)))
    for number, (turns, _) in enumerate(cases):
        engine.submit(number, engine.render(way(turns)), SAMPLING)
    while open_ones:
        for chunk in engine.read(5):
            texts[chunk.key] += chunk.text
            if chunk.finish:
                open_ones.discard(chunk.key)
    return [text.strip() for text in texts.values()]


def _row(name: str, likely: tuple[float, float] | None, cases, texts: list[str]) -> None:
    def share(marks) -> str:
        return f"{100 * sum(map(bool, marks)) / len(texts):.0f} %"

    token, first = (f"{one:.2f}" for one in likely) if likely else ("", "")
    print(
        f"{name:<34}{token:>14}{first:>7}"
        f"{share(ASSISTANT.search(text) or len(ITEM.findall(text)) > 2 for text in texts):>11}"
        f"{share('?' in text for text in texts):>6}"
        f"{share(_copies(text, turns) for text, (turns, _) in zip(texts, cases, strict=True)):>8}"
        f"{share(NAMED.match(text) for text in texts):>7}{share(not text for text in texts):>7}"
        f"{sum(map(len, texts)) / len(texts):>9.0f}"
    )
    sys.stdout.flush()


def _copies(text: str, turns: Turns) -> bool:
    """Whether most of it stands in an earlier turn."""
    words = text.lower().split()
    return any(
        difflib.SequenceMatcher(None, words, turn["content"].lower().split(), autojunk=False).ratio() > 0.7
        for turn in turns
    )
