"""The page of workers, policies and queues: what it shows, for whom, and its button."""

import json
import re
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotate import conversations, generation, streams
from annotate.models import GenerationRequest, Policy, Role
from tests import factory

pytestmark = pytest.mark.django_db

PAGE = "/admin/serving/"
AGAIN = "/admin/serving/try-again/"


@pytest.fixture
def project():
    return factory.project()


@pytest.fixture
def policy(project):
    return factory.current(project).reply_policy


def beat(policy: Policy, *, name: str = "gpu-host:77", **told) -> None:
    """A worker's sign of life."""
    held = {
        "policy": policy.name,
        "state": "ready",
        "reason": "",
        "in_flight": 3,
        "capacity": 64,
        "counters": {},
    } | told
    said = {"policies": {str(policy.pk): held}, "jobs": 2, "since": 1_700_000_000, "at": time.time() - 4}
    streams.client().set(streams.HEARTBEAT + name, json.dumps(said), ex=60)


def ask(project) -> GenerationRequest:
    slot = factory.held_chat(project, factory.trainer(project))
    return conversations.say(assignment=slot, user=slot.trainer, text="Hello")


def failed(project, reason: str = "Out of memory.") -> GenerationRequest:
    request = factory.claimed(ask(project))
    generation.fail(request_id=request.pk, token=request.claim_token, reason=reason, again=False)
    request.refresh_from_db()
    return request


def look(client) -> str:
    answer = client.get(PAGE)
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    return " ".join(answer.content.decode().split())


def said(page) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def test_a_policy_is_opened_and_closed_by_words_that_lead_nowhere_else(admin_client, policy):
    text = admin_client.get(PAGE).content.decode()
    for summary in re.findall("<summary>.*?</summary>", text, re.DOTALL):
        assert "<a " not in summary
    assert f'<a href="/admin/annotate/policy/{policy.pk}/change/">' in text
    assert "<th></th>" not in text


def test_with_nothing_there_it_says_what_comes_next(client) -> None:
    client.force_login(factory.person(role=Role.ADMIN), backend="sesame.backends.ModelBackend")
    text = look(client)
    assert "No worker is running" in text
    assert "There is no policy yet" in text
    assert "/admin/annotate/policy/add/" in text
    assert "Nothing failed." in text


def test_a_worker_is_shown_with_what_it_holds(admin_client, policy) -> None:
    beat(policy)
    text = look(admin_client)
    assert 'gpu-host<br><span class="help">process 77</span>' in text
    assert "Nov 14, 22:13" in text
    assert "4 s ago" in text
    assert f'<span class="state ready">ready</span> {policy.name}, 3 of 64' in text
    assert '<td class="number" data-name="Jobs">2</td>' in text
    beat(policy, name="other:1", counters={"tokens_a_second": 40.4})
    assert "<dt>Tokens a second, now</dt><dd>40</dd>" in look(admin_client)


def test_a_beat_that_is_missing_is_told(admin_client) -> None:
    assert "No beat is running" in look(admin_client)
    streams.tick("host")
    assert "No beat is running" not in look(admin_client)


def test_a_worker_that_vanished_is_gone(admin_client, policy) -> None:
    beat(policy)
    streams.client().pexpire(f"{streams.HEARTBEAT}gpu-host:77", 1)
    time.sleep(0.05)
    text = look(admin_client)
    assert "gpu-host" not in text
    assert "no worker has it" in text


def test_a_policy_s_state_is_the_best_of_all_workers(admin_client, policy) -> None:
    beat(policy, name="one:1", state="failed", reason="No such <folder>.")
    text = look(admin_client)
    assert '<span class="state failed">failed</span> <strong>' in text
    assert '<p class="reason">No such &lt;folder&gt;.</p>' in text
    beat(policy, name="two:1")
    text = look(admin_client)
    assert '<span class="state ready">1 failed, 1 ready</span>' in text
    assert "<dd>6 of 128</dd>" in text


def test_a_policy_that_is_switched_off_is_shown_where_it_has_something_to_do(admin_client, project, policy) -> None:
    idle = factory.policy(active=False)
    ask(project)
    Policy.objects.filter(pk=policy.pk).update(active=False)
    text = look(admin_client)
    assert "switched off</span>" in text
    assert policy.name in text
    assert idle.name not in text
    assert "1 more is switched off" in text
    beat(policy)
    assert "ready, being switched off" in look(admin_client)


