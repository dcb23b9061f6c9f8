"""How alike texts are: near-duplicates among many, and the distance between two.

A text becomes a few keys (MinHash in bands) of which near-duplicates share at least one with near certainty and others
none; an index over arrays finds who shares one, and the texts themselves decide. Keys are stored, so that what makes
them may not change without filling them again: that holds for the constants here, and for the version of rensa.
"""

import hashlib
import struct
from collections.abc import Collection, Iterable

import rensa
from django.db import connection
from rapidfuzz.distance import Levenshtein

from annotate.models import Conversation, Message, Project, Prompt

LIKE = 0.8
"""From which likeness on two texts are near-duplicates."""

SHORT = 40
"""Characters below which only the same text is near: there, one changed word already changes most of it."""

LONG = 100_000
"""Characters of a text that are looked at, from its start."""

SHINGLE = 5
"""Characters of one shingle."""

BANDS, ROWS = 12, 5
"""A pair of likeness s shares a key with probability 1 - (1 - s^ROWS)^BANDS: 0.99 at 0.8, 0.32 at 0.5, 10^-4 at 0.1."""

PLACES = [(at, b"%d" % at) for at in range(0, BANDS * ROWS, ROWS)]
"""Where each band begins, and what tells its keys from those of others."""

MOST = 3
"""How many near-duplicates are named."""

SHARERS = 200
"""How many that share one key are looked at. More means boilerplate that everything shares."""

READ = 10
"""Of how many of those, the ones that share most keys, the texts are read."""

KEPT = 1_000
"""Characters of a text whose shingles are kept while it is compared with others."""

PIECE = 20_000
"""Characters up to which the distance of any two texts is exact."""

FEW = 5_000
"""Changes up to which it is exact for texts of every length."""

# One look into the index a key. Asked for all keys at once (&&), the planner expects a share of the table that makes
# it read all of it; OFFSET 0 keeps it from taking an index of the project instead.
SHARING = """
WITH found AS (
    SELECT one.id FROM unnest(%(keys)s::bigint[]) wanted(key), LATERAL (
        SELECT sharing.id FROM (
            SELECT id, project_id FROM {table} WHERE near @> ARRAY[wanted.key] OFFSET 0) sharing
        WHERE sharing.project_id = %(project)s AND sharing.id <> ALL(%(besides)s::bigint[])
        LIMIT %(sharers)s) one
)
SELECT id FROM found GROUP BY id ORDER BY count(*) DESC, id LIMIT %(read)s
"""


def bands(text: str) -> list[int]:
    """The keys of a text: signed integers of 64 bits, BANDS of them, one for a short text and none for an empty one."""
    plain = _plain(text)
    if not plain:
        return []
    if len(plain) < SHORT:
        return [_key(plain.encode("utf-8", "surrogatepass"), b"short")]
    sketch = rensa.RMinHash(num_perm=BANDS * ROWS, seed=1)
    sketch.update(_shingles(plain))
    rows = struct.pack(f"<{BANDS * ROWS}I", *sketch.digest())
    return [_key(rows[4 * at : 4 * (at + ROWS)], place) for at, place in PLACES]


def likeness(a: str, b: str) -> float:
    """How much two texts have in common, 0 to 1, case and white space aside: the share of common shingles (Jaccard).

    Where one is short, 1 for the same text and 0 for any other.
    """
    return Apart(a).likeness(Apart(b))


class Apart:
    """A text that is compared with many: taken apart once."""

    __slots__ = ("_shingles", "plain")

    def __init__(self, text: str):
        self.plain = _plain(text)
        self._shingles: set[str] | None = None

    def likeness(self, other: "Apart") -> float:
        """As `likeness` of the two texts."""
        if self.plain == other.plain:
            return 1.0
        if min(len(self.plain), len(other.plain)) < SHORT:
            return 0.0
        ours, theirs = self.shingles(), other.shingles()
        common = len(ours & theirs)
        return common / (len(ours) + len(theirs) - common)

    def shingles(self) -> set[str]:
        """The shingles of the text. Those of long ones are not kept: hundreds of them would fill the memory."""
        if self._shingles is not None:
            return self._shingles
        shingles = set(_shingles(self.plain))
        if len(self.plain) <= KEPT:
            self._shingles = shingles
        return shingles


