"""The figures of the running site, each against rows that were reckoned by hand."""

import hashlib
import json
from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import figures, streams
from annotate.figures import JobCount, Queue, Recent, Waits
from annotate.models import Assignment, Comparison, Completion, Export, GenerationRequest
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factory.project()


@pytest.fixture
def policy(project):
    return factory.current(project).reply_policy


def ask(project, purpose: str = "suggestion", *, asked: float = 0, **fields) -> GenerationRequest:
    """A request that was asked for so many seconds ago; a suggestion or alternatives, as many as one likes."""
    made = {"state": "waiting", "n": 1} | fields
    if purpose == "alternatives":
        of = {"comparison": Comparison.objects.first() or factory.open_comparison(project)}
    else:
        conversation = factory.held_piece(project).conversation if purpose == "suggestion" else None
        of = {"conversation": conversation or factory.held_chat(project, factory.trainer(project)).conversation}
        of["position"] = 2
    request = GenerationRequest.objects.create(
        project=project,
        policy=made.pop("policy", None) or factory.current(project).reply_policy,
        purpose=purpose,
        urgency=GenerationRequest.RANK_OF_PURPOSE[purpose],
        messages=[],
        sampling={},
        **of,
        **made,
    )
    GenerationRequest.objects.filter(pk=request.pk).update(created_at=timezone.now() - timedelta(seconds=asked))
    request.refresh_from_db()
    return request


def done(project, purpose: str, *, ended: float, waited: float, texts: list[tuple[int, int]], **fields):
    """A request that ended so many seconds ago, claimed after `waited` seconds; (tokens, first token in ms) a text."""
    now = timezone.now()
    request = ask(project, purpose, asked=ended + 5 + waited, **{"state": "done", "ended_at": now} | fields)
    GenerationRequest.objects.filter(pk=request.pk).update(
        ended_at=now - timedelta(seconds=ended), claimed_at=request.created_at + timedelta(seconds=waited)
    )
    for index, (tokens, first) in enumerate(texts):
        Completion.objects.create(
            request=request, index=index, text="A text", finish_reason="stop", prompt_tokens=10,
            completion_tokens=tokens, first_token_ms=first,
        )  # fmt: skip
    return request


def failed(project, reason: str, *, ended: float = 60, **fields) -> GenerationRequest:
    ended_at = timezone.now() - timedelta(seconds=ended)
    return ask(project, asked=ended + 1, state="failed", reason=reason, ended_at=ended_at, **fields)


def test_where_nothing_is_there_is_nothing():
    assert (figures.queues(), figures.recent(), figures.jobs(), figures.slots()) == ({}, ({}, 3600.0), [], {})
    assert figures.failures() == figures.Failures([], {}, 0, whole=True)
    assert figures.workers() == []


def test_what_waits_and_is_sampled_by_policy_and_purpose(project, policy):
    other = factory.policy()
    ask(project, "suggestion", asked=90)
    ask(project, "suggestion", asked=30)
    factory.claimed(ask(project, "suggestion", asked=500))
    factory.claimed(ask(project, "reply"))
    ask(project, "suggestion", asked=7, policy=other)
    ask(project, "suggestion", state="done", ended_at=timezone.now())
    found = figures.queues()
    assert set(found) == {(policy.pk, "suggestion"), (policy.pk, "reply"), (other.pk, "suggestion")}
    suggestions = found[policy.pk, "suggestion"]
    assert (suggestions.waiting, suggestions.claimed) == (2, 1)
    assert 90 <= suggestions.oldest_seconds < 95
    assert found[policy.pk, "reply"] == Queue(waiting=0, claimed=1, oldest_seconds=None)
    assert 7 <= found[other.pk, "suggestion"].oldest_seconds < 12


def test_tokens_a_second_and_times_to_the_first_token(project, policy):
    # Within the last minute: 120 tokens, the first of three after 0.2 s; it had waited for 1 s.
    done(project, "suggestion", ended=10, waited=1, texts=[(20, 300), (40, 200), (60, 400)])
    # Within ten minutes: 480 tokens, after 0.4 s, waited for 3 s.
    done(project, "suggestion", ended=300, waited=3, texts=[(480, 400)])
    # Within the hour: after 0.6 s, waited for 8 s.
    done(project, "suggestion", ended=1800, waited=8, texts=[(900, 600)])
    # Longer ago, another purpose, and such as brought nothing.
    done(project, "suggestion", ended=3700, waited=100, texts=[(900, 9000)])
    done(project, "reply", ended=30, waited=0, texts=[(6, 50)])
    done(project, "suggestion", ended=20, waited=50, texts=[], state="cancelled")
    failed(project, "Out of memory.")
    found, looked = figures.recent()
    assert looked == 3600
    assert set(found) == {(policy.pk, "suggestion"), (policy.pk, "reply")}
    one = found[policy.pk, "suggestion"]
    assert (one.texts, one.tokens_last_minute, one.tokens_last_minutes) == (5, 120 / 60, 600 / 600)
    # The 99th percentile of two values lies 0.99 of the way from one to the other.
    assert waits(one.claim_minutes) == (0.3, 0.398)
    assert waits(one.claim_hour) == (0.4, 0.596)
    assert waits(one.asking_minutes) == (2.3, 3.378)
    assert waits(one.asking_hour) == (3.4, 8.496)
    assert found[policy.pk, "reply"] == Recent(1, 6 / 60, 6 / 600, *[Waits(0.05, 0.05)] * 4)


def waits(of: Waits) -> tuple[float, float]:
    return round(of.median, 4), round(of.most, 4)


