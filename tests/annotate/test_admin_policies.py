"""Adding policies in the admin site: of a model that the worker loads, and of a server."""

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from annotate import conversations
from annotate.models import GenerationRequest, Policy, Role
from tests import factory

pytestmark = pytest.mark.django_db

ADD = "admin:annotate_policy_add"
SERVER = {
    "name": "served",
    "engine": "openai_compatible",
    "location": "http://vllm:8001/v1/",
    "revision": "",
    "served_as": "Qwen/Qwen3-8B",
    "key_variable": "VLLM_API_KEY",
    "concurrency": "",
    "context_tokens": "",
    "parent": "",
    "active": "on",
}


def refusal(admin_client, **fields) -> dict:
    """The errors of the form, and nothing added."""
    page = admin_client.post(reverse(ADD), SERVER | fields)
    assert page.status_code == 200
    assert not Policy.objects.exists()
    return page.context["adminform"].form.errors


def test_a_policy_of_a_server_is_added(admin_client):
    assert admin_client.post(reverse(ADD), SERVER).status_code == 302
    policy = Policy.objects.get()
    assert (policy.location, policy.served_as, policy.key_variable) == (
        "http://vllm:8001/v1",
        "Qwen/Qwen3-8B",
        "VLLM_API_KEY",
    )
    assert (policy.concurrency, policy.context_tokens, policy.honours_seed) == (32, None, False)
    page = admin_client.get(reverse("admin:annotate_policy_change", args=[policy.pk])).content.decode()
    assert "VLLM_API_KEY" in page
    assert 'name="served_as"' not in page


def test_of_a_server_only_active_changes(admin_client):
    admin_client.post(reverse(ADD), SERVER)
    policy = Policy.objects.get()
    admin_client.post(reverse("admin:annotate_policy_change", args=[policy.pk]), {"served_as": "other"})
    policy.refresh_from_db()
    assert (policy.active, policy.served_as) == (False, "Qwen/Qwen3-8B")


def test_a_policy_names_its_projects_and_its_engine_by_a_word(admin_client):
    project = factory.project(name="Everyday help")
    policy = project.policies.get()
    page = admin_client.get(reverse("admin:annotate_policy_change", args=[policy.pk])).content.decode()
    assert f'<a href="/admin/annotate/project/{project.pk}/change/">Everyday help</a>' in page
    page = admin_client.get(reverse("admin:annotate_policy_changelist")).content.decode()
    assert '<td class="field-engine_in_short">transformers</td>' in page


def test_a_policy_of_a_loaded_model_has_no_fields_of_a_server(admin_client):
    plain = {"engine": "transformers", "location": "tiny", "served_as": "", "key_variable": ""}
    errors = refusal(admin_client, engine="transformers")
    assert set(errors) == {"served_as", "key_variable"}
    assert admin_client.post(reverse(ADD), SERVER | plain).status_code == 302
    assert Policy.objects.get().concurrency is None


def test_a_loaded_model_may_be_quantised_and_one_of_a_server_not(admin_client):
    assert set(refusal(admin_client, quantisation="int4")) == {"quantisation"}
    plain = {"engine": "transformers", "location": "tiny", "served_as": "", "key_variable": "", "quantisation": "int4"}
    assert admin_client.post(reverse(ADD), SERVER | plain).status_code == 302
    policy = Policy.objects.get()
    assert policy.quantisation == "int4"
    page = admin_client.get(reverse("admin:annotate_policy_change", args=[policy.pk])).content.decode()
    assert "4 bits a weight" in page
    assert 'name="quantisation"' not in page


@pytest.mark.parametrize(
    "location",
    ["vllm", "ftp://vllm/v1", "http://", "http://vllm:port/v1", "http://me:secret@vllm/v1", "http://vllm/v1?key=secret",
     "http://vllm/v1/chat/completions", "http://vllm /v1", "http://[vllm/v1"],
)  # fmt: skip
def test_a_bad_url_is_refused(admin_client, location):
    assert set(refusal(admin_client, location=location)) == {"location"}


@pytest.mark.parametrize(
    "variable", ["sk-proj-abc123", "SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "vllm_api_key", "DATABASE_URL"]
)
def test_a_key_itself_or_any_other_secret_is_refused_and_not_said_back(admin_client, variable):
    page = admin_client.post(reverse(ADD), SERVER | {"key_variable": variable})
    assert set(page.context["adminform"].form.errors) == {"key_variable"}
    assert variable not in page.content.decode()


@pytest.mark.parametrize(
    ("name", "value"), [("served_as", ""), ("revision", "main"), ("concurrency", "0"), ("context_tokens", "0")]
)
def test_what_a_server_needs_and_cannot_have(admin_client, name, value):
    assert set(refusal(admin_client, **{name: value})) == {name}


@pytest.mark.parametrize(
    "fields",
    [
        {"engine": "openai_compatible", "location": "http://vllm/v1", "served_as": "m"},
        {"engine": "openai_compatible", "location": "http://vllm/v1", "served_as": "", "concurrency": 1},
        {"engine": "openai_compatible", "location": "vllm", "served_as": "m", "concurrency": 1},
        {"engine": "openai_compatible", "location": "http://v/", "served_as": "m", "concurrency": 1, "revision": "x"},
        {"engine": "openai_compatible", "location": "http://v/", "served_as": "m", "concurrency": 0},
        {
            "engine": "openai_compatible",
            "location": "http://v/",
            "served_as": "m",
            "concurrency": 1,
            "key_variable": "sk-1",
        },
        {"served_as": "m"},
        {"key_variable": "VLLM_API_KEY"},
        {"concurrency": 3},
        {"context_tokens": 3},
        {"honours_seed": True},
    ],
)
def test_the_table_holds_nothing_else(fields):
    with pytest.raises(IntegrityError), transaction.atomic():
        factory.policy(**fields)


def test_a_stranger_adds_none(client):
    client.force_login(factory.person(role=Role.TRAINER), backend="sesame.backends.ModelBackend")
    assert client.get(reverse(ADD)).status_code in (302, 403)


def switched(admin_client, policy, **fields) -> list[str]:
    """What the admin is told."""
    url = reverse("admin:annotate_policy_change", args=[policy.pk])
    page = admin_client.post(url, fields, follow=True)
    policy.refresh_from_db()
    return [str(message) for message in page.context["messages"]]


def test_switching_off_says_how_many_waited(admin_client):
    policy = factory.policy(name="first")
    project = factory.project(served_by=policy)
    for _ in range(2):
        slot = factory.held_chat(project, factory.trainer(project))
        conversations.say(assignment=slot, user=slot.trainer, text="Hello")

    told, _ = switched(admin_client, policy)

    assert not policy.active
    assert told == (
        "The policy first is switched off. 2 requests that waited for it have failed; try them again among the "
        "generation requests once it is switched on. Workers finish what they have begun."
    )
    assert set(GenerationRequest.objects.values_list("state", flat=True)) == {"failed"}
    page = admin_client.get(reverse("admin:annotate_policy_change", args=[policy.pk])).content.decode()
    assert "off: The policy first is switched off." in page


def test_switching_on_again_tries_nothing_by_itself(admin_client):
    policy = factory.policy(name="first")
    assert "Nothing waited for it." in switched(admin_client, policy)[0]
    assert len(switched(admin_client, policy, active="on")) == 1
    assert policy.active


def test_saving_what_is_off_already_says_nothing_of_it(admin_client):
    policy = factory.policy(active=False)
    assert len(switched(admin_client, policy)) == 1
