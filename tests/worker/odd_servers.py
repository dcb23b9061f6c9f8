"""Servers that speak /v1/chat/completions in the odd ways that real ones do."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY = "sk-odd-4711-secret"
MODEL = "odd"
CONTEXT_TOKENS = 1000


class Answer:
    """What a script writes to: one question (`asked`) and the connection that waits for its answer."""

    def __init__(self, handler: BaseHTTPRequestHandler, asked: dict):
        self._handler, self.asked = handler, asked
        self.headers = handler.headers

    def refuse(self, status: int, body: dict | str, **headers: str) -> None:
        """An answer that is no stream."""
        page = isinstance(body, str)
        content = (body if page else json.dumps(body)).encode()
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.send_header("Content-Type", "text/html" if page else "application/json")
        self._handler.send_header("Content-Length", str(len(content)))
        self._handler.end_headers()
        self._handler.wfile.write(content)

    def begin(self) -> None:
        """The head of a stream."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "text/event-stream")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()

    def raw(self, content: bytes) -> None:
        """Bytes of the stream, sent at once."""
        self._handler.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self._handler.wfile.flush()

    def data(self, **chunk) -> None:
        """One event."""
        self.raw(f"data: {json.dumps(chunk)}\n\n".encode())

    def delta(self, finish: str | None = None, **delta) -> None:
        """One event as most servers send it."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self.data(id="1", object="chat.completion.chunk", created=1, model=MODEL, choices=[choice])

    def usage(self, prompt: int = 12, completion: int = 34) -> None:
        """Token counts, with no choice."""
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self.data(id="1", object="chat.completion.chunk", created=1, model=MODEL, choices=[], usage=counts)

    def end(self) -> None:
        """The end of a whole stream."""
        self.raw(b"data: [DONE]\n\n")
        self._handler.wfile.write(b"0\r\n\r\n")

    def break_off(self) -> None:
        """Close the connection in the middle."""
        self._handler.close_connection = True
        self._handler.wfile.flush()
        self._handler.connection.close()


Script = Callable[[Answer], None]


def well(answer: Answer) -> None:
    """As vLLM does it."""
    answer.begin()
    answer.delta(role="assistant", content="")
    for word in ("Hello", " there", "."):
        answer.delta(content=word)
    answer.delta(finish="stop", content="")
    answer.usage()
    answer.end()


class OddServer:
    """Answers questions by `scripts`, one each and in order, then by `always`; the first greeting by `greeting`."""

    def __init__(self, port: int = 0):
        self.scripts: list[Script] = []
        self.always: Script = well
        self.greeting: Script = well
        self.models: dict | None = {"data": [{"id": MODEL, "owned_by": "vllm", "max_model_len": CONTEXT_TOKENS}]}
        self.asked: list[dict] = []
        self.greeted = 0
        self.keys: list[str | None] = []
        self.gone = threading.Event()  # somebody hung up in the middle of an answer
        self.busy, self.busiest = 0, 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                answer = Answer(self, {})
                outer.keys.append(self.headers["Authorization"])
                if outer.models is None:
                    answer.refuse(404, {"detail": "Not Found"})
                else:
                    answer.refuse(200, {"object": "list", **outer.models})

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.append(self.headers["Authorization"])
                with contextlib.suppress(BrokenPipeError, ConnectionResetError, OSError, ValueError):
                    outer._answer(Answer(self, asked))
                    return
                outer.gone.set()
                self.close_connection = True

        self._httpd = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._httpd.daemon_threads = True
        self.port = self._httpd.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _answer(self, answer: Answer) -> None:
        with self._lock:
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
        try:
            if answer.asked["messages"] == [{"role": "user", "content": "Hello"}]:
                self.greeted += 1
                self.greeting(answer)
                return
            with self._lock:
                self.asked.append(answer.asked)
                script = self.scripts.pop(0) if self.scripts else self.always
            script(answer)
        finally:
            with self._lock:
                self.busy -= 1

    def stop(self) -> None:
        """Answer nobody any more."""
        self._httpd.shutdown()
        self._httpd.server_close()


@contextlib.contextmanager
def running() -> Iterator[OddServer]:
    """A server for as long as the block runs."""
    server = OddServer()
    try:
        yield server
    finally:
        server.stop()


def slowly(words: int = 400, pause: float = 0.02) -> Script:
    """A long text, a word at a time."""

    def script(answer: Answer) -> None:
        answer.begin()
        for number in range(words):
            answer.delta(content=f"w{number} ")
            time.sleep(pause)
        answer.delta(finish="stop")
        answer.end()

    return script


RUN = """
import sys, time
from tests.worker.odd_servers import OddServer, slowly
server = OddServer(int(sys.argv[1]))
server.always = slowly(100, 0.02)
print(server.port, flush=True)
time.sleep(600)
"""


def process(port: int = 0) -> tuple[subprocess.Popen, int]:
    """A server in a process of its own, which can be killed, and its port; it writes a hundred words slowly."""
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", RUN, str(port)], stdout=subprocess.PIPE, cwd=root, text=True)
    return child, int(child.stdout.readline())
