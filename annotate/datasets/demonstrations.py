"""Demonstrations as training data: which written conversations count, and the whole line of each."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from itertools import islice

from django.db import connection
from django.db.models import Count, F, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast
from django.utils import timezone

from annotate import demonstrations, derive
from annotate.datasets import shapes
from annotate.datasets.demonstration_formats import FORMATS, alternates
from annotate.datasets.filters import INCLUDE, OF_STATE
from annotate.datasets.filters import Demonstrations as Filters
from annotate.datasets.tallies import WrittenTally
from annotate.datasets.what import What
from annotate.models import Completion, Conversation, Iteration, Message, Policy, Project, Review

CHUNK = 500
"""Conversations that are fetched at once: the memory that an export takes, whatever its length."""


def _written(project: Project, filters: Filters) -> QuerySet[Conversation]:
    """What was written in the round and time that are wanted, whether it counts or not."""
    found = demonstrations.written(project)
    if filters.iteration is not None:
        found = found.filter(iteration__number=filters.iteration)
    if filters.since is not None:
        found = found.filter(finished_at__gte=filters.since)
    return found


def conversations(*, project: Project, filters: Filters) -> QuerySet[Conversation]:
    """The conversations that count under these filters; split and sources are left to the lines."""
    found = _written(project, filters).filter(review_state__in=filters.states(project))
    if "superseded" not in filters.include:
        found = found.filter(superseded=False)
    if "surplus" not in filters.include:
        found = found.filter(late=False)
    return found


def left_out(project: Project, filters: Filters) -> dict[str, int]:
    """How many conversations of the round and time that are wanted do not count, by the first reason that holds."""
    reasons = dict.fromkeys(("superseded", "surplus", "returned", "unreviewed", "other_review_state"), 0)
    states = filters.states(project)
    rows = _written(project, filters).order_by().values("superseded", "late", "review_state")
    for row in rows.annotate(count=Count("pk")):
        if row["superseded"] and "superseded" not in filters.include:
            reasons["superseded"] += row["count"]
        elif row["late"] and "surplus" not in filters.include:
            reasons["surplus"] += row["count"]
        elif row["review_state"] not in states:
            reasons[OF_STATE.get(row["review_state"], "other_review_state")] += row["count"]
    return reasons | {"other_sources": 0}


def whole_rows(found: QuerySet[Conversation]) -> Iterator[dict]:
    """One row a conversation with all that its line needs, by id: its `said`, their `completions` and its `review`.

    The conversations come through a server-side cursor, what belongs to a chunk of them in one query each. A finished
    conversation and its messages never change, so that it does not matter when they are read.
    """
    rows = found.order_by("id").values(
        "id",
        "iteration_id",
        "trainer_id",
        "review_state",
        "revises_id",
        "forked_from_id",
        "prompt_id",
        "family",
        "finished_at",
        use_case=F("prompt__use_case"),
    )
    rows = rows.iterator(chunk_size=CHUNK)
    while chunk := list(islice(rows, CHUNK)):
        ids = [row["id"] for row in chunk]
        said = _said(ids)
        named = {message["completion_id"] for messages in said.values() for message in messages} - {None}
        named.update(pk for messages in said.values() for message in messages for pk in message["passed"])
        completions, reviews = _completions(named), _reviews(ids)
        for row in chunk:
            pk = row["id"]
            yield row | {"said": said[pk], "completions": completions, "review": reviews.get(pk)}


def _among(ids: Iterable[int]) -> RawSQL:
    """The ids as one parameter; a list of hundreds would be written out and read again at every query."""
    return RawSQL("SELECT unnest(%s::bigint[])", [list(ids)])


def _said(ids: list[int]) -> dict[int, list[dict]]:
    said: dict[int, list[dict]] = {pk: [] for pk in ids}
    messages = Message.objects.filter(conversation__in=_among(ids)).order_by("conversation_id", "position")
    counted = ("edit_distance", "active_seconds", "typed", "pasted", "taken")
    for message in messages.values(
        "conversation_id", "position", "role", "text", "source", "completion_id", "passed", *counted
    ):
        said[message["conversation_id"]].append(message)
    return said


def _completions(ids: Iterable[int]) -> dict[int, dict]:
    found = Completion.objects.filter(pk__in=_among(ids)).order_by()
    rows = found.values(
        "id",
        "text",
        "seed",
        "finish_reason",
        policy_id=F("request__policy_id"),
        sampling=Cast("request__sampling", TextField()),
        template_hash=F("request__template_hash"),
        hint=F("request__hint"),
    )
    return {row["id"]: row for row in rows}


def _reviews(ids: list[int]) -> dict[int, tuple[int, int]]:
    """By conversation its review and reviewer: the verdict on it, else the one with which a reviewer made it."""
    found: dict[int, tuple[int, int]] = {}
    verdicts = Review.objects.filter(Q(conversation__in=_among(ids)) | Q(edit__in=_among(ids)), current=True).order_by(
        "id"
    )
    for pk, reviewer, judged, made in verdicts.values_list("id", "reviewer_id", "conversation_id", "edit_id"):
        found[judged] = (pk, reviewer)
        found.setdefault(made, (pk, reviewer))
    return found


class Renderer:
    """Makes whole lines of one project's rows; remembers the names of its policies, rounds and people."""

    def __init__(self, project: Project):
        self.project = project
        self.policies = dict(Policy.objects.values_list("id", "name"))
        rounds = Iteration.objects.filter(project=project).values_list("id", "number", "guidelines__number")
        self.rounds = {pk: (number, guidelines) for pk, number, guidelines in rounds}
        self.pseudonyms: dict[int, str] = {}
        self.samplings: dict[str, dict] = {}

    def messages(self, row: dict) -> dict:
        """The line of a row of `whole_rows` in the format `messages`."""
        messages = [{"role": message["role"], "content": message["text"]} for message in row["said"]]
        iteration, guidelines = self.rounds[row["iteration_id"]]
        review_id, reviewer_id = row["review"] or (None, None)
        return {
            "messages": messages,
            "turns": [self._turn(message, row["completions"]) for message in row["said"]],
            "source": "demonstrations",
            "source_id": "",
            "source_split": "",
            "kind": "write",
            "conversation_id": row["id"],
            "project": self.project.slug,
            "iteration": iteration,
            "guidelines": guidelines,
            "trainer": self._pseudonym(row["trainer_id"]),
            "alternates": alternates(messages),
            "review_state": row["review_state"],
            "reviewer": None if reviewer_id is None else self._pseudonym(reviewer_id),
            "review_id": review_id,
            "revises": row["revises_id"],
            "forked_from": row["forked_from_id"],
            "prompt_id": row["prompt_id"],
            "use_case": row["use_case"] or "",
            "family": row["family"],
            "split": derive.split_of(self.project.secret, row["family"]),
            "finished_at": row["finished_at"].astimezone(UTC).isoformat(),
        }

    def _turn(self, message: dict, completions: dict[int, dict]) -> dict:
        suggested = message["completion_id"] is not None
        completion = completions[message["completion_id"]] if suggested else None
        return {
            "position": message["position"],
            "source": message["source"],
            "policy": self.policies[completion["policy_id"]] if suggested else None,
            "completion_id": message["completion_id"],
            "seed": completion["seed"] if suggested else None,
            "sampling": self._sampling(completion["sampling"]) if suggested else None,
            "template_hash": completion["template_hash"] if suggested else None,
            "finish_reason": completion["finish_reason"] if suggested else None,
            "suggestion": completion["text"] if suggested else None,
            "hint": completion["hint"] if suggested else None,
            "edit_distance": message["edit_distance"],
            "active_seconds": message["active_seconds"],
            "typed": message["typed"],
            "pasted": message["pasted"],
            "taken": message["taken"],
            "passed": [
                {"completion_id": pk, "text": completions[pk]["text"]} for pk in message["passed"] if pk in completions
            ],
        }

    def _sampling(self, text: str) -> dict:
        if text not in self.samplings:
            sampling = json.loads(text)
            self.samplings[text] = {name: sampling.get(name) for name in shapes.SAMPLING}
        return self.samplings[text]

    def _pseudonym(self, user_id: int) -> str:
        if user_id not in self.pseudonyms:
            self.pseudonyms[user_id] = derive.pseudonym(self.project.secret, user_id)
        return self.pseudonyms[user_id]


