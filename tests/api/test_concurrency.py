"""Sixteen trainers at once through HTTP, on the server that production runs."""

import random
import time
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.authtoken.models import Token

from annotate import assignments
from annotate.models import Assignment
from tests import bulk, factory, invariants, site
from tests.annotate.test_concurrency import in_threads

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def run_out(slot_id):
    """The slot's lease ends; the sweep, here or in another thread, takes it away."""
    Assignment.objects.filter(pk=slot_id).update(lease_until=timezone.now() - timedelta(seconds=1))
    while Assignment.objects.filter(pk=slot_id, state="held").exists():
        assignments.expire()


def tiers(slot, dice):
    return [[candidate] for candidate in dice.sample(slot["shown_order"], len(slot["shown_order"]))]


def work(api, project, dice, given):
    """Claim until nothing is left: mostly submit, at times twice; now and then skip, run out, or come in late."""
    late, end = [], time.monotonic() + 120
    while time.monotonic() < end:
        status, slot = api.call("POST", f"projects/{project.slug}/claim/", {"kinds": ["rank"]})
        if status == 404:
            assert slot["code"] == "nothing_left"
            if late:
                send_late(api, late.pop(), dice)
            elif Assignment.objects.filter(project=project, state="held").exists():
                time.sleep(0.02)
            else:
                return
            continue
        assert status == 200, slot
        given.append(slot["id"])
        luck = dice.random()
        if luck < 0.08:
            answer = api.call("POST", f"assignments/{slot['id']}/skip/", {"reason": "unclear"})
            assert answer == (204, {})
        elif luck < 0.16:
            run_out(slot["id"])
            late.append(slot)
        else:
            body = {"tiers": tiers(slot, dice)}
            assert api.call("POST", f"assignments/{slot['id']}/submit/", body)[0] == 201
            if luck > 0.9:
                assert api.call("POST", f"assignments/{slot['id']}/submit/", body)[0] == 409
            if late and luck > 0.7:
                send_late(api, late.pop(), dice)
    raise AssertionError("work did not end")


def send_late(api, slot, dice):
    status, ranking = api.call("POST", f"assignments/{slot['id']}/submit/", {"tiers": tiers(slot, dice)})
    assert status == 201
    assert ranking["state"] in ("submitted", "surplus")


def test_sixteen_trainers_over_http_leave_every_invariant_standing():
    project = factory.project(overlap=3)
    bulk.comparisons(project, 80)
    trainers = [factory.trainer(project) for _ in range(16)]
    tokens = [Token.objects.create(user=user).key for user in trainers]
    given = [[] for _ in trainers]
    with site.web_server(API_REQUESTS_PER_MINUTE="100000") as port:
        in_threads(
            *[
                lambda token=token, mine=mine, seed=seed: work(
                    site.Api(port, token), project, random.Random(seed), mine
                )
                for seed, (token, mine) in enumerate(zip(tokens, given, strict=True))
            ]
        )
    handed_out = [pk for mine in given for pk in mine]
    assert len(handed_out) == len(set(handed_out))
    assert len(handed_out) >= 240
    invariants.check_all_done(project)
