"""What one worker process holds, and its sign of life."""

import pytest

from annotate import streams
from tests import factory
from tests.worker.watching import until
from worker.process import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def begin(settings, tiny_models):
    """Starts a worker process's loops in this one; ended with the test."""
    settings.WORKER_HEARTBEAT_SECONDS = 0.2
    settings.WORKER_DEVICE = "cpu"
    begun = []

    def start():
        process = WorkerProcess()
        begun.append(process)
        process.start()
        return process

    yield start
    for process in begun:
        process.drain(0)
        process.join(20)


def state(policy):
    return streams.policy_state(policy.pk)[0]


def test_it_serves_all_active_policies_and_such_as_are_added(begin):
    first, idle = factory.policy(location="tiny"), factory.policy(location="tiny", active=False)
    begin()
    until(lambda: state(first) == "ready")
    second = factory.policy(location="tiny")
    until(lambda: state(second) == "ready")
    assert state(idle) == "absent"


def test_it_serves_only_the_policies_named_to_it(begin, settings):
    mine, other = factory.policy(location="tiny"), factory.policy(location="tiny")
    settings.WORKER_POLICIES = [mine.name]
    begin()
    until(lambda: state(mine) == "ready")
    assert state(other) == "absent"


def test_a_policy_that_is_no_longer_active_is_put_down(begin):
    policy = factory.policy(location="tiny")
    process = begin()
    until(lambda: state(policy) == "ready")
    policy.active = False
    policy.save()
    until(lambda: state(policy) == "absent")
    assert not process._loops
    policy.active = True
    policy.save()
    until(lambda: state(policy) == "ready")


def test_it_says_why_a_model_cannot_be_served(begin):
    policy = factory.policy(location="/nowhere")
    begin()
    until(lambda: state(policy) == "failed")
    assert streams.policy_state(policy.pk) == ("failed", "There is no folder /nowhere.")


def test_its_sign_of_life_expires(begin, settings):
    process = begin()
    until(streams.heartbeats)
    assert list(streams.heartbeats()) == [process.name]
    assert 0 < streams.client().pttl(f"{streams.HEARTBEAT}{process.name}") <= 600


def test_its_sign_of_life_ends_with_it(begin):
    process = begin()
    until(streams.heartbeats)
    process.drain(0)
    process.join(10)
    assert streams.heartbeats() == {}
