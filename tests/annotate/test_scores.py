"""Scores: which candidates are missing, what is kept of them, and who is rung for."""

import math

import pytest

from annotate import bell, scores, sweep
from annotate.errors import BothsidesError
from annotate.models import Comparison, Project
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def rows(module_rows):
    """A project with a reward model, an open comparison, one that closed after it, and an imported one."""
    project = factory.project(overlap=1)
    run = factory.reward_run(project)
    open_one, closed = factory.open_comparison(project), factory.open_comparison(project)
    factory.ranking(closed)
    factory.imported_comparison(project)
    return project, run, open_one, closed


@pytest.fixture
def rung(monkeypatch) -> list[int]:
    """The projects that were rung for."""
    heard: list[int] = []
    monkeypatch.setattr(bell, "_send", lambda task, args, queue: heard.append((task, *args, queue)))
    return heard


def missing(project, run, limit=100) -> list[int]:
    return [one.pk for one in scores.missing(project=project, run=run, limit=limit)]


def ids(comparison) -> list[int]:
    return sorted(comparison.candidates.values_list("pk", flat=True))


def test_open_comparisons_come_first_and_imported_ones_are_none_of_them(rows) -> None:
    project, run, open_one, closed = rows
    assert missing(project, run) == ids(open_one) + ids(closed)
    assert missing(project, run, 5) == ids(open_one) + ids(closed)[:1]
    assert scores.missing(project=factory.project(), run=run, limit=9) == []
    Comparison.objects.filter(pk=closed.pk).update(state="sampling", opened_at=None, closed_at=None)
    assert missing(project, run) == ids(closed) + ids(open_one)
    Comparison.objects.filter(pk=closed.pk).update(state="failed")
    assert missing(project, run) == ids(open_one)


def test_what_was_kept_stays_and_what_cannot_be_read_is_not_tried_again(rows) -> None:
    project, run, open_one, closed = rows
    first, second, third, fourth = ids(open_one)
    scores.keep(run=run, by_head={first: [1.25, 1.75], second: None, third: [math.nan, 0.0]})
    scores.keep(run=run, by_head={first: [9.0, 8.0], second: [9.0, 8.0], fourth: [0.5, 0.5]})
    kept = {first: (1.5, 0.25), second: None, third: None, fourth: (0.5, 0.0)}
    assert scores.of_comparison(comparison=open_one, run=run) == kept
    assert missing(project, run) == ids(closed)
    assert scores.counts(project=project, run=run) == scores.Counts(scored=2, unreadable=2, missing=4)
    assert len(missing(project, factory.reward_run(project))) == 8


def test_a_model_is_chosen_by_the_project_or_named(rows) -> None:
    project, run, *_ = rows
    with pytest.raises(BothsidesError, match="no reward model that scores"):
        scores.run_of(project=project)
    assert scores.run_of(project=project, number=str(run.pk)) == run
    scores.score_by(project=project, run=run)
    assert scores.run_of(project=Project.objects.get(pk=project.pk)) == run
    scores.score_by(project=project, run=None)
    assert Project.objects.get(pk=project.pk).scored_by is None


@pytest.mark.parametrize("fields", [{"kind": "sft"}, {"state": "failed", "location": "", "digest": ""}])
def test_what_made_no_reward_model_is_refused(rows, fields) -> None:
    run = factory.reward_run(rows[0], **fields)
    with pytest.raises(BothsidesError, match="what scores is a reward run"):
        scores.run_of(project=rows[0], number=str(run.pk))


@pytest.mark.parametrize("number", ["999999", "x"])
def test_a_run_that_is_not_there_is_refused(rows, number) -> None:
    with pytest.raises(BothsidesError, match="no training run"):
        scores.run_of(project=rows[0], number=number)
    with pytest.raises(BothsidesError, match="what scores is a reward run"):
        scores.run_of(project=factory.project(), number=str(rows[1].pk))


def test_a_worker_is_rung_for_when_a_comparison_opens_and_when_a_model_is_chosen(
    rows, rung, django_capture_on_commit_callbacks
) -> None:
    project, run, *_ = rows
    bells = [("worker.score", project.pk, "training")]
    with django_capture_on_commit_callbacks(execute=True):
        factory.open_comparison(project)
    assert not [one for one in rung if one[0] == "worker.score"]
    with django_capture_on_commit_callbacks(execute=True):
        scores.score_by(project=project, run=run)
    assert rung[-1:] == bells
    with django_capture_on_commit_callbacks(execute=True):
        factory.open_comparison(project)
    assert [one for one in rung if one[0] == "worker.score"] == bells * 2


def test_the_sweep_rings_for_a_project_that_is_scored_once_in_a_while(rows, rung) -> None:
    project, run, *_ = rows
    sweep.run()
    assert not rung
    scores.score_by(project=project, run=run)
    sweep.run()
    sweep.run()
    assert [one for one in rung if one[0] == "worker.score"] == [("worker.score", project.pk, "training")]


def test_one_holder_at_a_time_until_it_lets_go(db) -> None:
    assert scores.hold(project_id=1, holder="one")
    assert scores.hold(project_id=1, holder="one")
    assert not scores.hold(project_id=1, holder="other")
    assert scores.hold(project_id=2, holder="other")
    scores.let_go(project_id=1, holder="other")
    assert not scores.hold(project_id=1, holder="other")
    scores.let_go(project_id=1, holder="one")
    assert scores.hold(project_id=1, holder="other")


def test_trouble_is_told_until_it_is_over(rows) -> None:
    run = rows[1]
    scores.tell_trouble(run=run, reason="The folder is not there.")
    assert scores.trouble(run) == "The folder is not there."
    scores.tell_trouble(run=run, reason="")
    assert scores.trouble(run) == ""