def _tally(project: Project, format: str, filters: Filters) -> WrittenTally:
    return WrittenTally(format=format, left_out=left_out(project, filters))


def _nothing(project: Project, filters: Filters) -> str:
    counts = left_out(project, filters)
    more = [name for name in INCLUDE["demonstrations"] if counts[name]]
    if not more:
        return "There is nothing to export: no conversation matches."
    told = ", ".join(f"{counts[name]:,} {name}" for name in more)
    if filters.review_states is not None:
        # There the states are chosen, not added.
        more = [name for name in more if name not in OF_STATE.values()]
    hint = f"; --include {' '.join(more)} would add those" if more else ""
    return f"There is nothing to export: no conversation matches. Left out: {told}{hint}."


def _no_lines(format: str, filters: Filters, tally: WrittenTally) -> str:
    if not tally.left_out["other_sources"]:
        return f"There is nothing to export: no conversation belongs to the split {filters.split}."
    sources = " or ".join(sorted(filters.sources or ()))
    if format == "messages":
        return f"There is nothing to export: in no conversation all turns of the assistant are {sources}."
    return f"There is nothing to export: no turn of the assistant is {sources}."


# In the order of their ids, so that two exports at once do not wait for each other in a circle.
MARK = """
UPDATE annotate_conversation SET exported_at = %(now)s
WHERE id IN (
    SELECT id FROM annotate_conversation WHERE id = ANY(%(ids)s) AND exported_at IS NULL
    ORDER BY id FOR NO KEY UPDATE)
"""


def _mark(conversation_ids: Sequence[int]) -> None:
    """From now on these are part of an export; those that were before keep their time."""
    with connection.cursor() as cursor:
        cursor.execute(MARK, {"now": timezone.now(), "ids": list(conversation_ids)})


DEMONSTRATIONS = What(
    name="demonstrations",
    title="Demonstrations",
    about="People wrote both sides, with suggestions of a model; `turns` or `turn` says where each text came from. "
    "All lines of one conversation stand together.",
    found=conversations,
    rows=whole_rows,
    renderer=lambda project: Renderer(project).messages,
    group="conversation_id",
    formats=FORMATS,
    tally=_tally,
    nothing=_nothing,
    no_lines=_no_lines,
    mark=_mark,
)
