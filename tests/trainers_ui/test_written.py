"""From any sequence of steps at the desk to the record: what is kept of it holds together."""

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate import assignments, demonstrations
from annotate.models import Assignment, Message
from tests import factory
from tests.trainers_ui.test_scripts_manuscript import SUGGESTIONS, Desk, step

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

steps = st.lists(step, max_size=15)


@pytest.fixture(scope="module")
def desk():
    """One process for all examples."""
    made = Desk()
    yield made
    made.process.stdin.close()
    made.process.wait(10)


@pytest.fixture
def project():
    return factory.project(kinds=["write"], turn_shape="free", system_editable=True)


def with_requests(found, requests: dict[int, int]):
    """Steps whose suggestions are named by the requests that they came of."""
    if isinstance(found, dict):
        return {key: with_requests(value, requests) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        if len(found) == 2 and all(type(part) is int for part in found) and tuple(found) in SUGGESTIONS:
            return [requests[found[0]], found[1]]
        return [with_requests(part, requests) for part in found]
    return found


def mended(draft: dict) -> list[tuple]:
    """The steps after which a piece can be finished: no turn empty, both sides there, the last word the assistant's."""
    typed = {"pasted": False, "composing": False, "now": 0}
    empty = [number for number, turn in enumerate(draft["turns"]) if not turn["text"].strip()]
    made = [part for number in empty for part in (("open", number), ("type", "x", typed))]
    made += [("open", len(draft["turns"]) - 1)]
    last = draft["turns"][-1]["role"]
    for role in ("user", "assistant"):
        if last == "assistant" and role == "user" and any(turn["role"] == "user" for turn in draft["turns"]):
            break
        if role != last:
            made += [("done",), ("type", "y", typed)]
            last = role
        elif role == "user":
            continue
    if not draft.get("system", "x").strip():
        made.append(("setSystem", "Be brief."))
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=steps, upto=st.none() | st.integers(0, 6), second=steps)
def test_what_is_written_adds_up_in_the_record(desk, project, first, upto, second):
    # An example that fails must not spoil the transaction of those after it.
    with transaction.atomic():
        write_it(desk, project, first, upto, second)


def write_it(desk, project, first: list, upto: int | None, second: list) -> None:
    slot = factory.held_piece(project)
    requests = {
        1: factory.suggested(slot, *(SUGGESTIONS[1, index] for index in (0, 1))).pk,
        2: factory.suggested(slot, "Only this.").pk,
    }
    draft = work(desk, slot, with_requests(first, requests), {})
    if upto is not None:
        slot = branched(slot, min(upto, len(draft["turns"]) - 1))
        draft = work(desk, slot, with_requests(second, requests), slot.draft)
    draft = work(desk, slot, mended(draft), draft)
    slot.refresh_from_db()
    conversation = demonstrations.finish(assignment=slot, user=slot.trainer, version=slot.draft_version)

    messages = list(conversation.messages.order_by("position"))
    assert [message.position for message in messages] == list(range(len(messages)))
    assert messages[0].role == "system"
    kept = [turn for turn in draft["turns"] if turn["text"].strip()]
    assert [message.text for message in messages[1:]] == [turn["text"].strip() for turn in kept]
    for message, turn in zip(messages[1:], kept, strict=True):
        adds_up(message, turn)


def work(desk, slot: Assignment, done: list, draft: dict) -> dict:
    """Open a draft at the desk, do these steps, save; the draft that was saved."""
    draft = desk.drafts(draft=draft, shape="free", steps=done)[-1]
    factory.save(slot, *draft["turns"], **{key: draft[key] for key in draft if key != "turns"})
    return draft


def branched(slot: Assignment, upto: int) -> Assignment:
    """The branch of a piece as its trainer holds it, after the piece itself was skipped."""
    trainer = slot.trainer
    made = demonstrations.branch(assignment=slot, user=trainer, upto=upto)
    slot.refresh_from_db()
    assignments.skip(assignment=slot, user=trainer, reason="other")
    made.refresh_from_db()
    return factory.held(made, trainer)


def adds_up(message: Message, turn: dict) -> None:
    assert message.typed + message.pasted + message.taken >= len(message.text)
    assert (message.typed, message.pasted, message.taken) == (turn["typed"], turn["pasted"], turn["taken"])
    assert message.active_seconds == turn["seconds"]
    if message.source == "taken":
        assert message.text == message.completion.text.strip()
        assert message.edit_distance == 0
    elif message.source == "edited":
        assert message.text != message.completion.text.strip()
        assert 0 < message.edit_distance <= 1
    else:
        assert (message.source, message.completion, message.edit_distance) == ("written", None, None)
    # What was shown on the turn was either taken or passed, and each once.
    seen = {tuple(name) for name in (*turn["shown"], turn["from"]) if name}
    taken_or_passed = [*message.passed, message.completion_id] if message.completion_id else message.passed
    assert len(taken_or_passed) == len(set(taken_or_passed)) == len(seen)
