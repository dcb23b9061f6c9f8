"""Rounds: opened with the settings of the day, closed when held work is in."""

import pytest
from django.db import IntegrityError, transaction

from annotate import assignments, iterations, rankings
from annotate.errors import Conflict, Invalid, NothingLeft
from annotate.models import Assignment, Iteration
from tests import factory

pytestmark = pytest.mark.django_db


def test_it_opens_with_the_settings_of_the_day():
    project = factory.project(iteration=False, k=6, overlap=3, temperature=0.5)
    iteration = iterations.open_next(project=project)
    assert (iteration.number, iteration.state, iteration.k, iteration.overlap) == (1, "open", 6, 3)
    assert iteration.sampling == {"max_new_tokens": 256, "temperature": 0.5, "top_p": 0.95, "top_k": 0}
    assert iteration.guidelines.text == factory.GUIDELINES
    assert list(iteration.policies.all()) == [iteration.reply_policy]


def test_one_is_open_at_a_time():
    project = factory.project()
    with pytest.raises(Conflict):
        iterations.open_next(project=project)
    with pytest.raises(IntegrityError), transaction.atomic():
        Iteration.objects.create(
            project=project, number=9, k=4, overlap=1, sampling={}, reply_policy=project.policies.get()
        )


def test_it_needs_an_active_policy():
    project = factory.project(iteration=False, served_by=factory.policy(active=False))
    with pytest.raises(Invalid):
        iterations.open_next(project=project)


def test_closing_waits_for_held_work_and_the_next_one_follows():
    project = factory.project(overlap=2)
    factory.open_comparison(project)
    factory.open_comparison(project)
    slot = assignments.claim(user=factory.trainer(project), project=project)
    iteration = factory.current(project)
    iterations.close(iteration=iteration)
    with pytest.raises(NothingLeft):
        assignments.claim(user=factory.trainer(project), project=project)
    assert iterations.close_finished() == 0
    rankings.submit(assignment=slot, user=slot.trainer, tiers=[[pk] for pk in slot.shown_order])
    assert iterations.close_finished() == 1
    iteration.refresh_from_db()
    assert (iteration.state, iteration.closed_at is not None) == ("closed", True)
    assert set(iteration.comparisons.values_list("state", flat=True)) == {"closed"}
    assert not Assignment.objects.filter(state__in=["free", "held"]).exists()
    with pytest.raises(Conflict):
        iterations.close(iteration=iteration)
    assert iterations.open_next(project=project).number == 2


def test_closing_waits_for_alternatives():
    project = factory.project()
    conversation = factory.finished_chat(project)
    comparison = conversation.messages.last().comparisons.get()
    iterations.close(iteration=factory.current(project))
    assert iterations.close_finished() == 0
    factory.answer(comparison.requests.get())
    comparison.refresh_from_db()
    assert comparison.state == "failed"
    assert iterations.close_finished() == 1
