"""Who goes through the lines of which export."""

from annotate.datasets.comparison_lines import OrderLines, PairLines, PromptLines, RankedLines, UnpairedLines
from annotate.datasets.demonstration_lines import PlainLines, WrittenLines
from annotate.datasets.said import Lines
from annotate.datasets.tree_lines import TreeLines

OF_FORMAT = {
    "ranked": RankedLines,
    "preference": PairLines,
    "preference_implicit": PairLines,
    "unpaired": UnpairedLines,
    "prompt_only": PromptLines,
    "nemo_rl": OrderLines,
    "hh": PairLines,
    "openai_dpo": PairLines,
    "llamafactory": PairLines,
    "messages": WrittenLines,
    "prompt_completion": WrittenLines,
    "openai_sft": PlainLines,
    "oasst": TreeLines,
}
"""By format: what goes through its lines."""


def of(described: dict) -> Lines:
    """What goes through the lines of the export that has this manifest."""
    return OF_FORMAT[described["format"]](described)
