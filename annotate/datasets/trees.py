"""Conversations as OASST's trees of messages: those that begin alike share their beginning.

An imported message keeps the name and the fields that it had in its tree, so that a file of trees that was brought in
goes out as it was. All others are named under the project's secret, by what was said up to them.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator

from annotate import derive
from annotate.datasets import conversation_rows, persons, shapes
from annotate.datasets.demonstration_formats import alternates
from annotate.datasets.filters import Conversations as Filters
from annotate.datasets.splits import Splitter
from annotate.datasets.tree_lines import is_moment
from annotate.models import Policy, Project
from annotate.quality import consensus

TURNS = 120
"""The longest conversation: two levels of nesting a turn, and readers and writers of JSON take some 250."""

ROLES = {"user": "prompter", "assistant": "assistant"}

TAKES_TURNS_NOT, TOO_LONG, OTHER_SPLIT = "not_alternating", "too_long", "other_split"
"""Why a conversation may be in no tree."""

WHICH = ("parent_id", "role", "text")
"""What tells two messages of one name apart."""

NAMED = "sha256:"
"""How a message is called that had no name in its file."""


class Renderer:
    """Makes of a conversation what its tree needs of it."""

    def __init__(self, project: Project, filters: Filters):
        self.secret = project.secret
        self.policies: dict[int, str] = {}
        self.split_of = Splitter(project).of
        self.named_twice = conversation_rows.named_twice(project)
        self.without = set(persons.named(project=project, pseudonyms=filters.without)) if filters.without else set()

    def line(self, row: dict) -> dict:
        """The whole line of a row of `conversation_rows.tree_rows`: its messages as nodes without replies."""
        said = [message for message in row["said"] if message["role"] != "system"]
        left_out = None
        if not said or not alternates(said):
            left_out = TAKES_TURNS_NOT
        elif len(said) > TURNS:
            left_out = TOO_LONG
        path = [] if left_out else self._path(said, row["trainer_id"])
        place = {message["position"]: number for number, message in enumerate(said)}
        ranked = [] if left_out else [self._ranked(one, path, place[one["position"]]) for one in row["ranked"]]
        used = {message["policy_id"] for message in said}
        used.update(one["policy_id"] for comparison in row["ranked"] for one in comparison["candidates"])
        return {
            "kind": row["kind"],
            "iteration": row["iteration"],
            "policies": sorted(self._policy(pk) for pk in used - {None}),
            "left_out": left_out,
            "split": self.split_of(row["family"], row["trainer_id"], row["family_author_id"]),
            "family": row["family"],
            "facts": row["facts"] if row["kind"] == "imported" else None,
            "path": path,
            "ranked": ranked,
        }

    def _path(self, said: list[dict], trainer_id: int | None) -> list[dict]:
        """The messages as nodes, each named by what was said up to it."""
        path: list[dict] = []
        for message in said:
            before = path[-1]["message_id"] if path else None
            about = (
                self._ours(message, trainer_id) if trainer_id is not None else _brought(message["facts"], shapes.NODE)
            )
            role = ROLES[message["role"]]
            source_id = message["source_id"]
            if not path and self._is_anothers(source_id, message["text"]):
                source_id = f"{NAMED}{source_id}:{derive.digest_of(message['text'])}"
            path.append(self._node(message["text"], role, before, source_id, about))
        return path

    def _policy(self, pk: int) -> str:
        """The name of a policy, which may be younger than the export: comparisons are closed while it is written."""
        if pk not in self.policies:
            self.policies = dict(Policy.objects.values_list("id", "name"))
        return self.policies[pk]

    def _is_anothers(self, source_id: str, text: str) -> bool:
        """Whether a first message has the name of another one, which was brought in before it."""
        first = self.named_twice.get(source_id)
        return first is not None and hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() != first

    def _ours(self, message: dict, trainer_id: int) -> dict:
        """What is known of a message of a trainer's conversation."""
        by_model = message["source"] in ("reply", "taken")
        about = {"created_date": message["created_at"], "deleted": False, "synthetic": by_model}
        # An opening that a prompt brought is nobody's here.
        if message["source"] in ("written", "edited", "taken"):
            about["user_id"] = str(_uuid(derive.keyed(self.secret, "trainer", trainer_id)))
        if by_model:
            about["model_name"] = self._policy(message["policy_id"])
        return about

    def _node(self, text: str, role: str, before: str | None, source_id: str, about: dict) -> dict:
        if not source_id or source_id.startswith(NAMED):
            named = source_id or f"{before}:{role}:{derive.digest_of(text)}"
            source_id = str(_uuid(derive.keyed(self.secret, "tree message", named)))
        node = {"message_id": source_id}
        if before is not None:
            node["parent_id"] = before
        return node | {"text": text, "role": role} | about

    def _ranked(self, comparison: dict, path: list[dict], place: int) -> dict:
        """The candidates of a comparison as nodes, and their ranks where somebody ranked them."""
        before = path[place - 1]["message_id"] if place else None
        nodes = {}
        for one in comparison["candidates"]:
            about = {}
            if one["kind"] == "sampled":
                about = {"created_date": one["created_at"], "deleted": False, "synthetic": True}
                about["model_name"] = self._policy(one["policy_id"])
            elif one["model"]:
                about = {"synthetic": True, "model_name": one["model"]}
            nodes[one["id"]] = self._node(one["text"], path[place]["role"], before, one["source_id"], about)
            if one["original"]:
                nodes[one["id"]] = path[place]
        given = [ranks for trainer_id, ranks in comparison["rankings"] or () if trainer_id not in self.without]
        ranks = consensus.of_ranks(given) if given else {}
        return {"parent_id": before, "nodes": list(nodes.values()), "ranks": [ranks.get(str(pk)) for pk in nodes]}


