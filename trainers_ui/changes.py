"""What changed from one text to another, word by word, and from one version of a conversation to the next."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

# A word carries the white space behind it: white space alone would match everywhere.
WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")
LINE = re.compile(r"[^\n]*\n+|[^\n]+")

MOST_PAIRS = 1_000_000
"""Pairs of words that are compared: a tenth of a second. Longer texts are compared line by line."""

CRUMB = 8
"""Unchanged characters between two changes that say less than they disturb."""

LEFT_OUT = 160
"""Unchanged characters beyond which the middle of a long stretch is left out."""


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of text: `same`, `added` or `gone`."""

    kind: str
    text: str


def between(before: str, after: str) -> list[Change]:
    """The stretches of both texts in their order; those that are the same once."""
    old, new = WORD.findall(before), WORD.findall(after)
    if len(old) * len(new) > MOST_PAIRS:
        old, new = LINE.findall(before), LINE.findall(after)
    if len(old) * len(new) > MOST_PAIRS:
        return [Change("gone", before), Change("added", after)]
    found: list[Change] = []
    for gone, added in _stretches(old, new):
        if gone == added:
            found.append(Change("same", added))
            continue
        found += [Change(kind, text) for kind, text in (("gone", gone), ("added", added)) if text]
    return found


def _stretches(old: list[str], new: list[str]) -> list[tuple[str, str]]:
    """What stood and what stands, stretch by stretch; crumbs between two changes belong to them."""
    opcodes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    pairs = [("".join(old[a:b]), "".join(new[c:d]), what == "equal") for what, a, b, c, d in opcodes]
    merged: list[tuple[str, str]] = []
    joins = False
    for at, (gone, added, same) in enumerate(pairs):
        crumb = same and 0 < at < len(pairs) - 1 and len(added.strip()) <= CRUMB
        if merged and (joins or crumb):
            merged[-1] = (merged[-1][0] + gone, merged[-1][1] + added)
        else:
            merged.append((gone, added))
        joins = crumb
    return merged


def shown(before: str, after: str) -> SafeString:
    """The changes as HTML: `<del>` and `<ins>`, everything escaped. Long stretches that are the same are cut."""
    changes = between(before.strip(), after.strip())
    last = len(changes) - 1
    return mark_safe(  # noqa: S308 - every part is escaped
        "".join(_html(change, first=at == 0, last=at == last) for at, change in enumerate(changes))
    )


def _html(change: Change, *, first: bool, last: bool) -> str:
    if change.kind == "gone":
        return f'<del><span class="unseen">[taken out: </span>{escape(change.text)}<span class="unseen">]</span></del>'
    if change.kind == "added":
        return f'<ins><span class="unseen">[put in: </span>{escape(change.text)}<span class="unseen">]</span></ins>'
    text = change.text
    if (first and last) or len(text) <= 2 * LEFT_OUT:
        return escape(text)
    head = "" if first else text[:LEFT_OUT]
    tail = "" if last else text[-LEFT_OUT:]
    return f'{escape(head)}<span class="gap"> … </span>{escape(tail)}'


@dataclass(frozen=True, slots=True)
class Pair:
    """A turn of the newer version beside the one of the older that it came of; one of them may be missing."""

    old: object | None
    new: object | None

    @property
    def changed(self) -> bool:
        """Whether the text of a turn differs that both versions have."""
        return self.old is not None and self.new is not None and self.old.text.strip() != self.new.text.strip()


def aligned(before: Sequence, after: Sequence) -> list[Pair]:
    """The messages of two versions side by side: equal ones together, others with one of their role at their place."""
    old, new = ([(one.role, one.text.strip()) for one in messages] for messages in (before, after))
    pairs: list[Pair] = []
    for what, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            pairs += [Pair(left, right) for left, right in zip(before[a:b], after[c:d], strict=True)]
        else:
            pairs += _side_by_side(list(before[a:b]), list(after[c:d]))
    return pairs


def _side_by_side(old: list, new: list) -> list[Pair]:
    pairs = []
    for message in new:
        at = next((index for index, one in enumerate(old) if one.role == message.role), None)
        if at is None:
            pairs.append(Pair(None, message))
            continue
        pairs += [Pair(gone, None) for gone in old[:at]]
        pairs.append(Pair(old[at], message))
        del old[: at + 1]
    return pairs + [Pair(gone, None) for gone in old]
