"""Versions of a dataset beside each other: what came and went between two exports, and one without a person's work."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from django.db import connection

from annotate import demonstrations, derive, exports
from annotate.datasets import filters, persons, shards, snapshots
from annotate.datasets.demonstrations import DEMONSTRATIONS
from annotate.datasets.reading import read
from annotate.datasets.shapes import SPLITS
from annotate.datasets.splits import Splitter
from annotate.errors import Invalid
from annotate.models import Export, Project, User

AT_ONCE = 20_000
"""Keys that are looked up by one statement."""

APART = ("counts", "files", "digest", "parents", "filters", "personal_data")
"""Parts of manifests that differ with every change of the lines, or are compared by themselves."""

RANKINGS = """
SELECT ranking.id, ranking.created_at AS made_at, ranking.current, comparison.closed_at, conversation.family,
    conversation.trainer_id AS author_id, member.author_id AS family_author_id
FROM unnest(%(ids)s::bigint[]) wanted(id)
JOIN annotate_ranking ranking ON ranking.id = wanted.id
JOIN annotate_comparison comparison ON comparison.id = ranking.comparison_id
JOIN annotate_message message ON message.id = comparison.message_id
JOIN annotate_conversation conversation ON conversation.id = message.conversation_id
LEFT JOIN annotate_familymember member
    ON member.project_id = conversation.project_id AND member.member = conversation.family
"""

CONVERSATIONS = """
SELECT conversation.id, conversation.finished_at AS made_at, conversation.review_state, conversation.revises_id,
    conversation.family, conversation.trainer_id AS author_id,
    member.author_id AS family_author_id,
    (SELECT max(review.created_at) FROM annotate_review review
     WHERE review.current AND review.conversation_id = conversation.id) AS reviewed_at
FROM unnest(%(ids)s::bigint[]) wanted(id)
JOIN annotate_conversation conversation ON conversation.id = wanted.id
LEFT JOIN annotate_familymember member
    ON member.project_id = conversation.project_id AND member.member = conversation.family
"""

PROMPTS = """
SELECT prompt.id, prompt.created_at AS made_at, prompt.active, prompt.family, NULL AS author_id,
    NULL AS family_author_id
