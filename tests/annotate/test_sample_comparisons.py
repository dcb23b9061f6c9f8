"""`sample_comparisons`: messages of finished chats are drawn for ranking."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from annotate import bell, iterations, scores
from annotate.models import Comparison, GenerationRequest
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factory.project(slug="demo")


def sample(count: int | str, project: str = "demo", messages: str = "any", *more: str) -> str:
    said = StringIO()
    arguments = ["--project", project, "--count", str(count), "--messages", messages, *more]
    call_command("sample_comparisons", *arguments, stdout=said)
    return said.getvalue()


def test_it_draws_other_messages_of_finished_chats(project):
    conversation = factory.finished_chat(project, turns=4)
    drawn = Comparison.objects.get().message
    said = sample(2)
    assert said == "comparisons begun in demo: 2; their alternatives are being sampled\n"
    messages = {comparison.message for comparison in Comparison.objects.all()}
    assert len(messages) == 3
    assert drawn in messages
    assert {message.conversation for message in messages} == {conversation}
    waiting = GenerationRequest.objects.filter(purpose="alternatives", state="waiting")
    assert waiting.count() == 3


def test_each_policy_is_rung_for_once(monkeypatch, django_capture_on_commit_callbacks):
    project = factory.shared_project(1, 1, slug="demo", k=5)
    factory.finished_chat(project, turns=6)
    rung = []
    monkeypatch.setattr(bell, "_send", lambda task, args, queue: rung.append((task, *args)))
    with django_capture_on_commit_callbacks(execute=True):
        sample(5)
    assert sorted(rung) == sorted(("worker.look", policy.pk) for policy in project.policies.all())


def test_it_says_when_no_message_is_left(project):
    factory.finished_chat(project, turns=2)
    said = sample(5)
    assert said.startswith("comparisons begun in demo: 1;")
    assert "there is no further message to draw" in said
    assert sample(1) == (
        "nothing is left to draw from in demo: no finished chat or imported conversation has a complete reply "
        "without a comparison\n"
    )
    assert sample(1, messages="model") == (
        "nothing is left to draw from in demo: no finished chat has a complete reply without a comparison\n"
    )


def test_it_draws_answers_of_imported_conversations_unless_told_otherwise(project):
    factory.imported(project)
    assert sample(5, messages="model").startswith("nothing is left")
    assert sample(5).startswith("comparisons begun in demo: 1;")


@pytest.mark.parametrize(
    ("count", "project_named", "says"),
    [(0, "demo", "--count is 1 or more."), (-3, "demo", "--count is 1 or more."), (1, "nope", "There is no project")],
)
def test_refusals(project, count, project_named, says):
    with pytest.raises(CommandError) as refusal:
        sample(count, project_named)
    assert refusal.value.returncode == 2
    assert says in str(refusal.value)


def test_without_an_open_iteration(project):
    factory.finished_chat(project, turns=2)
    iterations.close(iteration=factory.current(project))
    with pytest.raises(CommandError) as refusal:
        sample(1)
    assert refusal.value.returncode == 2
    assert str(refusal.value) == "Project demo has no open iteration; open one first."


def test_a_share_is_chosen_where_the_reward_model_is_uncertain(project):
    factory.finished_chat(project, turns=6)
    project.scored_by = factory.reward_run(project, metrics={"heads": 4})
    project.save()
    said = sample(3, "demo", "any", "--select", "uncertain", "--share", "0.5", "--pool", "3")
    assert said == (
        "comparisons begun in demo: 5; their alternatives are being sampled\n"
        "to be ranked: 3, of which 2 are drawn at random; each of the others is chosen from a pool, once that is "
        "sampled and scored\n"
    )
    assert Comparison.objects.filter(pool__isnull=False).count() == 3


@pytest.mark.parametrize(
    ("heads", "more", "says"),
    [
        (None, ("--select", "uncertain"), "No reward model scores the comparisons of demo"),
        (1, ("--select", "uncertain"), "one head, which has nobody to disagree with"),
        (4, ("--select", "uncertain", "--share", "0"), "The share is above 0 and at most 1."),
        (4, ("--select", "uncertain", "--share", "nan"), "The share is above 0 and at most 1."),
        (4, ("--select", "uncertain", "--share", "0.1"), "A share of 0.1 of 4 is none"),
        (4, ("--select", "uncertain", "--pool", "1"), "A pool has 2 to 50 comparisons."),
        (4, ("--share", "0.5"), "--share and --pool go with --select uncertain."),
        (4, ("--pool", "4"), "--share and --pool go with --select uncertain."),
    ],
)
def test_refusals_of_what_is_chosen(project, heads, more, says):
    if heads:
        project.scored_by = factory.reward_run(project, metrics={"heads": heads})
        project.save()
    with pytest.raises(CommandError) as refusal:
        sample(4, "demo", "any", *more)
    assert refusal.value.returncode == 2
    assert says in str(refusal.value)


def test_a_model_that_does_not_score_is_told(project):
    factory.finished_chat(project, turns=3)
    project.scored_by = factory.reward_run(project, metrics={"heads": 4})
    project.save()
    scores.tell_trouble(run=project.scored_by, reason="There is no folder.")
    with pytest.raises(CommandError, match=r"does not score now: There is no folder\. A worker"):
        sample(1, "demo", "any", "--select", "uncertain")
    assert Comparison.objects.count() == 1
