"""How texts, counts, times and states read on the pages."""

import re
from datetime import timedelta

from django import template
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from annotate import access
from trainers_ui import rendering

register = template.Library()


@register.filter
def message(text: str) -> SafeString:
    """Message text as safe HTML."""
    return rendering.render(text)


@register.filter
def words(text: str) -> str:
    """`62 words`; characters in scripts that write without spaces."""
    count = len(text.split())
    if len(text) > 20 * max(count, 1):
        return f"{len(text):,} characters"
    return "1 word" if count == 1 else f"{count:,} words"


@register.filter
def capped(count: int) -> str:
    """A count that was taken no further than 100."""
    return str(count) if count < 100 else "99+"


@register.filter
def snippet(text: str) -> str:
    """The beginning of a text on one line."""
    line = re.sub(r"\s+", " ", text[:400]).strip()
    return line if len(line) <= 140 else f"{line[:139].rstrip()}…"


@register.filter
def when(moment) -> str:
    """A time of today, else a date."""
    if moment is None:
        return ""
    local = timezone.localtime(moment)
    now = timezone.localtime()
    if local.date() == now.date():
        return f"{local:%H:%M}"
    return f"{local.day} {local:%b}" if local.year == now.year else f"{local.day} {local:%b %Y}"


@register.filter
def since(moment) -> str:
    """`just now`, `12 minutes ago`."""
    if timezone.now() - moment < timedelta(minutes=1):
        return "just now"
    return f"{timesince(moment, depth=1)} ago"


@register.filter
def minutes(seconds: int) -> str:
    """`40 s`, `3 min`."""
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


STATE_WORDS = {
    "submitted": "",
    "skipped": "skipped",
    "surplus": "surplus, not counted",
    "expired": "ran out, not sent",
}


@register.filter
def state_word(state: str) -> str:
    """What is worth saying of how a task ended."""
    return STATE_WORDS.get(state, state)


@register.filter
def done_words(done: dict[str, int]) -> str:
    """`12 rankings, 3 chats` from counts by kind."""
    names = {"rank": ("ranking", "rankings"), "chat": ("chat", "chats")}
    said = [f"{count} {names[kind][count != 1]}" for kind, count in sorted(done.items(), reverse=True)]
    return ", ".join(said)


@register.filter
def first_word(label: str) -> str:
    """A state's name without its sentence."""
    return label.partition(":")[0]


@register.filter
def provenance(completion) -> str:
    """Where a sampled text came from: policy, sampling, how it ended, how long it took."""
    request = completion.request
    sampling = request.sampling
    said = [
        str(request.policy),
        f"temperature {sampling.get('temperature', '?')}",
        f"top-p {sampling.get('top_p', '?')}",
    ]
    if sampling.get("top_k"):
        said.append(f"top-k {sampling['top_k']}")
    said.append(f"{completion.completion_tokens} of up to {sampling.get('max_new_tokens', '?')} tokens")
    said.append(first_word(completion.get_finish_reason_display()).lower())
    if completion.total_ms is not None:
        said.append(f"{completion.total_ms / 1000:.1f} s")
    return " · ".join(said)


@register.filter
def works(user) -> bool:
    """Whether a person takes work."""
    return access.has_role(user, "trainer")


@register.filter
def reads_all(user) -> bool:
    """Whether a person reads the work of others."""
    return access.has_role(user, *access.READS_ALL)
