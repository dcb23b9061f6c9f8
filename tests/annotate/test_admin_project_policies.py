"""The policies on a project's page: what is refused, warned of, and said of the next iteration."""

import re

import pytest
from django.urls import reverse

from annotate import iterations
from annotate.models import Iteration, Policy, Project, ProjectPolicy, Role
from tests import factory
from tests.admin_pages import filled

pytestmark = pytest.mark.django_db

ROWS = "projectpolicy_set"
KEEPS = "The open iteration keeps the settings that it began with; yours count from the next one on."


@pytest.fixture
def project() -> Project:
    made = factory.shared_project(1, 1, slug="field")
    for name, policy in zip(("ours", "theirs"), made.policies.order_by("id"), strict=True):
        Policy.objects.filter(pk=policy.pk).update(name=name)
    return made


def page_of(project: Project) -> str:
    return reverse("admin:annotate_project_change", args=[project.pk])


def saved(client, project: Project, *rows: dict, **changes):
    """The page that follows a save in which rows of policies are changed, by their number; new ones come after them."""
    there = project.policies.count()
    changes |= {f"{ROWS}-TOTAL_FORMS": max(there, len(rows))}
    for number, row in enumerate(rows):
        if number >= there:
            row = {"project": project.pk, "weight": 1} | row
        changes |= {f"{ROWS}-{number}-{name}": value for name, value in row.items()}
    return client.post(page_of(project), filled(client.get(page_of(project)), **changes), follow=True)


def said(page) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def errors(page) -> list[str]:
    return [str(error) for error in page.context["errors"]]


def weights(project: Project) -> list[tuple]:
    rows = ProjectPolicy.objects.filter(project=project).order_by("id")
    return list(rows.values_list("policy__name", "weight", "replies"))


def next_iteration(client, project: Project) -> str:
    page = client.get(page_of(project))
    return next(
        str(field.contents())
        for fieldset in page.context["adminform"]
        for line in fieldset
        for field in line
        if field.field["name"] == "next_iteration"
    )


def test_weights_and_the_one_to_chat_with_are_set(admin_client, project) -> None:
    page = saved(admin_client, project, {"weight": 2}, {"weight": 0, "replies": "on"})
    assert weights(project) == [("ours", 2, False), ("theirs", 0, True)]
    assert KEEPS in said(page)
    # And back, in one save: for a moment both would be chosen.
    saved(admin_client, project, {"replies": "on"}, {"replies": None})
    assert weights(project) == [("ours", 2, True), ("theirs", 0, False)]
    assert KEEPS not in said(saved(admin_client, project, name="Another name"))


def test_what_is_copied_by_the_next_iteration_is_said_of_the_original_too(admin_client, project) -> None:
    page = saved(admin_client, project, keeps_original=None)
    project.refresh_from_db()
    assert (project.keeps_original, KEEPS in said(page)) == (False, True)


def test_one_is_put_in_the_place_of_another(admin_client, project) -> None:
    third = factory.policy(name="third")
    ProjectPolicy.objects.filter(policy__name="theirs").update(replies=True)
    rows = ({"replies": "on"}, {"DELETE": "on"}, {"policy": third.pk, "weight": 3})
    saved(admin_client, project, *rows)
    assert weights(project) == [("ours", 1, True), ("third", 3, False)]
    # The same policy once more, in a row of its own.
    saved(admin_client, project, {}, {"DELETE": "on"}, {"policy": third.pk, "weight": 5})
    assert weights(project) == [("ours", 1, True), ("third", 5, False)]


def test_the_policy_of_a_row_stays(admin_client, project) -> None:
    saved(admin_client, project, {"policy": factory.policy().pk})
    assert [name for name, *_ in weights(project)] == ["ours", "theirs"]


def test_a_new_project_begins_with_its_policies(admin_client) -> None:
    address = reverse("admin:annotate_project_add")
    new = {f"{ROWS}-0-policy": factory.policy(name="third").pk, f"{ROWS}-0-weight": 1, f"{ROWS}-0-replies": "on"}
    sent = filled(admin_client.get(address), name="New", slug="new", **{f"{ROWS}-TOTAL_FORMS": 1}, **new)
    page = admin_client.post(address, sent | {"_continue": "on"}, follow=True)
    made = Project.objects.get(slug="new")
    assert weights(made) == [("third", 1, True)]
    assert KEEPS not in said(page)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (({"replies": "on"}, {"replies": "on"}), "Trainers chat with one policy: choose one of ours, theirs."),
        (({"weight": 0}, {"weight": 0}), "All weights are 0"),
        (({"weight": 0}, {"DELETE": "on"}), "All weights are 0"),
        (({"weight": -1}, {}), "greater than or equal to 0"),
        (({"weight": 1001}, {}), "less than or equal to 1000"),
        (({"weight": ""}, {}), "This field is required."),
    ],
)
def test_what_no_iteration_could_go_by_is_refused(admin_client, project, rows, says) -> None:
    page = saved(admin_client, project, *rows)
    assert any(says in error for error in errors(page))
    assert weights(project) == [("ours", 1, False), ("theirs", 1, False)]


