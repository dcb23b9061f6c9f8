"""Web server and worker are killed while people write: what was acknowledged is there, and they go on."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.test import Client

from annotate import demonstrations, processes
from annotate.models import Assignment, GenerationRequest
from tests import factory, site
from tests.factory import written_turn

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

WRITERS = 10
CSRF = "c" * 32


@dataclass
class Writer:
    """One trainer at the desk: types, saves as the page does, and now and then asks for suggestions."""

    slot: Assignment
    port: int
    session: str
    version: int = 0
    saved: list[dict] = field(default_factory=lambda: [{}])
    tried: dict = field(default_factory=dict)
    asked: int = 0
    failures: int = 0

    def call(self, what: str, fields: dict) -> tuple[int, dict]:
        """Status and JSON of a page's answer; 0 where nobody answered."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            link.request(
                "POST",
                f"/work/{self.slot.pk}/{what}/",
                urlencode(fields),
                {
                    "Accept": "application/json",
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Cookie": f"sessionid={self.session}; csrftoken={CSRF}",
                    "X-CSRFToken": CSRF,
                    "Origin": f"http://127.0.0.1:{self.port}",
                },
            )
            answer = link.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            link.close()

    def write(self) -> None:
        """Type some words and save; ask now and then."""
        number = len(self.saved)
        self.tried = {
            "turns": [written_turn("user", f"What is {number}?"), written_turn("assistant", "It is " + "x" * number)],
            "at": 1,
        }
        fields = {"draft": json.dumps(self.tried), "version": self.version, "active_seconds": number}
        status, answer = self.call("draft", fields)
        if status == 200:
            self.version = answer["version"]
            self.saved.append(self.tried)
        elif status == 409:
            # The save before was stored, and its answer lost with the server: the page then takes the choice of its
            # trainer, who keeps their own.
            self.version = answer["version"]
        else:
            assert status in (0, 502, 503), answer
            self.failures += 1
        if number % 5 == 0:
            before = json.dumps([{"role": "user", "content": "Say more."}])
            self.asked += self.call("suggest", {"role": "assistant", "before": before, "n": 1})[0] == 200
        time.sleep(0.02)


@pytest.fixture
def start(tiny_models, tmp_path):
    """Starts web servers and workers in process groups of their own, on this test's database."""
    running = []

    def launch(arguments, **changes) -> subprocess.Popen:
        quick = {
            "WORKER_POLL_SECONDS": "0.2",
            "WORKER_HEARTBEAT_SECONDS": "0.5",
            "WORKER_DEVICE": "cpu",
            "SAMPLING_LEASE_SECONDS": "2",
        }
        with (tmp_path / f"log-{len(running)}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=settings.BASE_DIR,
                env=site.environment(**(quick | changes)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running.append(process)
        return process

    yield launch
    for process in running:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """The process and all of its group, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_every_acknowledged_save_is_there_after_a_kill(start):
    policy = factory.policy(location="endless")
    project = factory.project(served_by=policy, max_new_tokens=400, kinds=["write"])
    port = site.free_port()
    web = {"PORT": str(port), "SITE_URL": f"http://127.0.0.1:{port}", "WEB_PROCESSES": "2"}
    server, worker = start(processes.WEB, **web), start(processes.WORKER)
    site.wait_until(lambda: site.lives(port), process=server)
    writers = [Writer(factory.held_piece(project), port, session="") for _ in range(WRITERS)]
    for writer in writers:
        client = Client()
        client.force_login(writer.slot.trainer)
        writer.session = client.cookies["sessionid"].value

    over = threading.Event()
    broken: list[BaseException] = []

    def keep_on(writer: Writer) -> None:
        try:
            while not over.is_set():
                writer.write()
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=keep_on, args=[writer]) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        saves = lambda: min(len(writer.saved) for writer in writers)  # noqa: E731
        site.wait_until(lambda: saves() > 10 and sum(writer.asked for writer in writers) > WRITERS, seconds=60)
        kill(server)
        kill(worker)
        acknowledged = {writer.slot.pk: (writer.version, len(writer.saved)) for writer in writers}
        site.wait_until(lambda: all(writer.failures for writer in writers), seconds=30)
        server, worker = start(processes.WEB, **web), start(processes.WORKER)
        site.wait_until(lambda: site.lives(port), process=server)
        site.wait_until(
            lambda: all(len(writer.saved) > acknowledged[writer.slot.pk][1] + 3 for writer in writers), seconds=60
        )
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert broken == []

    for writer in writers:
        stored = Assignment.objects.get(pk=writer.slot.pk)
        assert stored.draft_version >= writer.version
        # The last one that was acknowledged, or one after it whose answer was lost.
        assert stored.draft in (writer.saved[-1], writer.tried)
        assert stored.draft_version >= len(writer.saved) - 1
        assert stored.state == "held"
        conversation = demonstrations.finish(assignment=stored, user=stored.trainer, version=stored.draft_version)
        texts = [turn["text"] for turn in stored.draft["turns"]]
        assert list(conversation.messages.filter(position__gt=0).values_list("text", flat=True)) == texts
    # The worker that was killed left suggestions half written; they were stopped with the pieces that they were for.
    assert GenerationRequest.objects.filter(purpose="suggestion").exists()
