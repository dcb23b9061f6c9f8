"""Many at once on real PostgreSQL: the queue's invariants, and forced interleavings of two last steps."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.utils import timezone

from annotate import (
    assignments,
    comparisons,
    conversations,
    demonstrations,
    generation,
    openings,
    rankings,
    scores,
    uncertain,
)
from annotate.errors import Conflict, NothingLeft
from annotate.models import Assignment, Comparison, Completion, Conversation, GenerationRequest, Ranking
from tests import bulk, factory, invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def in_threads(*calls):
    """Run calls at once, each in a thread with a connection of its own; their results in order."""

    def run(call):
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def work(project, user, dice, given):
    """Claim until nothing is left: mostly submit, now and then skip, run out, or come in late."""
    late, end = [], time.monotonic() + 60
    while time.monotonic() < end:
        try:
            slot = assignments.claim(user=user, project=project)
        except NothingLeft:
            if late:
                submit(late.pop(), dice)
            elif Assignment.objects.filter(project=project, state="held").exists():
                time.sleep(0.01)
            else:
                return
            continue
        given.append(slot.pk)
        luck = dice.random()
        if luck < 0.08:
            assignments.skip(assignment=slot, user=user, reason="unclear")
        elif luck < 0.16:
            run_out(slot)
            late.append(slot)
        else:
            if dice.random() < 0.3 and late:
                submit(late.pop(), dice)
            submit(slot, dice)
    raise AssertionError("work did not end")


def run_out(slot):
    Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    # Another thread's sweep may have it in hand at this moment; then it is that one that ends it.
    while Assignment.objects.filter(pk=slot.pk, state="held").exists():
        assignments.expire()


def submit(slot, dice):
    tiers = [[candidate] for candidate in dice.sample(slot.shown_order, len(slot.shown_order))]
    rankings.submit(assignment=slot, user=slot.trainer, tiers=tiers)


def test_sixteen_trainers_at_once_leave_every_invariant_standing():
    project = factory.project(overlap=3)
    bulk.comparisons(project, 200)
    trainers = [factory.trainer(project) for _ in range(16)]
    given = [[] for _ in trainers]
    calls = [
        lambda user=user, mine=mine, seed=seed: work(project, user, random.Random(seed), mine)
        for seed, (user, mine) in enumerate(zip(trainers, given, strict=True))
    ]
    in_threads(*calls)
    handed_out = [pk for mine in given for pk in mine]
    assert len(handed_out) == len(set(handed_out))
    assert len(handed_out) >= 600
    invariants.check_all_done(project)
    states = set(Assignment.objects.filter(project=project).values_list("state", flat=True))
    assert states >= {"submitted", "skipped", "surplus"}


def test_two_tabs_that_claim_at_once_get_one_slot():
    project = factory.project()
    bulk.comparisons(project, 20)
    user = factory.trainer(project)
    barrier = threading.Barrier(4)

    def claim():
        barrier.wait()
        return assignments.claim(user=user, project=project).pk

    assert len(set(in_threads(*[claim] * 4))) == 1
    assert Assignment.objects.filter(state="held").count() == 1


def test_a_double_submit_counts_once():
    project = factory.project()
    bulk.comparisons(project, 1)
    slot = assignments.claim(user=factory.trainer(project), project=project)
    barrier = threading.Barrier(4)

    def send():
        barrier.wait()
        try:
            return submit(slot, random.Random(0))
        except Conflict:
            return "conflict"

    results = in_threads(*[send] * 4)
    assert results.count("conflict") == 3
    assert Ranking.objects.count() == 1


def wait_for_a_lock(timeout=10):
    """Until some connection of this database waits for a lock."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("nobody waited for a lock")


def one_inside_the_other(monkeypatch, module, name, first, second):
    """Run `first` until it enters `module.name`, then start `second` and let it run into the lock or past it."""
    entered, go_on = threading.Event(), threading.Event()
    real = getattr(module, name)
    slow_thread = []

    def paused(*args, **kwargs):
        if threading.get_ident() in slow_thread and not entered.is_set():
            entered.set()
            assert go_on.wait(20)
        return real(*args, **kwargs)

    def run_first():
        slow_thread.append(threading.get_ident())
        return first()

    def run_second():
        assert entered.wait(20)
        return second()

    monkeypatch.setattr(module, name, paused)

    def conduct(until):
        assert entered.wait(20)
        until()
        go_on.set()

    return run_first, run_second, conduct


@pytest.mark.parametrize("first", [0, 1])
def test_two_last_submits_at_once_close_the_comparison_once(monkeypatch, first):
    project = factory.project(overlap=2)
    bulk.comparisons(project, 1)
    slots = [assignments.claim(user=factory.trainer(project), project=project) for _ in range(2)]
    calls = [lambda slot=slot: submit(slot, random.Random(1)) for slot in slots]
    one, two, conduct = one_inside_the_other(
        monkeypatch, comparisons, "close_if_ranked", calls[first], calls[1 - first]
    )
    in_threads(one, two, lambda: conduct(wait_for_a_lock))
    invariants.check_all_done(project)
    assert Ranking.objects.count() == 2


def two_claimed_requests():
    """A comparison whose last two results are on their way, each from a policy of its own."""
    project = factory.shared_project(1, 1, 1, k=3)
    factory.finished_chat(project)
    comparison = Comparison.objects.get()
    return comparison, [factory.claimed(one) for one in comparison.requests.order_by("id")]


def completing(request, text):
    return lambda: generation.complete(
        request_id=request.pk, token=request.claim_token, sampled=factory.sampled(text), template_hash=""
    )


