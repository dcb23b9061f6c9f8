"""/metrics: every figure by Prometheus' own parser, and who may read them."""

import json
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from annotate import conversations, jobs, streams
from annotate.models import Export, GenerationRequest, Job, Role
from tests import factory

TOKEN = "a-token-of-tests"
LABELS = ("part", "project", "worker", "policy", "purpose", "kind", "finish", "state", "le")
DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"
COUNTED = {
    "tokens": 1234,
    "prompt_tokens": 99,
    "loads": 2,
    "swaps": 1,
    "texts": {"stop": 5, "length": 1},
    "failures": {"request": 3},
    "first_tokens": {
        "reply": {
            "claim": {"buckets": [0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1], "seconds": 71.5},
            "asking": {"buckets": [0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1], "seconds": 75},
        }
    },
}


@pytest.fixture(autouse=True)
def _token(settings):
    settings.METRICS_TOKEN = TOKEN


def beat(policy_id: int, name: str = "host:1", **told) -> None:
    held = {
        "policy": "mine",
        "state": "ready",
        "reason": "",
        "in_flight": 3,
        "capacity": 64,
        "counters": COUNTED,
    } | told
    said = {"policies": {str(policy_id): held}, "jobs": 1, "since": 1000.5, "at": time.time() - 2}
    streams.client().set(streams.HEARTBEAT + name, json.dumps(said), ex=60)


def scrape(client) -> dict[str, dict[tuple, float]]:
    """Samples by name and labels, of families whose types and helps were looked at."""
    answer = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "no-store" in answer.headers["Cache-Control"]
    found: dict[str, dict[tuple, float]] = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        assert family.documentation.endswith((".", "like.")), family.name
        kind = "counter" if any(one.name.endswith("_total") for one in family.samples) else family.type
        assert kind == family.type
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in LABELS if name in sample.labels)
            assert len(labels) == len(sample.labels), sample
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


@pytest.mark.django_db
def test_what_the_record_tells(client):
    project = factory.project()
    policy = factory.current(project).reply_policy
    slots = [factory.held_chat(project, factory.trainer(project)) for _ in range(2)]
    requests = [conversations.say(assignment=slot, user=slot.trainer, text="Hello") for slot in slots]
    GenerationRequest.objects.filter(pk=requests[0].pk).update(created_at=timezone.now() - timedelta(seconds=70))
    factory.claimed(requests[1])
    factory.chat_slot(project)
    Export.objects.create(project=project, what="comparisons", format="ranked")
    found = scrape(client)
    assert found["bothsides_up"] == {("database",): 1, ("broker",): 1, ("worker",): 0, ("beat",): 0}
    assert found["bothsides_requests"] == {
        (policy.name, purpose, state): int(purpose == "reply")
        for purpose in ("reply", "suggestion", "alternatives")
        for state in ("waiting", "claimed")
    }
    assert 70 <= found["bothsides_oldest_waiting_seconds"].pop((policy.name, "reply")) < 80
    assert set(found["bothsides_oldest_waiting_seconds"].values()) == {0}
    assert {key: count for key, count in found["bothsides_assignments"].items() if count} == {
        (project.slug, "chat", "free"): 1,
        (project.slug, "chat", "held"): 2,
    }
    assert len(found["bothsides_assignments"]) == 8
    assert found["bothsides_open_iterations"] == {(): 1}
    assert {key: count for key, count in found["bothsides_jobs"].items() if count} == {("export", "waiting"): 1}
    assert len(found["bothsides_jobs"]) == len(jobs.KINDS) * len(Job.State)
    assert found["bothsides_workers"] == {(): 0}


@pytest.mark.django_db
def test_policies_that_are_off_and_have_nothing_to_do_are_left_out(client):
    factory.policy(active=False)
    assert "bothsides_requests" not in scrape(client)


@pytest.mark.django_db
def test_what_workers_count(client):
    beat(7)
    beat(7, "host:2", state="failed", capacity=0, in_flight=0, counters=COUNTED | {"tokens": 1, "first_tokens": {}})
    found = scrape(client)
    one = ("host:1", "mine")
    assert found["bothsides_up"][("worker",)] == 1
    assert found["bothsides_workers"] == {(): 2}
    assert found["bothsides_worker_start_time_seconds"][("host:1",)] == 1000.5
    assert 2 <= found["bothsides_worker_heartbeat_age_seconds"][("host:1",)] < 12
    assert found["bothsides_worker_jobs"] == {("host:1",): 1, ("host:2",): 1}
    assert found["bothsides_policy_state"] == {(*one, "ready"): 1, ("host:2", "mine", "failed"): 1}
    assert found["bothsides_texts_in_flight"] == {one: 3, ("host:2", "mine"): 0}
    assert found["bothsides_texts_capacity"] == {one: 64, ("host:2", "mine"): 0}
    assert found["bothsides_tokens_total"] == {one: 1234, ("host:2", "mine"): 1}
    assert found["bothsides_prompt_tokens_total"][one] == 99
    assert found["bothsides_model_loads_total"][one] == 2
    assert found["bothsides_model_swaps_total"][one] == 1
    texts = {labels[2]: value for labels, value in found["bothsides_texts_total"].items() if labels[:2] == one}
    assert texts == {"stop": 5, "length": 1, "stopped": 0, "refused": 0, "error": 0}
    failures = {labels[2]: value for labels, value in found["bothsides_failures_total"].items() if labels[:2] == one}
    assert failures == {"request": 3, "load": 0, "engine": 0}


