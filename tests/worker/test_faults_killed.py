"""A worker is killed in each phase of a reply; alternatives wait beside it."""

import signal

import pytest

from annotate import conversations, sweep
from annotate.models import GenerationRequest
from tests import factory
from tests.worker import ends
from tests.worker.watching import events, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.timeout(600)]

State = GenerationRequest.State


@pytest.mark.parametrize("point", ["claimed", "prefill", "streaming", "storing", "stored"])
def test_whatever_a_worker_was_doing_when_it_was_killed_another_one_ends_it_once(launch, endless, point):
    slot, comparison = ends.talked(endless, max_new_tokens=120)
    worker = launch(app="tests.worker.doomed", DOOMED_AT=point, DOOMED_BY="SIGKILL")
    ends.wait_for(endless)
    request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    assert worker.wait(60) == -signal.SIGKILL
    stored = point == "stored"
    request.refresh_from_db()
    assert request.state == (State.DONE if stored else State.CLAIMED)
    assert bool(events(request)) == (point in ("streaming", "storing", "stored"))
    while_it_is_away(slot, request, stored=stored)

    launch()
    ends.swept_until_over()
    ends.check_reply(slot, request, told_its_end=not stored)
    ends.check_comparison(comparison)
    ends.check_ranked(comparison)
    assert request.attempt == (1 if stored else 2)
    until(lambda: ends.health() == (200, []))
    ends.wait_for(endless)
    assert "Replies are not available" not in ends.page(slot.trainer, "work", slot.pk)


def while_it_is_away(slot, request, *, stored):
    """The pages say so; what can be done without a worker can be done."""
    until(lambda: ends.health() == (503, ["worker"]))

    def given_back() -> bool:
        sweep.run()
        request.refresh_from_db()
        return request.state != State.CLAIMED

    until(given_back)
    seen = ends.page(slot.trainer, "work", slot.pk)
    assert "Replies are not available now: no worker is running for this model." in seen
    assert ("the reply comes as soon as the model is there" in seen) == (not stored)
    assert ('class="turn assistant"' in seen) == stored
    assert "absent" in ends.policy_page(slot.iteration.reply_policy)
    ends.page(slot.trainer, "home")
    writing = factory.held_piece(slot.project)
    assert "Suggestions are not available now" in ends.page(writing.trainer, "work", writing.pk)