def check_opened_once(comparison):
    comparison.refresh_from_db()
    assert comparison.state == "open"
    assert comparison.candidates.count() == 3
    assert comparison.assignments.count() == 1
    assert comparison.requests.filter(state="done").count() == 2
    assert Completion.objects.filter(request__comparison=comparison).count() == 2


@pytest.mark.parametrize("first", [0, 1])
def test_two_last_completions_where_the_first_holds_the_lock(monkeypatch, first):
    comparison, requests = two_claimed_requests()
    calls = [completing(request, f"Text {number}") for number, request in enumerate(requests)]
    one, two, conduct = one_inside_the_other(
        monkeypatch, comparisons.Comparison, "refresh_from_db", calls[first], calls[1 - first]
    )
    # The first pauses with the row locked: inside the count of what is pending.
    real = comparisons.settle

    def locked_then_paused(comparison_id):
        comparisons.lock(comparison_id).refresh_from_db()
        return real(comparison_id)

    monkeypatch.setattr(comparisons, "settle", locked_then_paused)
    in_threads(one, two, lambda: conduct(wait_for_a_lock))
    check_opened_once(comparison)


@pytest.mark.parametrize("first", [0, 1])
def test_two_last_completions_where_the_first_has_not_locked_yet(monkeypatch, first):
    comparison, requests = two_claimed_requests()
    calls = [completing(request, f"Text {number}") for number, request in enumerate(requests)]
    one, two, conduct = one_inside_the_other(monkeypatch, comparisons, "settle", calls[first], calls[1 - first])

    def second_is_through():
        end = time.monotonic() + 10
        while not GenerationRequest.objects.filter(pk=requests[1 - first].pk, state="done").exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    in_threads(one, two, lambda: conduct(second_is_through))
    check_opened_once(comparison)


def test_workers_that_claim_at_once_never_share_a_request():
    project = factory.project()
    for _ in range(30):
        factory.finished_chat(project)
    policy_id = factory.current(project).reply_policy_id

    def claim():
        return [
            request.pk
            for _ in range(10)
            for request in generation.claim(policy_id=policy_id, worker="w", limit=3, bulk_limit=3)
        ]

    taken = [pk for mine in in_threads(*[claim] * 4) for pk in mine]
    assert len(taken) == len(set(taken)) == 30


@pytest.mark.parametrize("step", ["suggest", "finish"])
def test_a_piece_that_is_passed_on_in_another_tab_has_ended(monkeypatch, step):
    project = factory.project(kinds=["write"])
    slot = factory.held_piece(project)
    version = factory.save(slot, *(factory.written_turn(*turn) for turn in factory.TURNS))
    mine = {"assignment": slot, "user": slot.trainer}
    steps = {
        "suggest": lambda: demonstrations.suggest(**mine, role="user", before=[]),
        "finish": lambda: demonstrations.finish(**mine, version=version),
    }
    other_tab = Assignment.objects.get(pk=slot.pk)

    def skip():
        assignments.skip(assignment=other_tab, user=slot.trainer, reason="other")

    def refused():
        with pytest.raises(Conflict, match="abandoned already"):
            steps[step]()

    one, two, conduct = one_inside_the_other(monkeypatch, assignments, "_replace", skip, refused)
    in_threads(one, two, lambda: conduct(wait_for_a_lock))
    slot.refresh_from_db()
    assert slot.state == "skipped"


def test_a_piece_is_given_up_after_what_is_being_asked(monkeypatch):
    project = factory.project(kinds=["write"])
    slot = factory.held_piece(project)
    asking = {"assignment": slot, "user": slot.trainer, "role": "user", "before": []}
    demonstrations.suggest(**asking)
    conversation = Conversation.objects.get()
    one, two, conduct = one_inside_the_other(
        monkeypatch,
        demonstrations,
        "_stop",
        lambda: demonstrations.suggest(**asking),
        lambda: openings.abandon(conversation=conversation),
    )
    in_threads(one, two, lambda: conduct(wait_for_a_lock))
    assert Conversation.objects.get().state == "abandoned"
    assert not GenerationRequest.objects.filter(state="waiting").exists()


def test_a_reply_that_is_stopped_at_its_end_is_there_once(monkeypatch):
    project = factory.project(kinds=["chat"])
    slot = factory.held_chat(project, factory.trainer(project))
    request = factory.claimed(conversations.say(assignment=slot, user=slot.trainer, text="Hello"))
    one, two, conduct = one_inside_the_other(
        monkeypatch,
        generation,
        "stop",
        lambda: conversations.stop(assignment=slot, user=slot.trainer),
        completing(request, "Hi."),
    )
    _, completed, _ = in_threads(one, two, lambda: conduct(wait_for_a_lock))
    assert completed
    assert slot.conversation.messages.filter(text="Hi.").count() == 1


@pytest.mark.slow
def test_pools_that_are_decided_at_once_open_one_comparison_each():
    project = factory.project(k=2)
    factory.finished_chat(project, turns=9)
    project.scored_by = factory.reward_run(project, metrics={"heads": 4})
    project.save()
    made = uncertain.sample(project=project, count=2, share=1, pool_size=4)
    for comparison in made:
        factory.answer(comparison.requests.get())
        first, second = comparison.candidates.all()
        apart = comparison.pk % 3
        scores.keep(run=project.scored_by, by_head={first.pk: [0.0, 0.0], second.pk: [1.0 + apart, 1.0 - apart]})
    assert sum(in_threads(*[uncertain.choose_ready] * 6)) == 2
    states = Comparison.objects.filter(pool__isnull=False).order_by("state").values_list("pool", "state")
    assert sorted(states) == sorted((pool, state) for pool in (made[0].pk, made[4].pk) for state in STATES_OF_A_POOL)
    invariants.check_queue(project)


STATES_OF_A_POOL = ("open", "passed_over", "passed_over", "passed_over")