def test_the_queue_of_a_policy(admin_client, project, policy) -> None:
    request = ask(project)
    GenerationRequest.objects.filter(pk=request.pk).update(created_at=timezone.now() - timedelta(minutes=5))
    factory.claimed(ask(project))
    row = '<th scope="row">Replies</th> <td class="number">1</td><td class="number">1</td><td class="number">5 min</td>'
    assert row in look(admin_client)


def test_how_fast_it_is(admin_client, project, policy) -> None:
    request = ask(project)
    factory.answer(request, "one two three")
    now = timezone.now()
    GenerationRequest.objects.filter(pk=request.pk).update(
        created_at=now - timedelta(seconds=15), claimed_at=now - timedelta(seconds=13.5)
    )
    request.completions.update(first_token_ms=250, completion_tokens=1200)
    text = look(admin_client)
    assert "<dt>Tokens a second, now</dt><dd>0</dd>" in text
    assert "<dt>of what ended, last minute</dt><dd>20</dd>" in text
    assert "<dt>last ten minutes</dt><dd>2.0</dd>" in text
    assert "<dt>Texts, last hour</dt><dd>1</dd>" in text
    assert '<td class="number">1.75 / 1.75</td><td class="number">1.75 / 1.75</td>' in text
    assert '<td class="number">0.25 / 0.25</td><td class="number">0.25 / 0.25</td>' in text


def test_failures_are_grouped_and_lead_to_their_list(admin_client, project, policy) -> None:
    requests = [failed(project), failed(project)]
    failed(project, "A long reason: " + "x" * 400)
    page = admin_client.get(PAGE)
    long, group = page.context["groups"]
    assert (group["reason"], group["count"], group["policy"]) == ("Out of memory.", "2", policy.name)
    assert set(admin_client.get(group["list"]).context["cl"].result_list) == set(requests)
    assert admin_client.get(long["list"]).context["cl"].result_count == 1
    assert '<details id="why-' in page.content.decode()


@pytest.mark.parametrize("reason", ["", " ", '<b>\n& "100 %" 😀', "😀" * 300])
def test_any_reason_leads_to_its_list(admin_client, project, reason) -> None:
    request = failed(project, reason)
    failed(project, "Another reason.")
    group = next(one for one in admin_client.get(PAGE).context["groups"] if one["reason"] == reason)
    assert list(admin_client.get(group["list"]).context["cl"].result_list) == [request]
    # The longest line that the web server takes.
    assert len(group["list"]) < 4000


def test_the_button_tries_a_group_again_and_says_which_could_not(admin_client, project) -> None:
    request, gone_on, other = failed(project), failed(project), failed(project, "Another reason.")
    conversations.ask_again(assignment=gone_on.assignment, user=gone_on.assignment.trainer)
    key = next(one["key"] for one in admin_client.get(PAGE).context["groups"] if one["reason"] == "Out of memory.")
    assert f'form="try-again" name="group" value="{key}"' in look(admin_client)
    page = admin_client.post(AGAIN, {"group": key}, follow=True)
    assert page.redirect_chain == [(PAGE, 302)]
    assert said(page) == [
        "1 request waits once more.",
        f"Request {gone_on.pk}: The conversation has gone on without this reply.",
    ]
    for one in (request, gone_on, other):
        one.refresh_from_db()
    assert (request.state, request.attempt, gone_on.state, other.state) == ("waiting", 0, "failed", "failed")


def test_the_button_takes_no_more_than_so_many_at_once(admin_client, project, monkeypatch) -> None:
    monkeypatch.setattr("annotate.admin.generation.AT_ONCE", 2)
    requests = [failed(project) for _ in range(3)]
    key = admin_client.get(PAGE).context["groups"][0]["key"]
    page = admin_client.post(AGAIN, {"group": key}, follow=True)
    assert said(page) == ["2 requests wait once more.", "1 more is left: try again once more."]
    assert [GenerationRequest.objects.get(pk=one.pk).state for one in requests] == ["waiting", "waiting", "failed"]
    assert said(admin_client.post(AGAIN, {"group": key}, follow=True)) == ["1 request waits once more."]


def test_where_more_failed_than_is_counted_it_says_so(admin_client, project, monkeypatch) -> None:
    monkeypatch.setattr("annotate.figures.MOST_FAILED", 2)
    failed(project)
    assert "More failed than is counted" not in look(admin_client)
    failed(project)
    failed(project)
    assert "More failed than is counted here, the newest 2; a press finds them all." in look(admin_client)


