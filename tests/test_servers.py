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
    # Each xdist worker's own home lies in the folder of the run's servers.
    home = settings.BOTHSIDES_HOME.parent if "PYTEST_XDIST_WORKER" in os.environ else settings.BOTHSIDES_HOME
    assert settings.DATABASES["default"]["HOST"].startswith(f"{home}/")