def test_more_than_is_looked_at_shortens_the_time(project, policy, monkeypatch):
    monkeypatch.setattr(figures, "MOST_ENDED", 2)
    for ended in (2, 20, 300):
        done(project, "reply", ended=ended, waited=0, texts=[(100, 50)], state="cancelled")
    found, looked = figures.recent()
    assert 20 <= looked < 25
    one = found[policy.pk, "reply"]
    assert one.texts == 2
    assert one.tokens_last_minute == one.tokens_last_minutes == 200 / looked


def test_failures_by_reason_and_policy(project, policy):
    other = factory.policy()
    failed(project, "The engine broke.", ended=3600)
    newest = failed(project, "The engine broke.", ended=60)
    failed(project, "Out of memory.", ended=120)
    failed(project, "The engine broke.", ended=86_399, policy=other)
    failed(project, "The engine broke.", ended=86_500)
    ask(project, state="refused", reason="Too long.", ended_at=timezone.now())
    found = figures.failures()
    assert [(one.policy, one.reason, one.count) for one in found.groups] == [
        (policy.name, "The engine broke.", 2),
        (policy.name, "Out of memory.", 1),
        (other.name, "The engine broke.", 1),
    ]
    assert found.groups[0].newest == newest.ended_at
    assert (found.by_policy, found.group_count) == ({policy.pk: 3, other.pk: 1}, 3)


def test_the_requests_of_a_group_are_found_by_its_key(project, policy):
    broke = [failed(project, "The engine broke.", ended=ended) for ended in (3600, 60)]
    failed(project, "Out of memory.")
    failed(project, "The engine broke.", policy=factory.policy(), ended=600)
    failed(project, "The engine broke.", ended=90_000)
    group = next(one for one in figures.failures().groups if one.count == 2)
    assert group.digest == hashlib.md5(b"The engine broke.", usedforsecurity=False).hexdigest()
    assert list(figures.failed_in(key=group.key)) == broke


@pytest.mark.parametrize("key", ["", "-", "x-y", "1", "-1-0", "999999-0", f"{10**30}-0", "²-0"])
def test_a_key_that_names_no_group_names_nothing(key):
    assert list(figures.failed_in(key=key)) == []


def test_only_the_largest_part_of_the_groups_is_told(project, monkeypatch):
    monkeypatch.setattr(figures, "MOST_GROUPS", 2)
    for number in range(3):
        failed(project, f"Reason {number}", ended=number)
    found = figures.failures()
    assert [one.reason for one in found.groups] == ["Reason 0", "Reason 1"]
    assert (sum(found.by_policy.values()), found.group_count) == (3, 3)


def test_where_more_failed_than_is_counted_it_is_told(project, policy, monkeypatch):
    monkeypatch.setattr(figures, "MOST_FAILED", 2)
    failed(project, "Out of memory.", ended=90_000)
    failed(project, "Out of memory.", ended=60)
    found = figures.failures()
    assert (found.by_policy, found.whole) == ({policy.pk: 1}, True)
    failed(project, "Another reason.", ended=60)
    failed(project, "Another reason.", ended=60)
    found = figures.failures()
    assert (found.by_policy, found.whole) == ({policy.pk: 2}, False)


def test_exports_and_imports_by_state(project):
    def export(state: str, age: float, **fields) -> None:
        made = Export.objects.create(project=project, what="comparisons", format="ranked", state=state, **fields)
        Export.objects.filter(pk=made.pk).update(created_at=timezone.now() - timedelta(seconds=age))

    export("waiting", 40)
    export("waiting", 20)
    export("failed", 60, ended_at=timezone.now())
    factory.imported_in(project)
    waiting, *others = sorted(figures.jobs(), key=lambda one: one.state != "waiting")
    assert (waiting.kind, waiting.count) == ("export", 2)
    assert 40 <= waiting.oldest_seconds < 45
    assert others == [JobCount("export", "failed", 1, None), JobCount("import", "done", 1, None)]


def test_slots_that_are_free_or_held(project):
    other = factory.project()
    for _ in range(2):
        factory.chat_slot(project)
    trainer = factory.trainer(project)
    factory.chat_slot(project, reserved_for=trainer)
    factory.held_chat(project, trainer)
    factory.write_slot(other)
    skipped = factory.held_chat(other, factory.trainer(other))
    Assignment.objects.filter(pk=skipped.pk).update(
        state="skipped", skip_reason="other", seat=None, lease_until=None, ended_at=timezone.now()
    )
    assert figures.slots() == {
        (project.slug, "chat", "free"): 3,
        (project.slug, "chat", "held"): 1,
        (other.slug, "write", "free"): 1,
    }


def test_workers_and_what_they_hold():
    told = {"policy": "mine", "state": "ready", "reason": "", "in_flight": 3, "capacity": 8, "counters": {"tokens": 5}}
    beat = {"policies": {"7": told}, "jobs": 1, "since": 100.5, "at": 200}
    streams.client().set(f"{streams.HEARTBEAT}host-b:2", json.dumps(beat), ex=60)
    # As versions before this one wrote it.
    earlier = {"policies": {"7": {"state": "failed", "reason": "No such folder."}}, "at": 200}
    streams.client().set(f"{streams.HEARTBEAT}host-a:1", json.dumps(earlier), ex=60)
    first, second = figures.workers()
    assert (first.name, first.since, first.jobs) == ("host-a:1", 0, 0)
    assert (first.policies[0].policy, first.policies[0].reason) == ("7", "No such folder.")
    assert (second.name, second.since, second.at, second.jobs) == ("host-b:2", 100.5, 200, 1)
    held = second.policies[0]
    assert (held.policy_id, held.policy, held.state, held.in_flight, held.capacity) == (7, "mine", "ready", 3, 8)
    assert held.counters == {"tokens": 5}