FROM unnest(%(ids)s::bigint[]) wanted(id) JOIN annotate_prompt prompt ON prompt.id = wanted.id
"""

READ_BY = {
    "comparisons": RANKINGS,
    "demonstrations": CONVERSATIONS,
    "conversations": CONVERSATIONS,
    "prompts": PROMPTS,
}

NOUNS = {
    "comparisons": "rankings",
    "demonstrations": "conversations",
    "conversations": "conversations",
    "prompts": "prompts",
}
"""What the keys of an export are of."""

GONE = "not in the record any more"
PERSON = "of a person who is left out"
PERSON_BACK = "of a person who is no longer left out"
OTHERWISE = "asked for otherwise"
UNCOUNTED = "does not count any more"
COUNTED = "counts since then"


@dataclass
class Changes:
    """What came or went: the keys, each with the split that it belongs to and why, as far as that can be told."""

    keys: list[int] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, key: int, split: str, reason: str) -> None:
        """Note one."""
        self.keys.append(key)
        self.splits.append(split)
        self.reasons.append(reason)

    def by_split(self) -> dict[str, int]:
        """How many of each split."""
        counted = Counter(self.splits)
        return {name: counted[name] for name in (*SPLITS, "") if counted[name]}

    def by_reason(self) -> dict[str, int]:
        """How many for each reason, the most first."""
        return dict(Counter(self.reasons).most_common())

    def as_json(self) -> dict:
        """For programs: all of it."""
        rows = zip(self.keys, self.splits, self.reasons, strict=True)
        return {
            "count": len(self.keys),
            "by_split": self.by_split(),
            "by_reason": self.by_reason(),
            "keys": [{"key": key, "split": split, "why": why} for key, split, why in rows],
        }


@dataclass
class Difference:
    """What is different between two exports of the same thing."""

    a: Export
    b: Export
    same: int
    came: Changes
    went: Changes
    manifest: dict[str, tuple]
    """What their manifests say otherwise, by the names that lead there."""

    def as_json(self) -> dict:
        """For programs."""
        return {
            "a": self.a.pk,
            "b": self.b.pk,
            "what": self.a.what,
            "keys_of": NOUNS[self.a.what],
            "same": self.same,
            "came": self.came.as_json(),
            "went": self.went.as_json(),
            "manifest": {name: {"a": a, "b": b} for name, (a, b) in self.manifest.items()},
        }


def difference(a: Export, b: Export) -> Difference:
    """What came and went from export `a` to export `b`. Raises Invalid where they are not of the same thing or one has
    no keys."""
    if (a.project_id, a.what) != (b.project_id, b.what):
        raise Invalid(
            f"Export {a.pk} holds {a.what} of {a.project.slug}, export {b.pk} {b.what} of {b.project.slug}: only two "
            "of the same thing can be compared."
        )
    keys_of_a, keys_of_b = set(snapshots.keys_of(a)), set(snapshots.keys_of(b))
    came, went = sorted(keys_of_b - keys_of_a), sorted(keys_of_a - keys_of_b)
    return Difference(
        a=a,
        b=b,
        same=len(keys_of_a & keys_of_b),
        came=_explained(a, came, _came(a, b, came)),
        went=_explained(a, went, _went(a, b, went)),
        manifest=dict(_differing(_compared(a.manifest), _compared(b.manifest))),
    )


def _explained(a: Export, keys: list[int], why: Callable[[dict], str]) -> Changes:
    """Each of the keys with its split and the reason that `why` gives for its row."""
    changes, split = Changes(), Splitter(a.project).of
    for begin in range(0, len(keys), AT_ONCE):
        chunk = keys[begin : begin + AT_ONCE]
        rows = _rows(a, chunk)
        for key in chunk:
            row = rows.get(key)
            if row is None:
                changes.add(key, "", GONE)
            else:
                changes.add(key, split(row["family"], row["author_id"], row["family_author_id"]), why(row))
    return changes


def _rows(a: Export, keys: list[int]) -> dict[int, dict]:
    with connection.cursor() as cursor:
        rows = {row["id"]: row for row in read(cursor, READ_BY[a.what], keys)}
    if a.what == DEMONSTRATIONS.name:
        superseded = demonstrations.written(a.project).filter(pk__in=rows, superseded=True)
        for pk in superseded.values_list("pk", flat=True):
            rows[pk]["superseded"] = True
    return rows


def _came(a: Export, b: Export, keys: list[int]) -> Callable[[dict], str]:
    """Why a row is in `b` and was not in `a`."""
    theirs = _made_by(a, _without(a) - _without(b), keys)
    otherwise = a.filters != b.filters

    def why(row: dict) -> str:
        if row["id"] in theirs:
            return PERSON_BACK
        if row["made_at"] and row["made_at"] > a.created_at:
            return "a newer version" if row.get("revises_id") else "new"
        if row.get("reviewed_at") and row["reviewed_at"] > a.created_at:
            return "reviewed since then"
        if row.get("closed_at") and row["closed_at"] > a.created_at:
            return "its comparison was closed since then"
        return OTHERWISE if otherwise else COUNTED

    return why


def _went(a: Export, b: Export, keys: list[int]) -> Callable[[dict], str]:
    """Why a row was in `a` and is not in `b`."""
    theirs = _made_by(a, _without(b) - _without(a), keys)
    otherwise = a.filters != b.filters

    def why(row: dict) -> str:
        if row["id"] in theirs:
            return PERSON
        if row.get("superseded") or row.get("current") is False:
            return "superseded by a newer version"
        if row.get("review_state") == "returned":
            return "returned by a reviewer"
        if row.get("active") is False:
            return "made inactive"
        return OTHERWISE if otherwise else UNCOUNTED

    return why


def _without(export: Export) -> frozenset[str]:
    return frozenset(export.filters.get("without", ()))


def _made_by(export: Export, pseudonyms: frozenset[str], keys: list[int]) -> set[int]:
    """Which of the keys are the work of these people."""
    made: set[int] = set()
    if pseudonyms and keys:
        what = snapshots.named(export.what)
        for user_id in persons.named(project=export.project, pseudonyms=pseudonyms):
            made |= what.made_by(export.project, array("q", keys), user_id)
    return made


def _compared(manifest: dict) -> dict:
    kept = {name: value for name, value in manifest.items() if name not in APART}
    return kept | {f"filters.{name}": value for name, value in manifest.get("filters", {}).items()}


def _differing(a, b, name: str = "") -> Iterator[tuple[str, tuple]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _differing(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    elif a != b:
        yield name, (a, b)


# --- Without a person ------------------------------------------------------------------------------------------------


def person(project: Project, text: str) -> User:
    """The person of this pseudonym, number or e-mail address. Raises Invalid where the project knows nobody such."""
    text = text.strip()
    user = None
    if len(text) == 16 and set(text.lower()) <= set("0123456789abcdef"):
        (user_id,) = persons.named(project=project, pseudonyms=[text.lower()])
        return User.objects.get(pk=user_id)
    if text.isdecimal() and len(text) < 19:
        user = User.objects.filter(pk=int(text)).first()
    elif "@" in text and "\0" not in text:
        user = User.objects.filter(email__iexact=text).first()
    if user is None:
        raise Invalid(f"There is nobody {text!r}. Name a pseudonym of an export, a number of a user, or an address.")
    # Who has nothing to do with the project would be left out of nothing.
    persons.named(project=project, pseudonyms=[derive.pseudonym(project.secret, user.pk)])
    return user


@dataclass
class Left:
    """An export, and the one that was made of it without a person's work."""

    parent: Export
    made: Export | None
    """None where nothing in it was theirs, or all of it was."""
    theirs: int
    """How many of its keys were theirs."""
    ranks: bool
    """Whether it holds ranks to which rankings of theirs led, beside keys that are not theirs."""
    difference: Difference | None

    def as_json(self) -> dict:
        """For programs."""
        return {
            "parent": self.parent.pk,
            "made": self.made.pk if self.made else None,
            "keys_of": NOUNS[self.parent.what],
            "theirs": self.theirs,
            "ranks": self.ranks,
            "difference": self.difference.as_json() if self.difference else None,
        }


