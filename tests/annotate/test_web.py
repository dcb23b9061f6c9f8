"""The web server, as it is configured, over real sockets."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STREAM = """
import os, time

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    if environ["PATH_INFO"] == "/short":
        return [b"short"]
    return Stream(b"sign of life" * (100_000 if environ["PATH_INFO"] == "/large" else 1))

class Stream:
    def __init__(self, piece):
        self.piece = piece

    def __iter__(self):
        while True:
            yield self.piece
            time.sleep(0.05)

    def close(self):
        with open(os.environ["CLOSED"], "a") as closed:
            closed.write("closed\\n")
"""


# All but how long a client may be silent.
IMPATIENT = """
from annotate import web
web.CLIENT_SECONDS = 1
from annotate.web import *
"""
THREADS = 8


@pytest.fixture
def server(tmp_path):
    """The configured server with an application of endless streams; gives its port and where closing shows."""
    (tmp_path / "stream.py").write_text(STREAM)
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    closed = tmp_path / "closed"
    environment = os.environ | {
        "PORT": str(port),
        "WEB_PROCESSES": "1",
        "WEB_THREADS": str(THREADS),
        "CLOSED": str(closed),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:impatient", "stream:application"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
        try:
            yield port, closed
        finally:
            process.terminate()


def test_a_client_that_leaves_closes_its_stream(server):
    port, closed = server
    # Twice as many as there are threads: had one kept its thread, the later ones would wait for ever.
    for number in range(1, 17):
        with _ask(port, "/stream") as client:
            _read_until(client, b"sign of life")
        deadline = time.monotonic() + 10
        while not closed.exists() or len(closed.read_text().split()) < number:
            assert time.monotonic() < deadline, "the stream of a client that left was not closed"
            time.sleep(0.01)


def test_a_page_beside_streams(server):
    port, _ = server
    streams = [_ask(port, "/stream") for _ in range(4)]
    for stream in streams:
        _read_until(stream, b"sign of life")
    with _ask(port, "/short") as client:
        _read_until(client, b"short")
    for stream in streams:
        stream.close()


def test_clients_that_fall_silent_amid_their_question_keep_no_thread(server):
    port, _ = server
    _ask(port, "/short").close()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 * THREADS)]
    for one in silent:
        one.sendall(b"GET /short HTTP/1.1\r\nHost: loc")
    with _ask(port, "/short") as client:
        _read_until(client, b"short")
    for one in silent:
        one.close()


def test_clients_that_read_no_further_keep_no_thread(server):
    port, closed = server
    deaf = [_ask(port, "/large") for _ in range(THREADS)]
    with _ask(port, "/short") as client:
        _read_until(client, b"short")
    deadline = time.monotonic() + 10
    while not closed.exists() or len(closed.read_text().split()) < THREADS:
        assert time.monotonic() < deadline, "the stream of a client that reads nothing was not closed"
        time.sleep(0.01)
    for one in deaf:
        one.close()


def _ask(port: int, path: str) -> socket.socket:
    deadline = time.monotonic() + 30
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def _read_until(client: socket.socket, wanted: bytes) -> None:
    read = b""
    while wanted not in read:
        piece = client.recv(4096)
        assert piece, f"the server closed the connection: {read!r}"
        read += piece
