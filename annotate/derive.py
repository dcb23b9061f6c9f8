"""What derives from a project's secret, each by its label: draws, splits and pseudonyms.

All are HMAC-SHA256 of `label:value` under the secret, so that one tells nothing of another and all can be
made again as long as the secret stays.
"""

import hashlib
import hmac
import re

SPLITS = (("train", 0.90), ("validation", 0.95), ("test", 1.0))
"""Each split with the upper end of its share of the unit interval."""

HELD_OUT = "-"
"""What the name of a family begins with whose openings are near to those of two splits: it belongs to none."""

NOT_A_WORD = re.compile(r"[\W_]+")


def keyed(secret: str, label: str, value: str | int) -> str:
    """64 hexadecimal digits that depend on all three."""
    return hmac.digest(bytes.fromhex(secret), f"{label}:{value}".encode(), "sha256").hex()


def draw(secret: str, label: str, value: str | int, size: int) -> tuple[str, int]:
    """A uniform draw from `size` things (at least 1): its seed and the index drawn, from 0.

    The seed has 256 bits, so that the remainder favours no index by more than 2^-240.
    """
    seed = keyed(secret, label, value)
    return seed, int(seed, 16) % size


def pseudonym(secret: str, trainer_id: int) -> str:
    """The name of a trainer in this project's exports: 16 hexadecimal digits."""
    return keyed(secret, "trainer", trainer_id)[:16]


def split_of(secret: str, family: str) -> str:
    """The split of a prompt family, the same for ever: train (90 %), validation (5 %) or test (5 %), or held_out."""
    return "held_out" if family.startswith(HELD_OUT) else _split(keyed(secret, "split", family))


def split_of_author(secret: str, author_id: int) -> str:
    """The split of an author where a project splits by authors, the same for ever, in the same shares."""
    return _split(keyed(secret, "author", author_id))


def _split(seed: str) -> str:
    place = int(seed[:16], 16) / 2**64
    return next(name for name, upper in SPLITS if place < upper)


def held_out(value: str) -> str:
    """The name of a family that is held out, made from a value that is its own: as long as any other."""
    return HELD_OUT + digest_of(value)[:63]


def digest_of(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def family_of(text: str) -> str:
    """The family of an opening: texts that differ only in case, white space and punctuation share one."""
    words = NOT_A_WORD.sub(" ", text.casefold()).strip()
    return digest_of(words or text)