def test_a_policy_is_there_once(admin_client, project) -> None:
    page = saved(admin_client, project, {}, {}, {"policy": project.policies.get(name="ours").pk})
    assert errors(page) == ["ours is there twice: give it one weight."]
    new = factory.policy(name="third").pk
    page = saved(admin_client, project, {}, {}, {"policy": new}, {"policy": new})
    assert errors(page) == ["third is there twice: give it one weight."]
    assert len(weights(project)) == 2


@pytest.mark.parametrize(
    ("k", "keeps", "given", "says"),
    [
        (4, True, (1, 1), "Of 4 candidates 2 from ours (one is the original), 2 from theirs; trainers chat with ours."),
        (4, False, (1, 1), "Of 4 candidates 2 from ours, 2 from theirs; trainers chat with ours."),
        (4, True, (0, 3), "Of 4 candidates the original from ours, 3 from theirs; trainers chat with ours."),
        (4, False, (0, 3), "Of 4 candidates 4 from theirs; trainers chat with ours."),
        (
            5,
            True,
            (1, 2),
            "Of 5 candidates 1 or 2 from ours (1.67 on average, one is the original), "
            "3 or 4 from theirs (3.33 on average); trainers chat with ours.",
        ),
    ],
)
def test_what_the_next_iteration_does_is_said(admin_client, project, k, keeps, given, says) -> None:
    Project.objects.filter(pk=project.pk).update(k=k, keeps_original=keeps)
    for name, weight in zip(("ours", "theirs"), given, strict=True):
        ProjectPolicy.objects.filter(policy__name=name).update(weight=weight)
    assert next_iteration(admin_client, project) == says


def test_inactive_policies_are_warned_of(admin_client, project) -> None:
    Policy.objects.filter(name="theirs").update(active=False)
    warning = "The policy theirs is inactive: the next iteration is without it."
    assert warning in said(admin_client.get(page_of(project)))
    assert "4 from ours" in next_iteration(admin_client, project)
    ProjectPolicy.objects.filter(policy__name="theirs").update(replies=True)
    told = next_iteration(admin_client, project)
    assert told.startswith("The next iteration cannot be opened yet. Trainers of project field are to chat with theirs")
    ProjectPolicy.objects.filter(project=project).delete()
    assert any("has no policy" in message for message in said(admin_client.get(page_of(project))))


def test_more_policies_than_places_are_warned_of(admin_client, project) -> None:
    warning = "3 policies share 2 places: no comparison has a text of each. A larger K would, or fewer policies."
    Project.objects.filter(pk=project.pk).update(k=2)
    assert warning not in said(admin_client.get(page_of(project)))
    saved(admin_client, project, {}, {}, {"policy": factory.policy().pk})
    assert warning in said(admin_client.get(page_of(project)))


def test_a_round_shows_the_weights_that_it_began_with(admin_client, project) -> None:
    ProjectPolicy.objects.filter(policy__name="theirs").update(weight=9)
    iteration = Iteration.objects.get(project=project)
    page = admin_client.get(reverse("admin:annotate_iteration_change", args=[iteration.pk]))
    (inline,) = page.context["inline_admin_formsets"]
    assert [(form.instance.policy.name, form.instance.weight) for form in inline.formset.forms] == [
        ("ours", 1),
        ("theirs", 1),
    ]
    assert "theirs" in page.content.decode()


def test_a_refusal_to_open_is_a_message(admin_client, project) -> None:
    iterations.close(iteration=factory.current(project))
    iterations.close_finished()
    ProjectPolicy.objects.update(weight=0)
    page = admin_client.post(reverse("admin:annotate_project_open-iteration", args=[project.pk]), follow=True)
    assert any("have weight 0" in message for message in said(page))
    assert project.iterations.count() == 1


def test_they_are_for_admins(client, project) -> None:
    user = factory.person(project, role=Role.REVIEWER)
    user.is_staff = True
    user.save()
    client.force_login(user, backend="sesame.backends.ModelBackend")
    assert client.post(page_of(project), {f"{ROWS}-0-weight": 5}).status_code == 403
    assert weights(project) == [("ours", 1, False), ("theirs", 1, False)]


def test_a_page_that_another_admin_saved_meanwhile_is_told_so(admin_client, project) -> None:
    third = factory.policy(name="third")
    added = {f"{ROWS}-TOTAL_FORMS": 3, f"{ROWS}-2-project": project.pk, f"{ROWS}-2-policy": third.pk}
    before = filled(admin_client.get(page_of(project)), **added, **{f"{ROWS}-2-weight": 1})
    ProjectPolicy.objects.create(project=project, policy=third, weight=5)
    page = admin_client.post(page_of(project), before)
    assert errors(page) == ["Somebody has added third meanwhile. Load the page anew."]
    assert weights(project)[2:] == [("third", 5, False)]


def test_what_is_filled_in_has_its_name_beside_it_for_those_who_hear_the_page(admin_client, project):
    page = admin_client.get(page_of(project)).content.decode()
    for name, label in (("weight", "Weight"), ("replies", "trainers chat with it"), ("DELETE", "Delete")):
        field = re.search(f'<input[^>]* name="{ROWS}-0-{name}"[^>]*>', page).group()
        assert f'aria-label="{label}"' in field