def without(
    parent: Export, *, user: User, created_by: User | None = None, progress: snapshots.Progress | None = None
) -> Left:
    """Make a new export of what is in this one, less what the person made.

    Nothing comes in that was not in it. Raises Invalid where it was made before keys were kept, or something of theirs
    is in a set that is mixed in.
    """
    project, what = parent.project, snapshots.named(parent.what)
    keys = snapshots.keys_of(parent)
    theirs = what.made_by(project, keys, user.pk)
    wanted = filters.parse(parent.what, parent.filters)
    _check_mixed_in(parent, wanted, user)
    pseudonym = derive.pseudonym(project.secret, user.pk)
    ranks = pseudonym not in wanted.without and what.of(parent.format).ranked_by(project, keys, user.pk)
    if not (theirs or ranks) or len(theirs) == len(set(keys)):
        return Left(parent=parent, made=None, theirs=len(theirs), ranks=ranks, difference=None)
    made = snapshots.export(
        what,
        project=project,
        format=parent.format,
        filters=replace(wanted, without=wanted.without | {pseudonym}),
        files=shards.of(parent.files),
        parents=[parent],
        keys=array("q", (key for key in keys if key not in theirs)),
        created_by=created_by,
        **({"progress": progress} if progress else {}),
    )
    return Left(parent=parent, made=made, theirs=len(theirs), ranks=ranks, difference=difference(parent, made))


def _check_mixed_in(parent: Export, wanted: filters.Filters, user: User) -> None:
    for mix in getattr(wanted, "mix", ()):
        if not mix.name.startswith("export:"):
            continue
        mixed = exports.named(mix.name.removeprefix("export:"))
        made_by = snapshots.named(mixed.what).made_by
        if made_by(mixed.project, snapshots.keys_of(mixed), user.pk):
            raise Invalid(
                f"Export {mixed.pk}, which is mixed into export {parent.pk}, has work of this person. Make it without "
                f"them first (--of {mixed.pk}), and then a new export that mixes in the new one."
            )