def _brought(facts: dict | None, shape: dict) -> dict:
    """What came with something from its file, less fields of OASST's that hold what OASST's readers would not take."""
    return {name: value for name, value in (facts or {}).items() if name not in shape or _fits(name, value, shape)}


def _fits(name: str, value, shape: dict) -> bool:
    if next(shapes.misfits(value, shape[name]), None) is not None:
        return False
    if value is None or name not in ("rank", "created_date"):
        return True
    return value >= 0 if name == "rank" else is_moment(value)


def _uuid(digits: str) -> uuid.UUID:
    """A name of the kind that is made from others (version 5), of a keyed hash."""
    return uuid.UUID(hex=digits[:32], version=5)


def oasst(lines: list[dict], filters: Filters) -> Iterator[dict]:
    """The trees of conversations with one beginning; one, unless words of different beginnings have one digest."""
    trees: dict[str, dict] = {}
    nodes: dict[str, dict] = {}
    split = lines[0]["split"]
    for line in lines:
        if line["left_out"] is None and line["split"] != split:
            line["left_out"] = OTHER_SPLIT
        if line["left_out"] is not None:
            continue
        given = line["given"] = {}
        for node in line["path"]:
            named = _named_apart(node, nodes, given)
            given[node["message_id"]] = named["message_id"]
            _add(named, nodes)
        first = line["path"][0]["message_id"]
        trees.setdefault(first, _tree(first, nodes[first], line["facts"]))
    for line in lines:
        if line["left_out"] is None:
            for ranked in line["ranked"]:
                _rank(ranked, nodes, line["given"])
    yield from trees.values()


def _named_apart(node: dict, nodes: dict[str, dict], given: dict[str, str]) -> dict:
    """The message, with another name where its own is that of another one in the tree: several files may number their
    messages, or one may have been changed and brought in again. `given` are the names that those before it got."""
    if "parent_id" in node:
        node = node | {"parent_id": given.get(node["parent_id"], node["parent_id"])}
    there = nodes.get(node["message_id"], node)
    if all(there.get(name) == node.get(name) for name in WHICH):
        return node
    told = ":".join(str(node.get(name)) for name in ("message_id", *WHICH))
    # Its rank was one among other neighbours.
    named = {name: value for name, value in node.items() if name != "rank"}
    return named | {"message_id": str(uuid.uuid5(uuid.NAMESPACE_OID, told))}


def _add(node: dict, nodes: dict[str, dict]) -> None:
    """Put a message into its tree, unless it is there."""
    pk = node["message_id"]
    if pk in nodes:
        return
    nodes[pk] = node | {"replies": []}
    if "parent_id" in node:
        nodes[node["parent_id"]]["replies"].append(nodes[pk])


def _rank(ranked: dict, nodes: dict[str, dict], given: dict[str, str]) -> None:
    """Put the candidates of a comparison beside each other, with their ranks unless their neighbours have some."""
    if ranked["parent_id"] is None:
        return
    parent = nodes[given.get(ranked["parent_id"], ranked["parent_id"])]
    taken = any(reply.get("rank") is not None for reply in parent["replies"])
    for node, rank in zip(ranked["nodes"], ranked["ranks"], strict=True):
        node = _named_apart(node, nodes, given)
        _add(node, nodes)
        if rank is not None and not taken:
            nodes[node["message_id"]]["rank"] = rank


def _tree(pk: str, prompt: dict, facts: dict | None) -> dict:
    facts = _brought(facts, shapes.TREE)
    if facts.get("message_tree_id") != pk:
        return {"message_tree_id": pk, "tree_state": "ready_for_export", "prompt": prompt}
    first = {"message_tree_id": pk, "tree_state": facts.get("tree_state", "ready_for_export")}
    return first | {"prompt": prompt} | {name: value for name, value in facts.items() if name not in first}


FORMATS: dict[str, Callable[[list[dict], Filters], Iterator[dict]]] = {"oasst": oasst}
"""The formats by name: what each makes of conversations with one beginning."""
