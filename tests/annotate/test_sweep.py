"""The sweep does what time alone changes, and rings for what waits."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import assignments, bell, conversations, sweep
from annotate.models import Assignment, GenerationRequest
from tests import factory

pytestmark = pytest.mark.django_db


def test_it_expires_gives_back_and_rings(monkeypatch):
    rung = []
    monkeypatch.setattr(bell, "ring_now", rung.append)
    project = factory.project()
    factory.open_comparison(project)
    slot = assignments.claim(user=factory.trainer(project), project=project)
    chat = factory.held_chat(project, factory.trainer(project))
    request = factory.claimed(conversations.say(assignment=chat, user=chat.trainer, text="Hi"))
    past = timezone.now() - timedelta(seconds=1)
    Assignment.objects.filter(pk=slot.pk).update(lease_until=past)
    GenerationRequest.objects.filter(pk=request.pk).update(lease_until=past)
    done = sweep.run()
    assert (done["assignments expired"], done["requests given back"]) == (1, 1)
    assert rung == [request.policy_id]


def test_it_finds_the_families_of_a_few(monkeypatch):
    conversation = factory.imported(factory.project(), family="")
    assert sweep.run()["families found"] == 1
    conversation.refresh_from_db()
    assert conversation.family


def test_with_nothing_to_do_it_asks_a_fixed_number_of_questions(django_assert_max_num_queries):
    factory.project()
    with django_assert_max_num_queries(26):
        assert not any(sweep.run().values())


def test_a_bell_that_cannot_ring_is_no_error(settings, monkeypatch, caplog):
    from kombu import Connection

    monkeypatch.setattr(bell, "_ringing", Connection("redis://127.0.0.1:1/0", transport_options={"max_retries": 0}))
    bell.ring_now(7)
    assert "bell of worker.look [7] did not ring" in caplog.text
