"""Policies whose models do not fit beside each other in the memory of one worker process."""

import gc
import weakref

import pytest

from annotate import conversations, streams
from annotate.models import GenerationRequest
from tests import factory, tiny
from tests.worker.watching import over, until
from worker.process import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

State = GenerationRequest.State
MODEL = 17.3e6 / 2**30
"""GiB that a tiny model takes in float32, with the keys and values of 64 texts of 512 tokens."""


@pytest.fixture
def begin(settings, tiny_models):
    """Starts a worker process's loops in this one, with memory for so many models; ended with the test."""
    settings.WORKER_HEARTBEAT_SECONDS = 0.2
    settings.WORKER_POLL_SECONDS = 0.1
    settings.WORKER_SWAP_SECONDS = 1
    settings.WORKER_DEVICE, settings.WORKER_DTYPE = "cpu", "float32"
    begun = []

    def start(models):
        settings.WORKER_MEMORY_GIGABYTES = models * MODEL
        process = WorkerProcess()
        begun.append(process)
        process.start()
        return process

    yield start
    for process in begun:
        process.drain(0)
        process.join(20)


def served(count, location="endless"):
    return [factory.policy(location=location) for _ in range(count)]


def chat(policy, **fields):
    project = factory.project(served_by=policy, **fields)
    return factory.held_chat(project, factory.trainer(project))


def say(slot):
    return conversations.say(assignment=slot, user=slot.trainer, text="the word")


def bulk(policy, count, **fields):
    project = factory.project(served_by=policy, **fields)
    for _ in range(count):
        factory.finished_chat(project)
    return GenerationRequest.objects.filter(purpose="alternatives", policy=policy)


def states(policies):
    return [streams.policy_state(policy.pk)[0] for policy in policies]


def loadings(process):
    return sum(loop.counters.read()["loads"] for loop in process._loops.values())


def test_with_memory_for_one_of_two_each_comes_when_it_is_asked(begin):
    policies = served(2)
    chats = [chat(policy, max_new_tokens=20) for policy in policies]
    process = begin(1.5)
    until(lambda: sorted(states(policies)) == ["asleep", "ready"])
    for slot in (*chats, *chats):
        assert over(say(slot)).state == State.DONE
        until(lambda slot=slot: states([slot.iteration.reply_policy]) == ["ready"])
        assert sorted(states(policies)) == ["asleep", "ready"]
        held = [loop for loop in process._loops.values() if loop._engine]
        assert [loop.policy for loop in held] == [slot.iteration.reply_policy]


def test_a_model_that_is_put_down_leaves_nothing_behind(begin):
    first, second = served(2)
    process = begin(1.5)
    until(lambda: sorted(states([first, second])) == ["asleep", "ready"])
    held = next(loop for loop in process._loops.values() if loop._engine)
    model = weakref.ref(held._engine._model)
    other = second if held.policy == first else first
    over(say(chat(other)))
    gc.collect()
    assert model() is None


def test_models_that_fit_are_all_held(begin):
    policies = served(2)
    process = begin(2.1)
    until(lambda: states(policies) == ["ready", "ready"])
    for policy in policies:
        assert over(say(chat(policy))).state == State.DONE
    assert loadings(process) == 2


def test_of_three_of_which_two_fit_the_longest_unused_makes_room(begin):
    policies = served(3)
    process = begin(2.5)
    until(lambda: sorted(states(policies)) == ["asleep", "ready", "ready"])
    asleep = next(policy for policy in policies if states([policy]) == ["asleep"])
    one, other = (policy for policy in policies if policy != asleep)
    for policy in (one, other, asleep):
        assert over(say(chat(policy, max_new_tokens=20))).state == State.DONE
    until(lambda: states([one, other, asleep]) == ["asleep", "ready", "ready"])
    assert loadings(process) == 3


