"""A worker that is killed, or hangs, at one point of the way of a reply: `celery -A tests.worker.doomed worker`.

DOOMED_AT names the point, DOOMED_BY the signal that the process sends itself there, once. Only tests start it.
"""

import os
import signal

from worker.app import app  # noqa: F401  (what Celery looks for)

# After worker.app, which sets Django up.
from annotate import generation, streams  # isort: skip
from annotate.models import GenerationRequest  # isort: skip

POINTS = ("claimed", "prefill", "streaming", "storing", "stored")
REPLY = GenerationRequest.Purpose.REPLY

_at = os.environ["DOOMED_AT"]
_by = signal.Signals[os.environ["DOOMED_BY"]]
_seen = {"claimed": False, "told": 0, "done": False}


def _end(point: str) -> None:
    if point == _at and not _seen["done"]:
        _seen["done"] = True
        os.kill(os.getpid(), _by)


def _claim(real):
    def claim(**what):
        found = real(**what)
        if any(request.purpose == REPLY for request in found):
            _seen["claimed"] = True
            _end("claimed")
        return found

    return claim


def _forward(real):
    def forward(self, input_ids=None, *arguments, **more):
        # More than one token of a text: its prompt is being read.
        if _seen["claimed"] and input_ids is not None and input_ids.shape[1] > 1:
            _end("prefill")
        return real(self, input_ids, *arguments, **more)

    return forward


def _publish(real):
    def publish(assignment_id, events):
        real(assignment_id, events)
        _seen["told"] += any(event["kind"] == "text" for event in events)
        if _seen["told"] >= 3:
            _end("streaming")

    return publish


def _store(real):
    def store(request, sampled):
        stored = real(request, sampled)
        if request.purpose == REPLY:
            _end("storing")
        return stored

    return store


def _complete(real):
    def complete(**what):
        stored = real(**what)
        if GenerationRequest.objects.get(pk=what["request_id"]).purpose == REPLY:
            _end("stored")
        return stored

    return complete


generation.claim = _claim(generation.claim)
generation._store = _store(generation._store)
generation.complete = _complete(generation.complete)
streams.publish = _publish(streams.publish)

if _at == "prefill":
    from transformers import LlamaForCausalLM

    LlamaForCausalLM.forward = _forward(LlamaForCausalLM.forward)
