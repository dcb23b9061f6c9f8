"""The tests' own servers."""

import os

from django.conf import settings

from annotate import streams


def test_each_xdist_worker_has_a_redis_database_of_its_own():
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")
    assert os.environ["REDIS_URL"] == settings.REDIS_URL
    assert settings.REDIS_URL.endswith(f"/{int(number) + 1}")
    assert streams.client().connection_pool.connection_kwargs["db"] == int(number) + 1


def test_the_servers_are_no_ones_but_the_tests():
    assert not settings.EMBEDDED
    assert settings.DATABASES["default"]["HOST"].startswith(str(settings.BOTHSIDES_HOME))