@pytest.mark.django_db
def test_a_beat_that_ticks_is_up(client):
    streams.tick("host")
    assert scrape(client)["bothsides_up"][("beat",)] == 1


@pytest.mark.django_db
def test_times_to_the_first_token_are_histograms(client):
    beat(7)
    found = scrape(client)
    labels = ("host:1", "mine", "reply")
    claim = found["bothsides_claim_to_first_token_seconds_bucket"]
    assert [claim[(*labels, end)] for end in ("0.05", "0.1", "0.2", "60.0", "+Inf")] == [0, 2, 3, 3, 4]
    assert len(claim) == 12
    assert found["bothsides_claim_to_first_token_seconds_count"] == {labels: 4}
    assert found["bothsides_claim_to_first_token_seconds_sum"] == {labels: 71.5}
    asking = found["bothsides_asking_to_first_token_seconds_bucket"]
    assert [asking[(*labels, end)] for end in ("0.5", "1.0", "+Inf")] == [0, 3, 4]


@pytest.mark.django_db
def test_a_worker_of_another_version_spoils_nothing(client):
    beat(
        7,
        counters=COUNTED
        | {
            "first_tokens": {
                "reply": {"claim": {"buckets": [1], "seconds": 1}, "asking": {"buckets": [], "seconds": 0}}
            }
        },
    )
    streams.client().set(f"{streams.HEARTBEAT}old:1", json.dumps({"policies": {"7": {"state": "ready"}}, "at": 0}))
    beat(7, "new:1", counters={"first_tokens": {"reply": {}, "suggestion": {"claim": {}}}})
    found = scrape(client)
    assert found["bothsides_workers"] == {(): 3}
    assert "bothsides_claim_to_first_token_seconds_bucket" not in found
    assert found["bothsides_tokens_total"][("old:1", "7")] == 0


@pytest.mark.django_db
def test_without_the_broker_the_record_is_told(client, settings):
    factory.project()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    streams.client.cache_clear()
    try:
        found = scrape(client)
    finally:
        streams.client.cache_clear()
    assert found["bothsides_up"] == {("database",): 1, ("broker",): 0, ("worker",): 0, ("beat",): 0}
    assert "bothsides_requests" in found
    assert "bothsides_workers" not in found


def test_without_the_database_the_workers_are_told(client, monkeypatch):
    def refuse():
        raise OperationalError("the server is gone")

    beat(7)
    # No database mark: the token is enough, and a query would fail the test.
    monkeypatch.setattr(connection, "cursor", refuse)
    found = scrape(client)
    assert found["bothsides_up"] == {("database",): 0, ("broker",): 1, ("worker",): 1, ("beat",): 0}
    assert found["bothsides_tokens_total"] == {("host:1", "mine"): 1234}
    assert "bothsides_requests" not in found


@pytest.mark.django_db
def test_the_queries_do_not_grow_with_rows(client):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            scrape(client)
        return len(captured)

    project = factory.project()
    few = queries()
    for _ in range(3):
        other = factory.project()
        slot = factory.held_chat(other, factory.trainer(other))
        conversations.say(assignment=slot, user=slot.trainer, text="Hello")
        factory.chat_slot(project)
    assert queries() == few
    assert few <= 10


@pytest.mark.django_db
def test_names_in_labels_are_escaped(client):
    factory.policy(name='a "name"\nof \\ two lines')
    assert {labels[0] for labels in scrape(client)["bothsides_requests"]} == {'a "name"\nof \\ two lines'}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer tökén", TOKEN]
)
def test_who_does_not_know_the_token_finds_nothing(client, header):
    answer = client.get("/metrics", headers={"authorization": header} if header else {})
    assert answer.status_code == 404
    assert b"bothsides_" not in answer.content


@pytest.mark.django_db
@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer None", "Bearer x"])
def test_without_a_token_in_the_settings_no_bearer_comes_in(client, settings, header):
    settings.METRICS_TOKEN = ""
    assert client.get("/metrics", headers={"authorization": header} if header else {}).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(("role", "status"), [(role, 200 if role == Role.ADMIN else 404) for role in Role])
def test_of_those_who_are_signed_in_only_admins_read_it(client, settings, role, status):
    settings.METRICS_TOKEN = ""
    client.force_login(factory.person(factory.project(), role=role), backend="sesame.backends.ModelBackend")
    assert client.get("/metrics").status_code == status


@pytest.mark.django_db
def test_a_wrong_token_is_wrong_also_for_an_admin(client):
    client.force_login(factory.person(role=Role.ADMIN), backend="sesame.backends.ModelBackend")
    assert client.get("/metrics", headers={"authorization": "Bearer wrong"}).status_code == 404


def test_post_is_refused(client):
    assert client.post("/metrics").status_code == 405


@pytest.mark.django_db
def test_prometheus_inside_a_cluster_is_not_sent_to_https(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    scrape(client)


@pytest.mark.django_db
def test_every_metric_is_documented_and_no_other(client):
    factory.project()
    beat(7)
    told = {re.sub(r"_(bucket|count|sum)$", "", name) for name in scrape(client)}
    section = DEPLOY.read_text().partition("## Watching it")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(bothsides_\w+)`", section, flags=re.M))
    assert documented == told
