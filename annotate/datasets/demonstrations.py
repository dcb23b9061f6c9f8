"""Demonstrations as training data: which written conversations count, and the whole line of each."""

import json
from collections.abc import Sequence
from datetime import UTC

from django.db import connection
from django.utils import timezone

from annotate import derive
from annotate.datasets import demonstration_rows, mixing, shapes
from annotate.datasets.demonstration_formats import FORMATS, alternates
from annotate.datasets.filters import INCLUDE, OF_STATE
from annotate.datasets.filters import Demonstrations as Filters
from annotate.datasets.splits import Splitter
from annotate.datasets.tallies import WrittenTally
from annotate.datasets.what import What
from annotate.models import Iteration, Policy, Project

NOT_SUGGESTED = dict.fromkeys(
    ("policy", "completion_id", "seed", "sampling", "template_hash", "finish_reason", "suggestion", "hint")
)
"""What a turn says of its suggestion where it has none."""


class Renderer:
    """Makes whole lines of one project's rows; remembers the names of its policies, rounds and people."""

    def __init__(self, project: Project, source: str = "demonstrations"):
        self.project, self.source = project, source
        self.split_of = Splitter(project).of
        self.policies = dict(Policy.objects.values_list("id", "name"))
        rounds = Iteration.objects.filter(project=project).values_list("id", "number", "guidelines__number")
        self.rounds = {pk: (number, guidelines) for pk, number, guidelines in rounds}
        self.pseudonyms: dict[int, str] = {}
        self.samplings: dict[str, dict] = {}

    def messages(self, row: dict) -> dict:
        """The line of a row of `demonstration_rows.rows` in the format `messages`."""
        said = row["said"]
        messages = [{"role": message[0], "content": message[1]} for message in said]
        iteration, guidelines = self.rounds.get(row["iteration_id"], (None, None))
        review_id, reviewer_id = row["review"] or (None, None)
        return {
            "messages": messages,
            "turns": [self._turn(message, row["completions"]) for message in said],
            "source": self.source,
            "source_id": row["source_id"],
            "source_split": row["source_split"] or "",
            "kind": row["kind"],
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
            "split": self.split_of(row["family"], row["trainer_id"], row["family_author_id"]),
            "finished_at": row["finished_at"].astimezone(UTC).isoformat(),
        }

    def _turn(self, message: list, completions: dict[int, dict]) -> dict:
        _, _, position, source, completion_id, edit_distance, active_seconds, typed, pasted, taken, passed = message
        turn = {
            "position": position,
            "source": source,
            **NOT_SUGGESTED,
            "edit_distance": edit_distance,
            "active_seconds": active_seconds,
            "typed": typed,
            "pasted": pasted,
            "taken": taken,
            "passed": [{"completion_id": pk, "text": completions[pk]["text"]} for pk in passed if pk in completions],
        }
        if completion_id is not None:
            completion = completions[completion_id]
            turn["policy"] = self.policies[completion["policy_id"]]
            turn["completion_id"] = completion_id
            turn["seed"] = completion["seed"]
            turn["sampling"] = self._sampling(completion["sampling"])
            turn["template_hash"] = completion["template_hash"]
            turn["finish_reason"] = completion["finish_reason"]
            turn["suggestion"] = completion["text"]
            turn["hint"] = completion["hint"]
        return turn

    def _sampling(self, text: str) -> dict:
        if text not in self.samplings:
            sampling = json.loads(text)
            self.samplings[text] = {name: sampling.get(name) for name in shapes.SAMPLING}
        return self.samplings[text]

    def _pseudonym(self, user_id: int | None) -> str | None:
        if user_id is None:
            return None
        if user_id not in self.pseudonyms:
            self.pseudonyms[user_id] = derive.pseudonym(self.project.secret, user_id)
        return self.pseudonyms[user_id]


def _tally(project: Project, format: str, filters: Filters) -> WrittenTally:
    return WrittenTally(format=format, left_out=demonstration_rows.left_out(project, filters))


def _nothing(project: Project, filters: Filters) -> str:
    counts = demonstration_rows.left_out(project, filters)
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
    keys=demonstration_rows.keys,
    rows=demonstration_rows.rows,
    renderer=lambda project, filters: Renderer(project).messages,
    formats=FORMATS,
    tally=_tally,
    nothing=_nothing,
    no_lines=_no_lines,
    made_by=demonstration_rows.made_by,
    more=mixing.drawn,
    parents=mixing.parents,
    made_from=mixing.made_from,
    mark=_mark,
)
