"""All that can be exported, by name."""

from annotate.datasets.comparisons import COMPARISONS
from annotate.datasets.conversations import CONVERSATIONS
from annotate.datasets.demonstrations import DEMONSTRATIONS
from annotate.datasets.prompts import PROMPTS
from annotate.datasets.what import What
from annotate.errors import Invalid

WHATS = {what.name: what for what in (COMPARISONS, DEMONSTRATIONS, CONVERSATIONS, PROMPTS)}


def named(what: What | str) -> What:
    """What is exported, by its name. Raises Invalid where there is no such thing."""
    if isinstance(what, What):
        return what
    if what not in WHATS:
        raise Invalid(f"There is no export of {what}. What there is: {', '.join(WHATS)}.")
    return WHATS[what]
