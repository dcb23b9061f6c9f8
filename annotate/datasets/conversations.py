"""Finished conversations of every kind, whether they count as demonstrations or not: one by one, or as trees."""

from annotate.datasets import conversation_rows, demonstration_rows, trees
from annotate.datasets.demonstrations import Renderer
from annotate.datasets.filters import Conversations as Filters
from annotate.datasets.tallies import TreeTally, WrittenTally
from annotate.datasets.what import What
from annotate.models import Project


def messages(lines: list[dict], filters: Filters):
    """The whole lines."""
    yield from lines


def _nothing(project: Project, filters: Filters) -> str:
    kinds = f" of kind {' or '.join(sorted(filters.kinds))}" if filters.kinds else ""
    return f"There is nothing to export: no finished conversation{kinds} matches."


def _no_lines(format: str, filters: Filters, tally: WrittenTally | TreeTally) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(tally.left_out.items()))
    if told:
        return f"There is nothing to export: {format} can hold none of the conversations. Left out: {told}."
    return f"There is nothing to export: no conversation belongs to the split {filters.split}."


TREES = What(
    name="conversations",
    title="Conversations",
    about="Conversations that begin alike are one tree, in the shape of OpenAssistant's exporter. Ranks are from 0, "
    "the best. Read the files with `oasst_data.read_message_trees`: a tree has no columns.",
    keys=conversation_rows.tree_keys,
    rows=conversation_rows.tree_rows,
    renderer=lambda project, filters: trees.Renderer(project, filters).line,
    formats=trees.FORMATS,
    tally=lambda project, format, filters: TreeTally(format=format),
    nothing=_nothing,
    no_lines=_no_lines,
    made_by=demonstration_rows.made_by,
    ranked_by=conversation_rows.ranked_by,
)

CONVERSATIONS = What(
    name="conversations",
    title="Conversations",
    about="Chats with a policy, what people wrote, and what was imported; `turns` says where each text came from.",
    keys=conversation_rows.keys,
    rows=demonstration_rows.rows,
    renderer=lambda project, filters: Renderer(project, "conversations").messages,
    formats={"messages": messages} | trees.FORMATS,
    tally=lambda project, format, filters: WrittenTally(format=format),
    nothing=_nothing,
    no_lines=_no_lines,
    made_by=demonstration_rows.made_by,
    instead={"oasst": TREES},
)
