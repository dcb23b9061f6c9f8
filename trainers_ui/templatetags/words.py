"""How texts, counts, times and states read on the pages."""

import re
from datetime import timedelta

from django import template
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from annotate import access
from annotate.quality.disagreement import Difference
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
def pairs(difference: Difference) -> str:
    """`2 of 6 pairs`: those that the reward model orders the other way round."""
    return f"{difference.reversed:g} of {difference.pairs} pair{'' if difference.pairs == 1 else 's'}"


@register.filter
def snippet(text: str) -> str:
    """The beginning of a text on one line."""
    line = re.sub(r"\s+", " ", text[:400]).strip()
    return line if len(line) <= 140 else f"{line[:139].rstrip()}…"


@register.filter
def when(moment) -> str:
    """A time of today with its zone, else a date."""
    if moment is None:
        return ""
    local = timezone.localtime(moment)
    now = timezone.localtime()
    if local.date() == now.date():
        return f"{local:%H:%M %Z}"
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


NOUNS = {"rank": "ranking", "chat": "chat", "write": "piece of writing", "review": "review"}


@register.filter
def noun(kind: str) -> str:
    """What a person holds, sends and sees listed: a ranking, a chat."""
    return NOUNS.get(kind, kind)


@register.filter
def percent(share: float | None) -> str:
    """A share as `31 %`; one that is there is never said to be none, and one that is not whole never to be all."""
    if not share:
        return "0 %"
    return "100 %" if share >= 1 else f"{min(max(round(share * 100), 1), 99)} %"


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
def outcome(row) -> str:
    """How a task of a person ended, and what came of it since, as far as they should know."""
    if row.state != "submitted":
        return state_word(row.state)
    if row.kind == "review":
        return _verdict(row)
    if row.kind != "write":
        return ""
    piece = row.conversation
    said = PIECE_WORDS[piece.review_state]
    if row.edited:
        said = "approved with edits"
    elif row.revised:
        said = "returned, mended since" if piece.review_state == "returned" else "revised"
    exported = "in an export" if piece.exported_at else ""
    return ", ".join(filter(None, (said, exported)))


PIECE_WORDS = {"none": "", "wanted": "waits for its review", "approved": "approved", "returned": "returned"}


@register.filter
def review_word(piece) -> str:
    """Where a finished piece of writing stands: `approved`, and whether it counts at all."""
    if piece.late:
        return "late, not counted"
    if hasattr(piece, "made_by_review"):
        return "a reviewer's edit"
    said = {"none": "not drawn", "wanted": "to be reviewed"}.get(piece.review_state, piece.review_state)
    return f"{said}, replaced" if piece.superseded else said


def _verdict(row) -> str:
    if row.review.verdict == "approved":
        return "approved with edits" if row.review.edit_id else "approved"
    count = row.review.comment_count
    return f"returned, {count} comment{'s' * (count != 1)}" if count else "returned"


@register.filter
def done_words(done: dict[str, int]) -> str:
    """`12 rankings, 3 chats` from counts by kind."""
    names = {
        "rank": ("ranking", "rankings"),
        "chat": ("chat", "chats"),
        "write": ("piece", "pieces"),
        "review": ("review", "reviews"),
    }
    return ", ".join(f"{done[kind]} {several[done[kind] != 1]}" for kind, several in names.items() if kind in done)


@register.filter
def first_word(label: str) -> str:
    """A state's name without its sentence."""
    return label.partition(":")[0]


@register.filter
def provenance(completion) -> str:
    """Where a text came from: policy, sampling, how it ended, how long it took; or that it was brought in."""
    request = completion.request
    if request is None:
        return f"imported · {completion.model}" if completion.model else "imported"
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
    """Whether a person takes work of any kind."""
    return access.has_role(user, "trainer", "reviewer")


@register.filter
def reads_all(user) -> bool:
    """Whether a person reads the work of others."""
    return access.has_role(user, *access.READS_ALL)
