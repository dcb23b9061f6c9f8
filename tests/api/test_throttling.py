"""How many requests one person may make in a minute."""

import pytest
import redis

from annotate import streams
from annotate.api import throttling
from tests import factory

pytestmark = pytest.mark.django_db

ADDRESS = "/api/v1/projects/"


@pytest.fixture(autouse=True)
def one_minute(monkeypatch) -> None:
    """The clock stands, 18 seconds before the minute ends."""
    monkeypatch.setattr(throttling.time, "time", lambda: 6_000_042.0)


def test_the_one_after_the_last_is_429_and_says_how_long_to_wait(api, settings) -> None:
    settings.API_REQUESTS_PER_MINUTE = 3
    client = api(factory.trainer())
    assert [client.get(ADDRESS).status_code for _ in range(3)] == [200] * 3
    response = client.get(ADDRESS)
    assert (response.status_code, response.json()["code"]) == (429, "throttled")
    assert response["Retry-After"] == "18"


def test_the_next_minute_begins_anew_and_others_are_not_held_up(api, settings, monkeypatch) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    client, other = api(factory.trainer()), api(factory.trainer())
    assert [client.get(ADDRESS).status_code for _ in range(2)] == [200, 429]
    assert other.get(ADDRESS).status_code == 200
    monkeypatch.setattr(throttling.time, "time", lambda: 6_000_061.0)
    assert client.get(ADDRESS).status_code == 200


def test_counters_do_not_stay(api) -> None:
    client = api(factory.trainer())
    client.get(ADDRESS)
    (key,) = streams.client().keys("bothsides:api:*")
    assert 0 < streams.client().ttl(key) <= 60


def test_nobody_is_refused_while_redis_is_away(api, settings, monkeypatch) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    gone = redis.Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    monkeypatch.setattr(throttling.streams, "client", lambda: gone)
    client = api(factory.trainer())
    assert [client.get(ADDRESS).status_code for _ in range(3)] == [200] * 3
