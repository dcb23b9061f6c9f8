"""Whatever a file holds: what the readers made of it is in the record word for word, or nothing is, with the reason."""

import json
from unittest import mock

import pytest
from django.core.files.base import ContentFile
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate.datasets.incoming import bringing, copying, files, formats
from annotate.datasets.incoming.bringing import How
from annotate.datasets.incoming.formats import FORMATS, Item, Options
from annotate.errors import BothsidesError
from annotate.models import Conversation, Import, Message, RankedCandidate
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

# Hypothesis draws what breaks escapes more often than chance would.
WORDS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="ab \\\t\n\r\"'{},\x00\x08\x1f\u2028N.", max_size=30),
    st.sampled_from([r"\N", r"\.", "\\", "{}", "\ufeff", "\ud800", "\U0001f600", "a" * 300]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=3),
    max_leaves=8,
)
MORE = st.dictionaries(WORDS, VALUES, max_size=2)


def rarely(other: st.SearchStrategy, usual: st.SearchStrategy) -> st.SearchStrategy:
    """Mostly what is usual, so that enough of it comes in."""
    return st.integers(0, 19).flatmap(lambda dice: usual if dice else other)


def row(**fields) -> st.SearchStrategy[dict]:
    """An object with these fields, which are rarely something else, and now and then others."""
    known = st.fixed_dictionaries({name: rarely(VALUES, value) for name, value in fields.items()})
    return st.builds(lambda more, known: more | known, rarely(MORE, st.just({})), known)


def turns(who: str, what: str, users: list[str], assistants: list[str]) -> st.SearchStrategy[list]:
    one = st.fixed_dictionaries({who: st.sampled_from(users), what: WORDS})
    other = st.fixed_dictionaries({who: st.sampled_from(assistants), what: WORDS})
    pairs = st.lists(st.tuples(one, other), min_size=1, max_size=3)
    return pairs.map(lambda found: [turn for pair in found for turn in pair])


def transcripts() -> st.SearchStrategy[dict]:
    """Two with the same beginning."""
    pair = st.tuples(WORDS, WORDS).map(lambda texts: f"\n\nHuman: {texts[0]}\n\nAssistant: {texts[1]}")
    begun = st.lists(pair, max_size=2).map("".join)
    whole = st.tuples(begun, WORDS, WORDS, WORDS)
    return whole.map(
        lambda parts: {
            "chosen": f"{parts[0]}\n\nHuman: {parts[1]}\n\nAssistant: {parts[2]}",
            "rejected": f"{parts[0]}\n\nHuman: {parts[1]}\n\nAssistant: {parts[3]}",
        }
    )


IDS = st.one_of(WORDS, st.integers(0, 9))


def node(depth: int) -> st.SearchStrategy[dict]:
    """A message of a tree with what answers it."""
    known = {
        "message_id": st.uuids().map(str),
        "text": rarely(WORDS, WORDS.map(lambda text: f"w{text}")),
        "role": st.just("assistant" if depth % 2 else "prompter"),
        "rank": st.integers(0, 3) if depth % 2 else st.none(),
        "labels": rarely(VALUES, st.none()),
        "replies": st.lists(node(depth + 1), max_size=3) if depth < 3 else st.just([]),
    }
    return st.fixed_dictionaries(known)


ROWS = {
    "oasst": row(message_tree_id=IDS, prompt=node(0)),
    "hh": rarely(VALUES, transcripts()),
    "instructions": row(id=IDS, instruction=WORDS, input=WORDS, output=WORDS, split=WORDS),
    "sharegpt": row(id=IDS, conversations=turns("from", "value", ["human", "user"], ["gpt", "bard"])),
    "messages": row(id=IDS, messages=turns("role", "content", ["user"], ["assistant"])),
    "preference": row(
        prompt=WORDS,
        answers=st.lists(row(answer=WORDS, rank=st.integers(1, 4), model=WORDS), min_size=2, max_size=4),
    ),
}


def test_every_format_is_tried():
    assert ROWS.keys() == FORMATS.keys()


def read(data: bytes, format: str) -> list[Item]:
    """What the readers make of it."""
    with files.lines_of(ContentFile(data, name="x.jsonl"), name="x.jsonl") as rows:
        return [item for _, item in formats.read(rows, format=format, options=Options()) if isinstance(item, Item)]


@pytest.mark.parametrize("format", ROWS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_word_for_word_or_not_at_all(format, data):
    rows = data.draw(st.lists(ROWS[format], min_size=1, max_size=4))
    written = "".join(f"{json.dumps(one)}\n" for one in rows).encode()
    how = How(format=format, system="none", on_error=data.draw(st.sampled_from(bringing.ON_ERROR)))
    with transaction.atomic(), mock.patch.object(copying, "MESSAGES", data.draw(st.sampled_from([1, 5_000]))):
        project = factory.project()
        try:
            with files.lines_of(ContentFile(written, name="x.jsonl"), name="x.jsonl") as found:
                report = bringing.bring(project=project, rows=found, how=how, source="x")
        except BothsidesError:
            assert not Conversation.objects.exists()
            assert not Import.objects.exists()
        else:
            _is_in_the_record(read(written, format), report)
        transaction.set_rollback(True)


def _is_in_the_record(items: list[Item], report: bringing.Report) -> None:
    wanted = {
        tuple((turn.role, turn.text, turn.source_id) for turn in talk.turns) for item in items for talk in item.talks
    }
    own = Message.objects.order_by("position").values_list("conversation_id", "role", "text", "source_id")
    found: dict[int, list] = {}
    for conversation_id, role, text, source_id in own:
        found.setdefault(conversation_id, []).append((role, text, "" if source_id.startswith("sha256:") else source_id))
    assert {tuple(turns) for turns in found.values()} == wanted
    assert len(found) == report.conversations == len(wanted)
    # One order of the same texts comes in once, whoever wrote them; of two under one id the first.
    judged = {frozenset((answer.text, answer.rank) for answer in one.answers) for item in items for one in item.judged}
    places = RankedCandidate.objects.values_list("ranking_id", "candidate__completion__text", "rank")
    ranked: dict[int, list] = {}
    for ranking_id, text, rank in places:
        ranked.setdefault(ranking_id, []).append((text, rank))
    orders = {frozenset(answers) for answers in ranked.values()}
    assert orders == judged or (orders < judged and any(one.source_id for item in items for one in item.judged))
