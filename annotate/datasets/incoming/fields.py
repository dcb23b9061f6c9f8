"""The fields of one row, read with a reason where they are not what they should be."""

import json
import math
import unicodedata

from annotate import manuscripts
from annotate.datasets.incoming.items import Bad, Talk, Turn
from annotate.datasets.incoming.mends import Mending
from annotate.datasets.openings import UNSEEN
from annotate.models import Comparison

ID_CHARACTERS = 200
"""The longest name of a row, a message or an answer in its source."""

USE_CASE_CHARACTERS = 40
"""The longest name of a use case; a longer one is kept as a fact only."""

FACT_CHARACTERS = 1000
"""Where a text that a row says beside its turns is cut."""

DEEPEST = 50
"""How deep what a message says beside its text may be nested."""

ID_KEYS = ("id", "conversation_id")
"""Where the name of a row may stand; the first one that is there counts. A prompt's id comes back in every row with
that prompt, so it names none."""

USE_CASE_KEYS = ("use_case", "category")

MEDIA_KEYS = ("image", "images", "video", "videos", "audio", "audios")
"""Where rows name what is to be seen or heard beside the words."""

UNWANTED_KEYS = ("label", "kto_tag")
"""Where unpaired preferences say whether an answer is a good one."""


def an_object(value) -> dict:
    """The row itself. Raises Bad where it is none."""
    if not isinstance(value, dict):
        raise Bad("it is not an object")
    return value


def clean(value: str, mends: Mending) -> str:
    """The text as a message keeps it; empty where nothing of it can be seen."""
    if "\x00" in value:
        mends.note("dropped_nul")
    # Most texts need no cleaning, and a look at their first character says that they are seen: files hold millions.
    text = (
        value if value.isascii() and "\r" not in value and "\x00" not in value else manuscripts.clean(value)
    ).strip()
    if text[:1].isalnum() or any(unicodedata.category(character) not in UNSEEN for character in text):
        return text
    return ""


def text(row: dict, key: str, mends: Mending) -> str:
    """A field that is a text; empty where it is missing or null."""
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Bad(f"{key} is not a text")
    return clean(value, mends)


def first_text(row: dict, keys: tuple[str, ...], mends: Mending) -> str:
    """The first of these fields that is there."""
    key = first_key(row, keys)
    return "" if key is None else text(row, key, mends)


def first_key(row: dict, keys: tuple[str, ...]) -> str | None:
    """The first of these fields that is there and not null."""
    for key in keys:
        if row.get(key) is not None:
            return key
    return None


def rank(value) -> int:
    """A place in an order. A whole number that a table keeps as 1.0 is one too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Bad("a rank is not a whole number")
    return value


def name(value) -> str:
    """An id as a text; empty where there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    found = str(value).replace("\x00", "").strip()
    if len(found) > ID_CHARACTERS:
        raise Bad(f"an id has more than {ID_CHARACTERS} characters")
    return found


def wanted(row: dict) -> None:
    """Raises Bad where the row says itself that its answer is a bad one, as rows of unpaired preferences do."""
    for key in UNWANTED_KEYS:
        if row.get(key) is False:
            raise Bad(f"{key} says that its answer is a bad one, which is neither a demonstration nor a comparison")


def talk(row: dict, turns: list[Turn], taken: set[str], *, suffix: str = "", ids: tuple[str, ...] = ID_KEYS) -> Talk:
    """The conversation of a row, of which the fields `taken` became turns and the others are kept beside them."""
    if any(row.get(key) for key in MEDIA_KEYS):
        raise Bad("it comes with a picture, a film or a sound, which no conversation here can hold")
    key = next((key for key in ids if name(row.get(key))), None)
    split, use_case = row.get("split"), _use_case(row)
    gone = taken | ({key} if key else set()) | ({"split"} if isinstance(split, str) else set())
    return Talk(
        turns=turns,
        source_id=name(f"{name(row[key])}{suffix}") if key else "",
        facts=scalars(row, gone) or None,
        split=short(split) if isinstance(split, str) else "",
        use_case=use_case,
    )


def uncertain(row: dict) -> bool:
    """Whether the row is of an export of ours, of a comparison that was not drawn at random."""
    return row.get("selection") == Comparison.Selection.UNCERTAIN


def _use_case(row: dict) -> str:
    for key in USE_CASE_KEYS:
        value = row.get(key)
        if isinstance(value, str) and 0 < len(found := short(value)) <= USE_CASE_CHARACTERS:
            return found
    return ""


def short(value: str) -> str:
    """A text that is no message: without NUL, stripped, cut."""
    return value.replace("\x00", "").strip()[:FACT_CHARACTERS]


def scalars(row: dict, gone: set[str]) -> dict:
    """What a row says in single values beside the fields that are gone from it."""
    kept = {}
    for key, value in row.items():
        if key in gone:
            continue
        if isinstance(value, str):
            value = short(value)
            if value:
                kept[short(key)] = value
        elif isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            kept[short(key)] = value
    return kept


def whole(row: dict, gone: frozenset[str]) -> dict:
    """All that a row says beside the fields that are gone from it, as it stands there, lists and objects too."""
    kept = {}
    for key, value in row.items():
        if key in gone:
            continue
        if isinstance(value, str):
            value = value.replace("\x00", "")
        elif isinstance(value, dict | list):
            value = _nested(key, value)
        kept[key.replace("\x00", "")] = value
    return kept


def _nested(key: str, value):
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise Bad(f"{short(key)[:40]} is nested too deep, or holds a number that is none") from None
    if written.count("[") + written.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise Bad(f"{short(key)[:40]} is nested more than {DEEPEST} deep")
    if "\\u0000" not in written:
        return value
    return _without_nul(value)


def _depth(value) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inside = [list(one.values()) if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for held in inside for one in held]
    return depth


def _without_nul(value):
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [_without_nul(one) for one in value]
    if isinstance(value, dict):
        return {key.replace("\x00", ""): _without_nul(one) for key, one in value.items()}
    return value