def distance(a: str, b: str) -> float:
    """The changes from one text to the other, by characters (Levenshtein), over the longer length: 0 to 1.

    Exact up to PIECE characters, and beyond where at most FEW of them changed. Else both texts are cut into as many
    equal pieces and the changes of the pieces are added up: never too few, and too many only by what moved from one
    piece into another.
    """
    longer = max(len(a), len(b))
    if not longer:
        return 0.0
    if longer > PIECE:
        changes = Levenshtein.distance(a, b, score_cutoff=FEW)
        if changes > FEW:
            pieces = -(-longer // PIECE)
            changes = sum(map(Levenshtein.distance, _cut(a, pieces), _cut(b, pieces)))
    else:
        changes = Levenshtein.distance(a, b)
    return changes / longer


def whole(texts: Iterable[str]) -> str:
    """The text of a whole conversation, from those of its messages but the system message, which others share."""
    return "\n\n".join(texts)


def conversations_near(*, project: Project, text: str, besides: Collection[int] = ()) -> list[Conversation]:
    """Finished conversations of the project whose whole text (see `whole`) is near to this one.

    At most MOST, the nearest first, without the ids `besides`. Only those are found that have their keys in `near`,
    which they get when they are finished.
    """
    texts: dict[int, list[str]] = {pk: [] for pk in _sharing(Conversation, project, text, besides)}
    said = Message.objects.filter(conversation__in=texts).exclude(role=Message.ChatRole.SYSTEM)
    for pk, part in said.order_by("conversation", "position").values_list("conversation_id", "text"):
        texts[pk].append(part)
    nearest = _nearest(text, {pk: whole(parts) for pk, parts in texts.items()})
    found = Conversation.objects.select_related("trainer", "prompt").in_bulk(nearest)
    return [found[pk] for pk in nearest]


def prompts_near(*, project: Project, text: str, besides: Collection[int] = ()) -> list[Prompt]:
    """Prompts of the project that are near to this text, at most MOST, the nearest first, without the ids `besides`."""
    found = Prompt.objects.in_bulk(_sharing(Prompt, project, text, besides))
    nearest = _nearest(text, {pk: prompt.text for pk, prompt in found.items()})
    return [found[pk] for pk in nearest]


def _plain(text: str) -> str:
    return " ".join(text[:LONG].casefold().split())


def _shingles(plain: str) -> list[str]:
    return [plain[at : at + SHINGLE] for at in range(len(plain) - SHINGLE + 1)]


def _key(data: bytes, place: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=place).digest(), "little", signed=True)


def _nearest(text: str, others: dict[int, str]) -> list[int]:
    """Which of the others are near to the text, the nearest first."""
    apart = Apart(text)
    near = {pk: alike for pk, other in others.items() if (alike := apart.likeness(Apart(other))) >= LIKE}
    return sorted(near, key=lambda pk: (-near[pk], pk))[:MOST]


def _sharing(
    table: type[Conversation] | type[Prompt], project: Project, text: str, besides: Collection[int]
) -> list[int]:
    """The ids of at most READ rows that share keys with the text, those that share most first."""
    with connection.cursor() as cursor:
        cursor.execute(
            SHARING.format(table=table._meta.db_table),
            {
                "keys": bands(text),
                "project": project.pk,
                "besides": list(besides),
                "sharers": SHARERS,
                "read": READ,
            },
        )
        return [pk for (pk,) in cursor.fetchall()]


def _cut(text: str, pieces: int) -> list[str]:
    return [text[len(text) * at // pieces : len(text) * (at + 1) // pieces] for at in range(pieces)]
