"""What must hold of exported trees, by the schemas of OASST's own exporter."""

from collections.abc import Hashable, Iterator
from datetime import datetime

from annotate.datasets import said
from annotate.datasets.tallies import TreeTally, nodes

NEXT = {"prompter": "assistant", "assistant": "prompter"}


class TreeLines(said.Lines):
    """Trees of messages, each with its replies."""

    def __init__(self, described: dict):
        super().__init__(described)
        self.tally = TreeTally()
        self.trees: set[str] = set()

    def said(self, line: dict) -> list[dict]:
        """The first message: all others follow it in one split."""
        return [{"role": "user", "content": line["prompt"]["text"]}]

    def apart(self, line: dict) -> Iterator[tuple[str, Hashable]]:
        """The tree and its opening."""
        yield "message_tree_id", line["message_tree_id"]
        yield from self.opening(line["prompt"]["text"])

    def problems(self, line: dict) -> Iterator[str]:
        """What is wrong with the next tree."""
        root = line["prompt"]
        if root["message_id"] != line["message_tree_id"]:
            yield "message_tree_id is not the message_id of its prompt"
        if line["message_tree_id"] in self.trees:
            yield "message_tree_id is there twice"
        self.trees.add(line["message_tree_id"])
        if root["role"] != "prompter":
            yield "the prompt is not the prompter's"
        if root.get("parent_id") is not None:
            yield "the prompt has a parent_id"
        ids = set()
        for node in nodes(line):
            pk = node["message_id"]
            if pk in ids:
                yield f"message_id {pk} is there twice"
            ids.add(pk)
            yield from (f"message {pk} {problem}" for problem in _node(node))
        self.tally.count(line)

    def counts(self) -> dict:
        """What can be told from trees."""
        counts = self.tally.as_json()
        return {name: counts[name] for name in ("rows", "trees", "messages", "ranked")}


def _node(node: dict) -> Iterator[str]:
    if node["role"] not in NEXT:
        yield f"has no role: {node['role']}"
        return
    if not node["text"].strip():
        yield "is empty"
    if "created_date" in node and not is_moment(node["created_date"]):
        yield "has no time as created_date"
    replies = node["replies"]
    for reply in replies:
        if reply["role"] != NEXT[node["role"]]:
            yield f"is answered by a message of the {reply['role']}"
        if reply.get("parent_id") != node["message_id"]:
            yield "is not the parent_id of its reply"
        # What is imported keeps its ranks, which need not be dense.
        if (reply.get("rank") or 0) < 0:
            yield "has a reply with a rank below 0"


def is_moment(text: str) -> bool:
    """Whether a text is a date or a time in ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
