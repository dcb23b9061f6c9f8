"""What must be true after any fault: every request has one end, and every page tells the truth."""

from django.test import Client
from django.urls import reverse

from annotate import streams, sweep
from annotate.models import Assignment, Comparison, Completion, GenerationRequest, Message, Role, User
from tests import factory, invariants
from tests.worker.watching import OVER, events, shown, until

State = GenerationRequest.State


def signed_in(user: User) -> Client:
    """A browser of this person."""
    client = Client()
    client.force_login(user, backend="sesame.backends.ModelBackend")
    return client


def page(user: User, name: str, *arguments) -> str:
    """The page as this person gets it, white space made one."""
    answer = signed_in(user).get(reverse(name, args=arguments))
    assert answer.status_code == 200, answer.status_code
    return " ".join(answer.content.decode().split())


def health() -> tuple[int, list[str]]:
    """What /healthz says: its status, and what is missing."""
    answer = Client().get("/healthz")
    return answer.status_code, answer.json()["missing"]


def policy_page(policy) -> str:
    """The admin's page of a policy."""
    return page(factory.person(role=Role.ADMIN), "admin:annotate_policy_change", policy.pk)


def wait_for(policy) -> None:
    """Until a worker serves the policy; on a busy machine its start takes long."""
    until(lambda: streams.policy_state(policy.pk)[0] == "ready", 150)


def talked(policy, **fields) -> tuple[Assignment, Comparison]:
    """A chat that is held, and the comparison of another one that was finished, whose alternatives wait."""
    project = factory.project(served_by=policy, **fields)
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(project))
    return factory.held_chat(project, factory.trainer(project)), comparison


def swept_until_over(seconds: float = 90) -> None:
    """Sweeps, as beat would, until no request is waited for."""

    def ended() -> bool:
        sweep.run()
        return not GenerationRequest.objects.exclude(state__in=OVER).exists()

    until(ended, seconds)


def check_reply(slot: Assignment, request: GenerationRequest, *, told_its_end: bool = True) -> str:
    """The reply is there once, in the record, the stream and the page; its text.

    Without `told_its_end` the stream may stop short of the end, as where its writer died after it had stored it.
    """
    request.refresh_from_db()
    assert (request.state, request.claim_token, bool(request.ended_at)) == (State.DONE, None, True)
    completion = request.completions.get()
    replies = slot.conversation.messages.filter(role=Message.ChatRole.ASSISTANT, position=request.position)
    assert [(one.text, one.completion_id) for one in replies] == [(completion.text, completion.pk)]
    if told_its_end:
        # It is told right after it is stored.
        until(lambda: _ends_told(request))
        assert _ends_told(request) == ["done"]
        assert shown(events(request)) == completion.text
    else:
        assert _ends_told(request) == []
        assert completion.text.startswith(shown(events(request)))
    seen = page(slot.trainer, "work", slot.pk)
    assert "data-pending" not in seen
    assert seen.count('class="turn assistant"') == slot.conversation.messages.filter(role="assistant").count()
    return completion.text


def _ends_told(request: GenerationRequest) -> list[str]:
    return [event["kind"] for event in events(request) if event["kind"] in ("done", "failed", "refused", "stopped")]


def check_comparison(comparison: Comparison) -> None:
    """It has opened with as many candidates as were sampled apart, and its slots are free; none was stored twice."""
    comparison.refresh_from_db()
    assert comparison.state == Comparison.State.OPEN
    for request in comparison.requests.all():
        assert request.state == State.DONE
        assert sorted(request.completions.values_list("index", flat=True)) == list(range(request.n))
    texts = list(comparison.candidates.values_list("completion__text", flat=True))
    assert len(texts) == len({text.strip() for text in texts}) == comparison.k
    invariants.check_queue(comparison.project)
    assert Completion.objects.filter(request__comparison=comparison).count() >= comparison.k - 1


def check_ranked(comparison: Comparison) -> None:
    """A trainer can claim it from home and sees its answers."""
    user = factory.trainer(comparison.project)
    client = signed_in(user)
    assert "Rank" in page(user, "home")
    claimed = client.post(reverse("claim", args=[comparison.project.slug]), {"kind": "rank"})
    assert claimed.status_code == 302
    seen = client.get(claimed.url).content.decode()
    assert seen.count('<article class="answer"') == comparison.candidates.count()
