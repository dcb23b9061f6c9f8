"""The web server, as it is configured, over real sockets."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STREAM = """
import os, time

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    if environ["PATH_INFO"] == "/short":
        return [b"short"]
    return Stream()

class Stream:
    def __iter__(self):
        while True:
            yield b": sign of life\\n\\n"
            time.sleep(0.05)

    def close(self):
        with open(os.environ["CLOSED"], "a") as closed:
            closed.write("closed\\n")
"""


@pytest.fixture
def server(tmp_path):
    """The configured server with an application of one endless stream; gives its port and where closing shows."""
    (tmp_path / "stream.py").write_text(STREAM)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    closed = tmp_path / "closed"
    environment = os.environ | {
        "PORT": str(port),
        "WEB_PROCESSES": "1",
        "WEB_THREADS": "8",
        "CLOSED": str(closed),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:annotate.web", "stream:application"]
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
