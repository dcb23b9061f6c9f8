"""`manage.py prepare_demo`: everything for a first look, once, and links that sign in."""

import io
from collections import Counter

import pytest
from django.core.management import call_command

from annotate import access, demo
from annotate.models import Assignment, GuidelineVersion, Iteration, Policy, Project, Prompt, Role, User

pytestmark = pytest.mark.django_db

MIX = {
    "generation": 45.6,
    "open QA": 12.4,
    "brainstorming": 11.2,
    "chat": 8.4,
    "rewrite": 6.6,
    "summarisation": 4.2,
    "classification": 3.5,
    "other": 3.5,
    "closed QA": 2.6,
    "extraction": 1.9,
}
"""InstructGPT's use cases, per cent of its prompts."""


def prepared() -> list[str]:
    """The lines that the command prints."""
    out = io.StringIO()
    call_command("prepare_demo", stdout=out)
    return out.getvalue().splitlines()


def test_everything_is_there() -> None:
    prepared()
    project = Project.objects.get(slug="demo")
    assert (project.name, project.k, project.overlap, project.authors_rank_own) == ("Everyday help", 4, 1, True)
    iteration = project.iterations.get(state=Iteration.State.OPEN)
    assert iteration.reply_policy == Policy.objects.get(
        name="SmolLM2-135M-Instruct", location="SmolLM2-135M-Instruct", active=True
    )
    assert iteration.guidelines == GuidelineVersion.objects.get(project=project)
    free = project.assignments.filter(state=Assignment.State.FREE)
    assert Counter(free.values_list("kind", flat=True)) == {Assignment.Kind.CHAT: 20, Assignment.Kind.WRITE: 20}


def test_prompts_are_forty_in_instructgpts_mix() -> None:
    prepared()
    prompts = Prompt.objects.filter(project__slug="demo")
    assert prompts.count() == 40
    assert prompts.values("family").distinct().count() == 40
    shares = Counter(prompts.values_list("use_case", flat=True))
    assert set(shares) == set(MIX)
    # A prompt is 2.5 of a hundred: no share is further off than that.
    assert all(abs(count * 2.5 - MIX[use_case]) < 2.5 for use_case, count in shares.items())


def test_people_have_their_roles_and_see_the_project() -> None:
    prepared()
    project = Project.objects.get(slug="demo")
    for role in (Role.TRAINER, Role.REVIEWER, Role.ADMIN):
        user = User.objects.get(email=f"{role}@demo.invalid")
        assert access.roles_of(user) == {role}
        assert access.project_for(user, "demo") == project
        assert user.is_staff == (role == Role.ADMIN)
        assert not user.has_usable_password()


def test_prints_one_labelled_link_for_each(client, settings) -> None:
    lines = prepared()
    assert [line.split()[0] for line in lines] == ["Trainer:", "Reviewer:", "Admin:"]
    for line, email in zip(lines, demo.PEOPLE.values(), strict=True):
        link = line.split()[1]
        assert link.startswith(settings.SITE_URL)
        client.post(link.removeprefix(settings.SITE_URL))
        assert client.session["_auth_user_id"] == str(User.objects.get(email=email).pk)


def test_a_second_time_changes_nothing(django_assert_max_num_queries) -> None:
    prepared()
    project = Project.objects.get(slug="demo")
    project.name, project.k = "Renamed", 3
    project.save()
    Prompt.objects.filter(project=project).first().delete()
    Assignment.objects.filter(project=project).first().delete()
    User.objects.get(email="reviewer@demo.invalid").delete()
    with django_assert_max_num_queries(60):
        prepared()
    project.refresh_from_db()
    assert (project.name, project.k) == ("Renamed", 3)
    assert (project.prompts.count(), project.assignments.count(), project.iterations.count()) == (39, 39, 1)
    assert set(User.objects.values_list("email", flat=True)) == set(demo.PEOPLE.values())