def test_those_that_cannot_be_tried_again_hold_up_no_others(admin_client, project, monkeypatch) -> None:
    monkeypatch.setattr("annotate.admin.generation.AT_ONCE", 2)
    requests = [failed(project) for _ in range(6)]
    for request in requests[:3]:
        conversations.ask_again(assignment=request.assignment, user=request.assignment.trainer)
    key = admin_client.get(PAGE).context["groups"][0]["key"]
    *_, last = said(admin_client.post(AGAIN, {"group": key}, follow=True))
    assert last == "1 more is left: try again once more."
    assert [GenerationRequest.objects.get(pk=one.pk).state for one in requests] == [
        *["failed"] * 3,
        *["waiting"] * 2,
        "failed",
    ]


def test_one_press_rings_once_for_each_policy(admin_client, project, policy, monkeypatch) -> None:
    for _ in range(3):
        failed(project)
    other = factory.project()
    failed(other)
    Policy.objects.filter(pk=factory.current(other).reply_policy_id).update(active=False)
    groups = admin_client.get(PAGE).context["groups"]
    rung = []
    monkeypatch.setattr("annotate.bell.ring", rung.append)
    for group in groups:
        admin_client.post(AGAIN, {"group": group["key"]})
    assert rung == [policy.pk]


@pytest.mark.parametrize("key", ["", "nonsense", "1-ab", "1-\x00", f"1-{'0' * 32}", f"{'9' * 40}-{'0' * 32}"])
def test_a_group_that_is_not_there_any_more_is_said_so(admin_client, key) -> None:
    assert said(admin_client.post(AGAIN, {"group": key}, follow=True)) == ["Nothing is left of these failures."]


def test_looking_at_the_button_s_address_tries_nothing(admin_client, project) -> None:
    request = failed(project)
    key = admin_client.get(PAGE).context["groups"][0]["key"]
    assert admin_client.get(AGAIN, {"group": key}).status_code == 405
    request.refresh_from_db()
    assert request.state == "failed"


def test_exports_and_imports_that_wait(admin_client, project) -> None:
    from annotate.models import Export

    Export.objects.create(project=project, what="comparisons", format="ranked")
    row = '>Exports</a></th><td class="number">1</td> <td class="number">0</td><td class="number">0.'
    assert row in look(admin_client)


def test_without_the_broker_the_queues_are_still_there(admin_client, project, settings) -> None:
    ask(project)
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    streams.client.cache_clear()
    try:
        text = look(admin_client)
    finally:
        streams.client.cache_clear()
    assert "The message broker does not answer" in text
    assert '<span class="state unknown">unknown</span>' in text
    assert '<th scope="row">Replies</th> <td class="number">1</td>' in text


def test_the_queries_do_not_grow_with_rows(admin_client, project, policy) -> None:
    def queries() -> int:
        admin_client.get(PAGE)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            admin_client.get(PAGE)
        return len(captured)

    ask(project)
    failed(project)
    few = queries()
    for number in range(4):
        beat(factory.policy(), name=f"host:{number}")
        ask(project)
        failed(project, f"Reason {number}")
        factory.answer(ask(project))
    assert queries() == few
    assert few <= 14


def test_it_is_linked_from_the_index_and_the_policies(admin_client) -> None:
    assert f'href="{PAGE}"' in admin_client.get("/admin/").content.decode()
    assert f'href="{PAGE}"' in admin_client.get("/admin/annotate/policy/").content.decode()


@pytest.mark.parametrize("role", [Role.TRAINER, Role.REVIEWER, Role.ENGINEER])
def test_only_admins_are_let_in(client, project, role) -> None:
    from django.contrib.auth.models import Permission

    request = failed(project)
    person = factory.person(project, role=role)
    client.force_login(person, backend="sesame.backends.ModelBackend")
    # As everywhere in the admin site.
    assert client.get(PAGE, follow=True).status_code == 403
    assert client.post(AGAIN, {"group": f"{request.policy_id}-0"}, follow=True).status_code == 403
    # Nor somebody who may enter the admin site for something else.
    person.is_staff = True
    person.save()
    person.user_permissions.add(Permission.objects.get(codename="change_generationrequest"))
    assert client.get(PAGE).status_code == 403
    assert client.post(AGAIN, {"group": f"{request.policy_id}-0"}).status_code == 403


def test_strangers_are_sent_to_the_sign_in_page(client) -> None:
    for answer in (client.get(PAGE), client.post(AGAIN, {"group": "1-0"})):
        assert answer.status_code == 302
        assert "login" in answer.headers["Location"]
