"""What a model that thinks first wrote before its answer, told apart from the answer by the marks around it."""

import re
from dataclasses import dataclass, field

TEXT, THOUGHT, NOTHING = "text", "thought", "nothing"

FAMILIES = (
    {"<think>": THOUGHT, "</think>": TEXT},
    {"[THINK]": THOUGHT, "[/THINK]": TEXT},
    {"<|channel>thought": THOUGHT, "<channel|>": TEXT},
    {
        "<|channel|>analysis<|message|>": THOUGHT,
        "<|channel|>commentary<|message|>": THOUGHT,
        "<|channel|>final<|message|>": TEXT,
        # What stands between two messages of one turn.
        "<|end|>": NOTHING,
    },
)
"""The marks that models use, a family each, and what follows each mark."""

PART = re.compile(r"<[^<>\s]+>|\[/?THINK\]")
"""What of a mark a tokenizer may have as a token."""
LONGEST_MARK = 16
"""In tokens, white space after it included."""


@dataclass(frozen=True)
class Marks:
    """The marks of a model and what follows each; empty for one that does not think.

    `shown` are those parts of them, by token id, that are left out where tokens become text. Where all parts are such
    tokens, which nobody asks a model to write about, marks count `everywhere`, else until the answer's first word.
    """

    after: dict[str, str] = field(default_factory=dict)
    shown: dict[int, str] = field(default_factory=dict)
    everywhere: bool = False


def marks_of(tokenizer) -> Marks:
    """The marks of those families that a transformers tokenizer has as tokens, or its chat template in its text."""
    tokens, template = tokenizer.get_added_vocab(), tokenizer.get_chat_template()
    after = {}
    for family in FAMILIES:
        if all(part in tokens or part in template for part in _parts(family)):
            after |= family
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    parts = _parts(after)
    shown = {special[part]: part for part in parts if part in special}
    return Marks(after, shown, everywhere=0 < len(parts) == len(shown))


def _parts(marks: dict[str, str]) -> set[str]:
    return {part for mark in marks for part in PART.findall(mark)}


ANY = Marks({mark: after for family in FAMILIES for mark, after in family.items()})
"""For servers, which do not tell which marks their model has."""


def left_open(tokenizer, prompt: list[int], marks: Marks) -> bool:
    """Whether a prompt ends inside a thought, as with templates that open one for the model."""
    end = tokenizer.decode(prompt[-LONGEST_MARK:], skip_special_tokens=False).rstrip() if marks.after else ""
    return any(end.endswith(mark) for mark, after in marks.after.items() if after == THOUGHT)


class Thoughts:
    """Splits one text, as it comes in pieces, into the answer and the thought before it.

    Nothing of a mark is handed out, and no white space beside one.
    """

    def __init__(self, marks: Marks, *, inside: bool = False):
        self._marks, self._everywhere = marks.after, marks.everywhere
        self._now = THOUGHT if inside else TEXT
        self._fresh = inside  # what comes next follows a mark
        self._over = not self._marks  # no mark counts any more
        self._held = ""  # what may be the beginning of a mark, or white space before one
        self._out = {TEXT: "", THOUGHT: "", NOTHING: ""}
        self._begun: set[str] = set()  # of which something was handed out

    def add(self, piece: str) -> tuple[str, str]:
        """The words of the answer, and of the thought, that are certain with this piece."""
        if self._over:
            return piece, ""
        if self._holds_no_mark(piece):
            return (piece if self._now == TEXT else ""), (piece if self._now == THOUGHT else "")
        self._held += piece
        while found := self._next_mark():
            self._say(self._held[: found.start()])
            self._held = self._held[found.end() :]
            # A thought that another family's mark is written about is not ended by it.
            self._marks = next(family for family in FAMILIES if found[1] in family)
            self._now, self._fresh = self._marks[found[1]], True
        certain = len(self._held) - self._uncertain()
        self._say(self._held[:certain])
        self._held = self._held[certain:]
        return self._taken()

    def finish(self, piece: str = "") -> tuple[str, str]:
        """The same for the last piece, and all that was held back. A thought that was never ended stays one."""
        text, thought = self.add(piece)
        self._say(self._held if self._now == TEXT else self._held.rstrip())
        self._held = ""
        rest = self._taken()
        return text + rest[0], thought + rest[1]

    def _holds_no_mark(self, piece: str) -> bool:
        """Whether it is words in the middle of something, as most are: it is not looked at any further then."""
        if self._held or self._fresh or self._now not in self._begun or not piece or piece[-1].isspace():
            return False
        return not any(mark[0] in piece for mark in self._marks)

    def _next_mark(self) -> re.Match | None:
        if not self._held or self._over:
            return None
        mark = rf"\s*({'|'.join(re.escape(mark) for mark in self._marks)})"
        find = re.match if self._now == TEXT and not self._everywhere else re.search
        return find(mark, self._held)

    def _uncertain(self) -> int:
        """How many characters at the end of what is held may still turn out to belong to a mark."""
        if self._now == TEXT and not self._everywhere:
            said = self._held.lstrip()
            return len(self._held) if any(mark.startswith(said) for mark in self._marks) else 0
        longest = min(len(self._held), max(map(len, self._marks)) - 1)
        ends = (self._held[-count:] for count in range(longest, 0, -1))
        begun = next((end for end in ends if any(mark.startswith(end) for mark in self._marks)), "")
        return len(self._held) - len(self._held.removesuffix(begun).rstrip())

    def _say(self, words: str) -> None:
        if self._fresh:
            words = words.lstrip()
        if not words:
            return
        if self._fresh and self._now in self._begun:
            words = f"\n\n{words}"
        self._fresh = False
        self._begun.add(self._now)
        self._out[self._now] += words
        self._over = self._now == TEXT and not self._everywhere

    def _taken(self) -> tuple[str, str]:
        out, self._out = self._out, dict.fromkeys(self._out, "")
        return out[TEXT], out[THOUGHT]
