"""`sample_comparisons`: messages of finished chats are drawn for ranking."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from annotate import iterations
from annotate.models import Comparison, GenerationRequest
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factory.project(slug="demo")


def sample(count: int | str, project: str = "demo", messages: str = "any") -> str:
    said = StringIO()
    arguments = ["--project", project, "--count", str(count), "--messages", messages]
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