def test_two_that_are_busy_take_turns_and_both_are_done(begin):
    policies = served(2)
    requests = [bulk(policy, 20, max_new_tokens=120) for policy in policies]
    process = begin(1.5)

    def left():
        return [some.exclude(state=State.DONE).count() for some in requests]

    until(lambda: left() == [0, 0], 120)
    assert {*GenerationRequest.objects.filter(purpose="alternatives").values_list("attempt", flat=True)} == {1}
    # Each had its second at least, or had nothing left.
    assert 2 <= loadings(process) <= 40


def test_people_do_not_wait_for_all_bulk_of_another_and_are_told_meanwhile(begin, settings):
    settings.WORKER_SWAP_SECONDS = 2
    busy, asked = served(2)
    # More than is written in that time, by far.
    requests = bulk(busy, 80, max_new_tokens=200)
    process = begin(1.5)
    until(lambda: requests.filter(state=State.CLAIMED).exists())
    reply = say(chat(asked, max_new_tokens=20))
    told = until(lambda: states([asked]) != ["asleep"] and states([asked]))
    assert told == ["waiting"]
    assert over(reply, 60).state == State.DONE
    assert requests.filter(state=State.WAITING).exists()
    until(lambda: not requests.exclude(state=State.DONE).exists(), 120)
    assert loadings(process) <= 5


def test_bulk_that_takes_long_is_given_back_once_where_people_wait(begin):
    busy, asked = served(2)
    # Far longer than a second of patience.
    requests = bulk(busy, 8, max_new_tokens=1500)
    process = begin(1.5)
    until(lambda: requests.filter(state=State.CLAIMED).exists())
    reply = over(say(chat(asked, max_new_tokens=20)), 60)
    assert reply.state == State.DONE
    assert not requests.filter(state=State.DONE).exists()
    # It costs no attempt, and what was put off once is finished although people wait again.
    until(lambda: requests.filter(state=State.CLAIMED).exists(), 60)
    again = say(chat(asked, max_new_tokens=20))
    until(lambda: requests.filter(state=State.DONE).exists(), 150)
    assert over(again, 60).state == State.DONE
    assert {*requests.values_list("attempt", flat=True)} <= {0, 1}
    assert loadings(process) <= 6


def test_one_that_cannot_be_loaded_keeps_no_other_from_being_served(begin, tiny_models):
    good = factory.policy(location="endless")
    broken = factory.policy(location="broken")
    folder = tiny_models / "broken"
    if not folder.is_dir():
        tiny.build(folder)
        (folder / "tokenizer.json").write_text("{}")
    begin(1.5)
    # While nothing is asked of either, the one that is looked at first is held.
    waits = say(chat(broken))
    until(lambda: states([broken]) == ["failed"])
    assert over(say(chat(good))).state == State.DONE
    until(lambda: states([good]) == ["ready"])
    assert over(say(chat(good))).state == State.DONE
    waits.refresh_from_db()
    assert waits.state == State.WAITING


def test_what_is_larger_than_all_memory_is_tried_alone(begin):
    policy = factory.policy(location="endless")
    begin(0.01)
    assert over(say(chat(policy))).state == State.DONE


def test_a_policy_that_is_switched_off_leaves_its_room_to_others(begin):
    policies = served(2)
    begin(1.5)
    until(lambda: sorted(states(policies)) == ["asleep", "ready"])
    policies.sort(key=lambda policy: states([policy]))
    asleep, ready = policies
    ready.active = False
    ready.save()
    until(lambda: states([asleep, ready]) == ["ready", "absent"])


def test_a_model_whose_process_ends_gives_back_what_it_holds_while_another_waits(begin):
    policies = served(2)
    requests = [say(chat(policy, max_new_tokens=1900)) for policy in policies]
    process = begin(1.5)
    until(lambda: GenerationRequest.objects.filter(state=State.CLAIMED).exists())
    process.drain(0)
    process.join(20)
    for request in requests:
        request.refresh_from_db()
        assert (request.state, request.attempt) == (State.WAITING, 0)
