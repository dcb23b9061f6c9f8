"""Prompts and policies in the admin site."""

import pytest
from django.urls import reverse

from annotate import derive
from annotate.models import Policy, Project, Prompt
from annotate.projects import Opening, add_prompts
from tests import factory
from tests.admin_pages import filled

pytestmark = pytest.mark.django_db

LIST = "/admin/annotate/prompt/"


@pytest.fixture
def project() -> Project:
    return factory.project()


@pytest.fixture
def prompt(project) -> Prompt:
    add_prompts(project=project, openings=[Opening(text="Say hello.", use_case="chat")])
    return Prompt.objects.get()


def page_of(row) -> str:
    return reverse(f"admin:annotate_{row._meta.model_name}_change", args=[row.pk])


def added(client, **fields):
    return client.post(f"{LIST}add/", filled(client.get(f"{LIST}add/"), **fields))


def test_a_new_one_has_its_digest_and_family(admin_client, project) -> None:
    added(admin_client, project=project.pk, text="  Say hello.\r\nThen go.  ", use_case="chat", active="on")
    prompt = Prompt.objects.get()
    assert (prompt.text, prompt.use_case, prompt.active) == ("Say hello.\nThen go.", "chat", True)
    assert (prompt.digest, prompt.family) == (derive.digest_of(prompt.text), derive.family_of(prompt.text))


def test_a_changed_text_changes_them(admin_client, prompt) -> None:
    admin_client.post(page_of(prompt), filled(admin_client.get(page_of(prompt)), text="Say good-bye."))
    prompt.refresh_from_db()
    assert (prompt.text, prompt.digest) == ("Say good-bye.", derive.digest_of("Say good-bye."))


def test_the_same_text_is_refused_in_one_project_only(admin_client, project, prompt) -> None:
    page = added(admin_client, project=project.pk, text="Say hello.\r\n")
    assert "The project has this prompt already." in page.content.decode()
    other = factory.project()
    added(admin_client, project=other.pk, text="Say hello.")
    assert list(Prompt.objects.order_by("id").values_list("project", flat=True)) == [project.pk, other.pk]
    admin_client.post(page_of(prompt), filled(admin_client.get(page_of(prompt)), use_case="other"))
    prompt.refresh_from_db()
    assert prompt.use_case == "other"


@pytest.mark.parametrize("text", ["", " \r\n "])
def test_an_empty_text_is_refused(admin_client, project, text: str) -> None:
    assert added(admin_client, project=project.pk, text=text).context["errors"]
    assert not Prompt.objects.exists()


def test_many_are_switched_off_and_on(admin_client, project, prompt) -> None:
    add_prompts(project=project, openings=[Opening(text="Another one")])
    chosen = {"_selected_action": list(Prompt.objects.values_list("pk", flat=True))}
    page = admin_client.post(LIST, chosen | {"action": "withhold"}, follow=True)
    assert [str(message) for message in page.context["messages"]] == ["2 prompts are no longer offered."]
    assert not Prompt.objects.filter(active=True).exists()
    admin_client.post(LIST, chosen | {"action": "offer"})
    assert Prompt.objects.filter(active=True).count() == 2
    chosen["_selected_action"] = [prompt.pk]
    page = admin_client.post(LIST, chosen | {"action": "withhold"}, follow=True)
    assert str(list(page.context["messages"])[-1]) == "1 prompt is no longer offered."


def test_search_finds_by_text(admin_client, project, prompt) -> None:
    add_prompts(project=project, openings=[Opening(text="Another one")])
    assert list(admin_client.get(f"{LIST}?q=HELLO").context["cl"].result_list) == [prompt]


def test_of_a_policy_only_active_changes(admin_client) -> None:
    address = reverse("admin:annotate_policy_add")
    sent = filled(admin_client.get(address), name="small", location="model", active="on")
    admin_client.post(address, sent)
    policy = Policy.objects.get(name="small")
    page = admin_client.get(page_of(policy))
    assert "No worker is running for this policy." in page.content.decode()
    admin_client.post(page_of(policy), {"name": "large", "location": "elsewhere", "revision": "2"})
    policy.refresh_from_db()
    assert (policy.name, policy.location, policy.revision, policy.active) == ("small", "model", "", False)
