"""The site through PgBouncer in transaction mode: each transaction may be on another connection to the server."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from rest_framework.authtoken.models import Token

from annotate import embedded
from annotate.models import Conversation, Export, Message, Role
from tests import bulk, factory, invariants, site
from tests.annotate.test_concurrency import in_threads
from tests.api.test_concurrency import work

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.skipif(not PGBOUNCER, reason="no PgBouncer here"),
]

# Three connections for everything, taken in turns, so that two statements in a row are seldom on the same one.
INI = """
[databases]
* = host={sockets}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
max_client_conn = 500
max_prepared_statements = 0
"""


@pytest.fixture
def pooled(tmp_path):
    """DATABASE_URL of the test's own database through a PgBouncer."""
    parts, port = connection.settings_dict, site.free_port()
    ini, users = tmp_path / "pgbouncer.ini", tmp_path / "users.txt"
    users.write_text(f'"{parts["USER"]}" ""\n')
    ini.write_text(INI.format(sockets=parts["OPTIONS"].get("host") or parts["HOST"], port=port, users=users))
    # It refuses to run as root, as PostgreSQL does; and the folder of the sockets is that account's.
    prefix, _ = embedded._unprivileged([tmp_path])
    log = (tmp_path / "pgbouncer.log").open("wb")
    process = subprocess.Popen([*prefix, PGBOUNCER, str(ini)], stdout=log, stderr=log, cwd="/")
    url = f"postgresql://{parts['USER']}@127.0.0.1:{port}/{parts['NAME']}"
    try:
        site.wait_until(lambda: _answers(url), seconds=20, process=process)
        _open_all(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _open_all(url):
    """Have it open as many connections as it may: it opens another only where all are taken."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(psycopg.connect(url)).execute("SELECT 1")


def _answers(url):
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def managed(url, *arguments):
    """What a command prints that is run through the pooler."""
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


def test_it_does_mix_connections(pooled):
    """Else the other tests would prove nothing."""
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as client:
        pids = {client.execute("SELECT pg_backend_pid()").fetchone() for _ in range(20)}
    assert len(pids) == 3


def test_work_is_claimed_and_submitted(pooled):
    project = factory.project(overlap=2)
    bulk.comparisons(project, 30)
    tokens = [Token.objects.create(user=factory.trainer(project)).key for _ in range(8)]
    with site.web_server(DATABASE_URL=pooled, API_REQUESTS_PER_MINUTE="100000") as port:
        in_threads(
            *[
                lambda token=token, seed=seed: work(site.Api(port, token), project, random.Random(seed), [])
                for seed, token in enumerate(tokens)
            ]
        )
    invariants.check_all_done(project)


def test_pages_with_lists_of_choices(client, pooled):
    projects = [factory.project() for _ in range(5)]
    client.force_login(factory.person(projects[0], role=Role.ADMIN))
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    pages = [f"/admin/annotate/project/{project.pk}/change/" for project in projects]
    pages += ["/admin/annotate/prompt/add/", "/admin/annotate/assignment/", "/admin/annotate/user/add/"]

    def status(page):
        link = HTTPConnection("127.0.0.1", port, timeout=30)
        link.request("GET", page, headers={"Cookie": cookie})
        return page, link.getresponse().status

    # With DEBUG, style sheets need not have been collected.
    with site.web_server(DATABASE_URL=pooled, DEBUG="yes") as port, ThreadPoolExecutor(8) as pool:
        assert {status for _, status in pool.map(status, pages * 4)} == {200}


def test_import_and_export(pooled, tmp_path):
    project = factory.project(slug="pooled")
    file = tmp_path / "conversations.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": f"Why {n}?"}, {"role": "assistant", "content": f"Because {n}."}]}
        for n in range(3000)
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    managed(pooled, "import_conversations", str(file), "--format", "messages", "--project", "pooled")
    assert Conversation.objects.filter(project=project).count() == 3000
    counted = "from annotate.models import Message; print(sum(1 for _ in Message.objects.iterator(chunk_size=100)))"
    assert int(managed(pooled, "shell", "--verbosity", "0", "-c", counted)) == Message.objects.count()
    for name, url in (("through", pooled), ("direct", site.environment()["DATABASE_URL"])):
        made = ("--format", "messages", "--project", "pooled", "--out", str(tmp_path / name))
        managed(url, "export", "conversations", *made)
    digests = {json.loads((tmp_path / name / "manifest.json").read_text())["digest"] for name in ("through", "direct")}
    assert len(digests) == 1
    assert Export.objects.get(digest=digests.pop(), pk=Export.objects.earliest("pk").pk).rows > 1000
