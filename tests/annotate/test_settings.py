"""What the settings make of the environment, each case in a Python of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.checks import Tags, run_checks
from psycopg.conninfo import conninfo_to_dict

from annotate import embedded

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = {
    "DATABASE_URL": "postgresql://someone:p%40ss@db.example.org:6432/bothsides?sslmode=require",
    "REDIS_URL": "rediss://:pass@redis.example.org/3",
    "SECRET_KEY": "k" * 50,
    "SITE_URL": "https://bothsides.example.org/",
}


def read(expression: str, **variables: str):
    """The value of an expression over `settings` in a process with just these variables."""
    script = f"import json; from django.conf import settings; print(json.dumps({expression}, default=str))"
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "annotate.settings", **variables}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_database_of_a_url():
    database = read("settings.DATABASES['default']", **PRODUCTION)
    assert {name: database[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")} == {
        "NAME": "bothsides",
        "USER": "someone",
        "PASSWORD": "p@ss",
        "HOST": "db.example.org",
        "PORT": "6432",
    }
    assert database["OPTIONS"]["sslmode"] == "require"
    assert database["OPTIONS"]["pool"]["max_size"] >= 16


def test_a_database_that_vanishes_is_noticed_soon_or_when_the_url_says():
    names = ("connect_timeout", "tcp_user_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count")
    expression = f"[settings.DATABASES['default']['OPTIONS'][name] for name in {names}]"
    assert read(expression, **PRODUCTION) == [10, 30_000, 15, 5, 3]
    url = PRODUCTION["DATABASE_URL"] + "&tcp_user_timeout=60000&keepalives_count=9"
    assert read(expression, **PRODUCTION | {"DATABASE_URL": url}) == [10, "60000", 15, 5, "9"]


def test_https_makes_cookies_secure():
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT")
    expression = f"[getattr(settings, name) for name in {names}]"
    assert read(expression, **PRODUCTION) == [True, True, True]
    assert read(expression, **PRODUCTION | {"SITE_URL": "http://127.0.0.1:8000"}) == [False, False, False]


@pytest.mark.parametrize("name", ["ABANDON_AFTER_HOURS", "POOL_PATIENCE_HOURS"])
def test_hours_are_no_more_than_there_are(name):
    with pytest.raises(AssertionError, match=f"{name} must be .* 87600"):
        read("settings.DEBUG", **PRODUCTION, **{name: "99999999"})


def test_the_hosts_and_origin_follow_the_site():
    hosts, origins = read(
        "[settings.ALLOWED_HOSTS, settings.CSRF_TRUSTED_ORIGINS]", **PRODUCTION, ALLOWED_HOSTS="b.org"
    )
    assert hosts == ["bothsides.example.org", "127.0.0.1", "localhost", "[::1]", "b.org"]
    assert origins == ["https://bothsides.example.org"]


def test_links_work_once_in_production_only(tmp_path):
    assert read("settings.SESAME_ONE_TIME", **PRODUCTION) is True
    assert read("settings.SESAME_ONE_TIME", BOTHSIDES_HOME=str(tmp_path)) is False


def test_embedded_finds_the_running_servers(tmp_path):
    servers = embedded.start(tmp_path, throwaway=True)
    try:
        embedded.make_secret_key(tmp_path)
        found = read(
            "[settings.EMBEDDED, settings.DATABASES['default']['HOST'], settings.REDIS_URL, settings.SECRET_KEY]",
            BOTHSIDES_HOME=str(tmp_path),
        )
    finally:
        embedded.stop(servers)
    # A socket's folder is elsewhere where the home folder has a long name.
    host = conninfo_to_dict(servers[0].url)["host"]
    assert found == [True, host, servers[1].url, embedded.stored_secret_key(tmp_path)]


def test_importing_them_writes_nothing(tmp_path):
    assert read("settings.EMBEDDED", BOTHSIDES_HOME=str(tmp_path)) is True
    assert not list(tmp_path.iterdir())


def test_exports_go_to_a_bucket_by_setting():
    storage = read("settings.STORAGES['default']", **PRODUCTION, S3_BUCKET="rankings", S3_ENDPOINT_URL="https://s3.org")
    assert storage["BACKEND"] == "storages.backends.s3.S3Storage"
    assert storage["OPTIONS"]["bucket_name"] == "rankings"
    assert storage["OPTIONS"]["endpoint_url"] == "https://s3.org"


def test_streams_leave_half_of_the_threads():
    assert read("[settings.WEB_THREADS, settings.STREAM_LIMIT]", **PRODUCTION, WEB_THREADS="9") == [9, 4]


def test_every_page_forbids_inline_scripts_and_styles(client):
    policy = client.get("/livez").headers["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("changes", "tag", "identity"),
    [
        ({"DATABASE_POOL_SIZE": 3}, Tags.database, "bothsides.E001"),
        ({"SWEEP_SECONDS": settings.SAMPLING_LEASE_SECONDS + 1}, Tags.compatibility, "bothsides.W001"),
        ({"SITE_URL": "http://bothsides.example.org"}, Tags.security, "bothsides.W002"),
    ],
)
def test_a_bad_combination_is_a_system_check(settings, changes, tag, identity):
    def found() -> set[str]:
        messages = run_checks(tags=[tag], databases=["default"], include_deployment_checks=True)
        return {message.id for message in messages}

    settings.SITE_URL = "https://bothsides.example.org"
    assert identity not in found()
    for name, value in changes.items():
        setattr(settings, name, value)
    assert identity in found()


def test_a_bucket_needs_its_package(settings, monkeypatch):
    settings.STORAGES = settings.STORAGES | {"default": {"BACKEND": "storages.backends.s3.S3Storage"}}
    monkeypatch.setattr("annotate.checks.importlib.util.find_spec", lambda name: None)
    assert "bothsides.E002" in {message.id for message in run_checks(tags=[Tags.files])}
