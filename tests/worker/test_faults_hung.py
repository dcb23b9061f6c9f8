"""A worker hangs: its lease runs out, another takes over, its late result is thrown away, and it goes on serving."""

import signal
import time

import psutil
import pytest

from annotate import conversations, sweep
from annotate.models import Completion, GenerationRequest
from tests.worker import ends
from tests.worker.watching import over, until
from worker.serving import QUIET_SECONDS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.timeout(600)]

State = GenerationRequest.State


def hangs(process) -> bool:
    assert process.poll() is None
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


# While it stores it holds locks that its chat and the sweep need.
@pytest.mark.parametrize("point", ["streaming", "storing"])
def test_the_late_result_of_a_worker_that_hung_is_thrown_away(launch, endless, point):
    slot, comparison = ends.talked(endless, max_new_tokens=120)
    first = launch(app="tests.worker.doomed", DOOMED_AT=point, DOOMED_BY="SIGSTOP")
    ends.wait_for(endless)
    request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    until(lambda: hangs(first), 60)
    until(lambda: ends.health() == (503, ["worker"]))
    request.refresh_from_db()
    hung = request.claimed_by

    second = launch()
    ends.swept_until_over()
    text = ends.check_reply(slot, request)
    ends.check_comparison(comparison)
    assert (request.attempt, request.claimed_by != hung) == (2, True)
    before = set(Completion.objects.values_list("pk", "text"))

    second.terminate()
    assert second.wait(30) == 0
    first.send_signal(signal.SIGCONT)
    # One that hung while it published takes Redis for slow, and publishes nothing for a while.
    time.sleep(QUIET_SECONDS + 1 if point == "streaming" else 0)
    # It does what it was about to do before it does anything new.
    later = over(conversations.say(assignment=slot, user=slot.trainer, text="the word"), 60)
    assert (later.state, later.attempt, later.claimed_by) == (State.DONE, 1, hung)
    assert before <= set(Completion.objects.values_list("pk", "text"))
    assert Completion.objects.count() == len(before) + 1
    assert ends.check_reply(slot, request) == text
    ends.check_reply(slot, later)
    ends.check_comparison(comparison)
    until(lambda: ends.health() == (200, []))


def test_a_chat_can_be_stopped_while_the_worker_that_stores_its_reply_hangs(launch, endless):
    slot, _ = ends.talked(endless, max_new_tokens=60)
    first = launch(app="tests.worker.doomed", DOOMED_AT="storing", DOOMED_BY="SIGSTOP")
    ends.wait_for(endless)
    request = conversations.say(assignment=slot, user=slot.trainer, text="the word")
    until(lambda: hangs(first), 60)

    conversations.stop(assignment=slot, user=slot.trainer)

    def ended() -> bool:
        sweep.run()
        request.refresh_from_db()
        return request.state == State.CANCELLED

    until(ended)
    assert not request.completions.exists()
    assert "Stopped before the first word." in ends.page(slot.trainer, "work", slot.pk)
