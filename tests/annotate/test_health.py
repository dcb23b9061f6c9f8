"""/livez and /healthz."""

import json

import pytest
from django.db import OperationalError, connection

from annotate import streams


def test_livez_answers_without_asking_anything(client):
    # No database mark: a query would fail the test.
    response = client.get("/livez")
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.django_db
def test_healthz_while_a_worker_lives(client):
    streams.client().set(f"{streams.HEARTBEAT}one", json.dumps({"policies": {}}), ex=60)
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "missing": []})


@pytest.mark.django_db
def test_healthz_without_a_worker(client):
    response = client.get("/healthz")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "missing": ["worker"]}


@pytest.mark.django_db
def test_healthz_without_a_broker(client, settings, private_servers):
    _, valkey = private_servers
    settings.REDIS_URL = valkey.url
    streams.client.cache_clear()
    try:
        assert client.get("/healthz").json()["missing"] == ["worker"]
        valkey.stop()
        response = client.get("/healthz")
        assert (response.status_code, response.json()["missing"]) == (503, ["broker", "worker"])
    finally:
        streams.client.cache_clear()


def test_healthz_without_a_database(client, monkeypatch):
    def refuse():
        raise OperationalError("the server is gone")

    monkeypatch.setattr(connection, "cursor", refuse)
    response = client.get("/healthz")
    assert response.status_code == 503
    assert "database" in response.json()["missing"]


@pytest.mark.parametrize("address", ["/livez", "/healthz"])
def test_post_is_refused(client, address):
    assert client.post(address).status_code == 405


def test_a_probe_over_plain_http_is_not_sent_to_https(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/livez").status_code == 200
