"""Scoring: what a reward model gives to candidates, in a process beside the worker, and who gets to see it when."""

import io
import math
import shutil
import sys

import psutil
import pytest
import torch
import transformers
from django.core.management import CommandError, call_command
from django.urls import reverse

from annotate import scores, streams, uncertain
from annotate.models import Comparison, Completion, Score
from tests import factory, site, tiny
from tests.worker.watching import until
from worker import scoring, scoring_process
from worker.scoring_process import ScoringProcess
from worker.training import scoring as training_scoring
from worker.training.scoring import Scorer, normalise, save

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ONE_THAT_SCORES = """
import django
django.setup()
from annotate import scores
from annotate.models import Project
project = Project.objects.get(pk={pk})
batch = scores.missing(project=project, run=project.scored_by, limit=4)
scores.keep(run=project.scored_by, by_head=dict.fromkeys([one.pk for one in batch], [1.0, 0.5]))
"""
ONE_THAT_FAILS = "raise SystemExit('Refused: There is no model.')"
ONE_THAT_HANGS = "import time; time.sleep(600)"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A reward model of three heads that were never trained."""
    folder = tmp_path_factory.mktemp("reward")
    body = tiny.build(folder / "tiny")
    torch.manual_seed(1)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(body, num_labels=3)
    save(model, transformers.AutoTokenizer.from_pretrained(body), folder / "reward")
    normalise(folder / "reward", [0.5, 0.5, 0.5])
    return folder / "reward"


@pytest.fixture
def project(tiny_models):
    return factory.project(served_by=factory.policy(location="tiny"), overlap=1, authors_rank_own=True)


@pytest.fixture
def run(project, made, tmp_path, settings):
    """The run that made the reward model, by which the project is scored."""
    settings.BOTHSIDES_HOME = tmp_path
    found = factory.reward_run(project, options={"name": "reward"}, metrics={"heads": 3})
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "reward").symlink_to(made)
    scores.score_by(project=project, run=found)
    return found


@pytest.fixture
def processes(monkeypatch):
    """Scoring processes that run a Python text; ended with the test."""
    for name, value in site.environment(DJANGO_SETTINGS_MODULE="annotate.settings").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(scoring_process, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(scoring_process, "APART_SECONDS", 0.0)
    begun = []

    def begin(text: str) -> ScoringProcess:
        begun.append(ScoringProcess(lambda project: [sys.executable, "-c", text.format(pk=project.pk)]))
        return begun[-1]

    yield begin
    for one in begun:
        one.drain()
        one.join(20)


def ended(one: ScoringProcess) -> bool:
    return one._watch is None


def hanging() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if ONE_THAT_HANGS in child.cmdline()]


def told(*words: str) -> str:
    out = io.StringIO()
    call_command("score", *words, stdout=out)
    return out.getvalue()


def test_every_candidate_gets_what_the_model_gives_to_its_text_behind_its_context(project, run, made, monkeypatch):
    monkeypatch.setattr(scoring, "AT_ONCE", 3)
    monkeypatch.setattr(scoring, "LOOKED_UP", 5)
    first, second = factory.open_comparison(project, turns=2), factory.open_comparison(project)
    heard = []
    assert scoring.score(project=project, run=run, told=heard.append) == 8
    assert heard == [3, 5, 8]
    assert not scores.missing(project=project, run=run, limit=1)
    scorer = Scorer(made)
    for comparison in (first, second):
        before = [{"role": one.role, "content": one.text} for one in comparison.message.conversation.messages.all()]
        before = before[: comparison.message.position]
        kept = scores.of_comparison(comparison=comparison, run=run)
        for candidate in comparison.candidates.all():
            (reward,) = scorer.score([(before, candidate.completion.text)])
            assert kept[candidate.pk] == pytest.approx(reward, abs=1e-4)
            assert reward[1] > 0
    assert scoring.score(project=project, run=run) == 0


def test_a_pool_has_its_comparison_as_soon_as_all_of_it_is_scored(project, run):
    factory.finished_chat(project, turns=4)
    pool = uncertain.sample(project=project, count=1, share=1, pool_size=3)
    for comparison in pool:
        factory.answer(comparison.requests.get())
    scoring.score(project=project, run=run, most=11)
    assert set(Comparison.objects.filter(pool=pool[0]).values_list("state", flat=True)) == {"sampling"}
    scoring.score(project=project, run=run)
    states = Comparison.objects.filter(pool=pool[0]).values_list("state", flat=True)
    assert sorted(states) == ["open", "passed_over", "passed_over"]


def test_what_cannot_be_read_is_remembered_and_keeps_nothing_else_from_being_scored(project, run, monkeypatch):
    comparison = factory.open_comparison(project)
    long, refused, *others = comparison.candidates.order_by("id")
    Completion.objects.filter(pk=long.completion_id).update(text="the " * 3000)
    Completion.objects.filter(pk=refused.completion_id).update(text="refuse me")
    template = tiny.CHAT_TEMPLATE + "{% if 'refuse' in messages[-1].content %}{{ raise_exception('No.') }}{% endif %}"
    real = Scorer.__init__

    def changed(scorer, *args, **how):
        real(scorer, *args, **how)
        scorer._tokenizer.chat_template = template

    monkeypatch.setattr(Scorer, "__init__", changed)
    assert scoring.score(project=project, run=run) == 4
    kept = scores.of_comparison(comparison=comparison, run=run)
    assert [candidate for candidate, reward in kept.items() if reward is None] == [long.pk, refused.pk]
    assert len(kept) == 2 + len(others) == 4
    assert scoring.score(project=project, run=run) == 0


def test_a_text_on_which_the_model_fails_keeps_nothing_else_from_being_scored(project, run, monkeypatch):
    comparison = factory.open_comparison(project)
    large, *others = comparison.candidates.order_by("id")
    Completion.objects.filter(pk=large.completion_id).update(text="the " * 500)
    real, most = Scorer._batch, [0]

    def short_of_memory(scorer, ids):
        if max(map(len, ids)) > most[0]:
            raise torch.OutOfMemoryError("Out of memory.")
        return real(scorer, ids)

    monkeypatch.setattr(Scorer, "_batch", short_of_memory)
    # Where it fails on all it says nothing of any.
    with pytest.raises(torch.OutOfMemoryError):
        scoring.score(project=project, run=run)
    assert not Score.objects.exists()
    most[0] = 500
    assert scoring.score(project=project, run=run) == 4
    kept = scores.of_comparison(comparison=comparison, run=run)
    assert [candidate for candidate, reward in kept.items() if reward is None] == [large.pk]
    assert len(kept) == 1 + len(others)


def test_long_texts_are_read_few_at_a_time(made, monkeypatch):
    scorer, asked = Scorer(made), [{"role": "user", "content": "who"}]
    texts = [(asked, "the " * count) for count in (1, 300, 2, 100, 90, 900)]
    alone = [scorer.score([text])[0] for text in texts]
    monkeypatch.setattr(training_scoring, "TOKENS_AT_ONCE", 400)
    real, batches = Scorer._batch, []

    def heard(scorer, ids):
        batches.append([len(one) for one in ids])
        return real(scorer, ids)

    monkeypatch.setattr(Scorer, "_batch", heard)
    done = []
    for one, other in zip(scorer.score(texts, done.append), alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert [len(batch) for batch in batches] == [1, 1, 3, 1]
    assert done == [1, 2, 5, 6]
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 400 for batch in batches)


def test_what_the_model_gives_no_number_keeps_nothing_else_from_being_scored(project, run, monkeypatch):
    comparison = factory.open_comparison(project)
    real = Scorer._batch

    def broken(scorer, ids):
        (_, *wrong), *others = real(scorer, ids)
        return [[math.nan, *wrong], *others]

    monkeypatch.setattr(Scorer, "_batch", broken)
    assert scoring.score(project=project, run=run) == 4
    kept = scores.of_comparison(comparison=comparison, run=run)
    assert (len(kept), list(kept.values()).count(None)) == (4, 1)


def test_the_command_scores_and_says_how_many(project, run):
    factory.open_comparison(project)
    scores.tell_trouble(run=run, reason="It was away.")
    assert "scored by run" in told("--project", project.slug, "--most", "3")
    assert Score.objects.count() == 3
    assert scores.trouble(run) == ""
    other = factory.reward_run(project, options={"name": "reward"}, location="reward-other")
    assert f"by run {other.pk} now: 4; in all: 4" in told("--project", project.slug, "--run", str(other.pk))
    project.refresh_from_db()
    assert project.scored_by == run
    assert "now: 1; in all: 4" in told("--project", project.slug)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--project", "nowhere"], "no project"),
        (["--run", "77777"], "no training run"),
        (["--most", "0"], "1 or more"),
        (["--run", "x"], "no training run"),
    ],
)
def test_the_command_refuses(project, run, words, reason):
    words = words if "--project" in words else ["--project", project.slug, *words]
    with pytest.raises(CommandError, match=reason) as refused:
        told(*words)
    assert refused.value.returncode == 2


def test_a_model_that_is_not_here_or_broken_is_said_in_one_line(project, run, made, tmp_path):
    factory.open_comparison(project)
    (tmp_path / "models" / "reward").unlink()
    with pytest.raises(CommandError, match="is not on this machine: there is no folder") as refused:
        told("--project", project.slug)
    assert refused.value.returncode == 2
    (tmp_path / "models" / "reward").mkdir()
    with pytest.raises(CommandError, match="cannot be loaded") as refused:
        told("--project", project.slug)
    assert "\n" not in str(refused.value)
    (tmp_path / "models" / "reward").rmdir()
    shutil.copytree(made, tmp_path / "models" / "reward")
    normalise(tmp_path / "models" / "reward", [math.nan, 0.5, 0.5])
    with pytest.raises(CommandError, match="has a head that is no numbers"):
        told("--project", project.slug)
    assert not Score.objects.exists()
    scores.score_by(project=project, run=None)
    with pytest.raises(CommandError, match="no reward model that scores"):
        told("--project", project.slug)


def test_a_bell_has_all_scored_project_by_project(project, run, processes):
    other = factory.project(overlap=1)
    scores.score_by(project=other, run=factory.reward_run(other))
    for one in (project, other, project):
        factory.open_comparison(one)
    scores.tell_trouble(run=run, reason="It was away.")
    one = processes(ONE_THAT_SCORES)
    for each in (project, other, factory.project()):
        one.ring(each.pk)
    until(lambda: ended(one))
    assert Score.objects.count() == 12
    assert scores.trouble(run) == ""


def test_a_model_that_fails_is_said_once_and_left_alone_for_a_while(project, run, processes, caplog, monkeypatch):
    factory.open_comparison(project)
    one = processes(ONE_THAT_FAILS)
    for again in (0, 0, 600):
        one.ring(project.pk)
        until(lambda: ended(one))
        assert scores.trouble(run) == "There is no model."
        monkeypatch.setattr(scoring_process, "AGAIN_SECONDS", again)
    assert [record.message for record in caplog.records if "does not score" in record.message] == [
        f"The reward model of run {run.pk} does not score: There is no model."
    ]
    scores.tell_trouble(run=run, reason="")
    one.ring(project.pk)
    until(lambda: ended(one))
    assert scores.trouble(run) == ""


def test_two_workers_do_not_score_the_same_project_at_once_and_draining_kills(project, run, processes):
    factory.open_comparison(project)
    one, other = processes(ONE_THAT_HANGS), processes(ONE_THAT_SCORES)
    one.ring(project.pk)
    (child,) = until(hanging)
    assert child.nice() > psutil.Process().nice()
    other.ring(project.pk)
    until(lambda: ended(other))
    assert not Score.objects.exists()
    one.drain()
    one.join(10)
    assert not child.is_running()
    assert scores.trouble(run) == ""
    other.ring(project.pk)
    until(lambda: ended(other))
    assert Score.objects.count() == 4


def test_a_model_that_is_chosen_no_more_scores_no_more(project, run, processes, monkeypatch):
    monkeypatch.setattr(scoring_process, "RENEW_SECONDS", 0.1)
    factory.open_comparison(project)
    one = processes(ONE_THAT_HANGS)
    one.ring(project.pk)
    until(hanging)
    scores.score_by(project=project, run=None)
    until(lambda: ended(one))
    assert scores.hold(project_id=project.pk, holder="other")
    assert scores.trouble(run) == ""


def test_a_worker_scores_what_opens_and_reviewers_see_it_after_the_ranking(project, run, launch, client, tmp_path):
    reviewer = factory.person(project, role="reviewer", name="Ray")
    launch(BOTHSIDES_HOME=str(tmp_path), WORKER_POLICIES="none")
    until(streams.heartbeats, 60)
    comparison = factory.open_comparison(project)
    until(lambda: Score.objects.count() == 4, 60)
    client.force_login(reviewer, backend="sesame.backends.ModelBackend")
    page = reverse("review_comparison", args=[comparison.pk])
    assert "Reward model" not in client.get(page).content.decode()
    factory.ranking(comparison)
    shown = client.get(page).content.decode()
    for reward, _ in scores.of_comparison(comparison=comparison, run=run).values():
        assert f"{reward:.2f}" in shown
