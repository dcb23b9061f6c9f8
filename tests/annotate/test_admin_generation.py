"""Sampling jobs in the admin site: failed ones are seen with their reason and tried again."""

import pytest
from django.urls import reverse

from annotate import conversations, generation
from annotate.models import GenerationRequest, Role
from tests import factory

pytestmark = pytest.mark.django_db

LIST = "/admin/annotate/generationrequest/"


@pytest.fixture
def project():
    return factory.project()


def failed(project) -> GenerationRequest:
    """A reply that did not come."""
    slot = factory.held_chat(project, factory.trainer(project))
    request = factory.claimed(conversations.say(assignment=slot, user=slot.trainer, text="<b>Hello</b>"))
    generation.fail(request_id=request.pk, token=request.claim_token, reason="Out of memory.", again=False)
    request.refresh_from_db()
    return request


def page_of(request: GenerationRequest) -> str:
    return reverse("admin:annotate_generationrequest_change", args=[request.pk])


def again(request: GenerationRequest) -> str:
    return reverse("admin:annotate_generationrequest_try-again", args=[request.pk])


def said(page) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def test_the_list_filters_the_failed_and_shows_why(admin_client, project) -> None:
    request = failed(project)
    other = failed(project)
    GenerationRequest.objects.filter(pk=other.pk).update(state="done")
    page = admin_client.get(f"{LIST}?state__exact=failed")
    assert list(page.context["cl"].result_list) == [request]
    assert "Out of memory." in page.content.decode()


def test_the_page_shows_what_was_asked_and_what_came_as_text(admin_client, project) -> None:
    request = failed(project)
    text = admin_client.get(page_of(request)).content.decode()
    assert "&lt;b&gt;Hello&lt;/b&gt;" in text
    assert "<b>Hello" not in text
    slot = factory.held_chat(project, factory.trainer(project))
    done = conversations.say(assignment=slot, user=slot.trainer, text="Hello")
    factory.answer(done, "<script>alert(1)</script>")
    text = admin_client.get(page_of(done)).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_action_tries_failed_ones_again_and_says_which_could_not(admin_client, project) -> None:
    request, gone_on = failed(project), failed(project)
    conversations.ask_again(assignment=gone_on.assignment, user=gone_on.assignment.trainer)
    chosen = {"action": "try_again", "_selected_action": [request.pk, gone_on.pk]}
    page = admin_client.post(LIST, chosen, follow=True)
    assert said(page) == [
        "1 request waits once more.",
        f"Request {gone_on.pk}: The conversation has gone on without this reply.",
    ]
    request.refresh_from_db()
    gone_on.refresh_from_db()
    assert (request.state, request.attempt, gone_on.state) == ("waiting", 0, "failed")


def test_the_button_does_the_same_for_one(admin_client, project) -> None:
    request = failed(project)
    assert again(request) in admin_client.get(page_of(request)).content.decode()
    page = admin_client.post(again(request), follow=True)
    request.refresh_from_db()
    assert request.state == "waiting"
    assert again(request) not in page.content.decode()
    twice = admin_client.post(again(request), follow=True)
    assert said(twice) == [f"Request {request.pk}: The conversation has gone on without this reply."]


def test_looking_at_the_address_tries_nothing(admin_client, project) -> None:
    request = failed(project)
    assert admin_client.get(again(request)).status_code == 403
    request.refresh_from_db()
    assert request.state == "failed"


def test_who_may_not_change_jobs_cannot(client, project) -> None:
    from django.contrib.auth.models import Permission

    request = failed(project)
    user = factory.person(project, role=Role.REVIEWER)
    user.is_staff = True
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_generationrequest"))
    client.force_login(user, backend="sesame.backends.ModelBackend")
    assert again(request) not in client.get(page_of(request)).content.decode()
    assert client.post(again(request)).status_code == 403
    client.post(LIST, {"action": "try_again", "_selected_action": [request.pk]})
    request.refresh_from_db()
    assert request.state == "failed"
