"""Sampling: the worker beside one padded `generate` of the same prompts, and its first token beside the engine's.

Both run in this one run on the demo model, in the same precision, at temperature 1 with nothing cut off, which
is the fastest that `generate` has. `generate` gets all cores; the worker leaves one to the site.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from annotate import conversations, processes, streams
from annotate.models import GenerationRequest, Policy
from tests import factory
from worker import demo_model
from worker.engines import registry
from worker.engines.base import Engine, Sampling

TOKENS = 64
COUNTS = (1, 8, 64)
RATES = 3
"""Measurements of each rate, of which the median counts."""
TRIES = 7
BULK = 100
"""Requests of three alternatives each."""
TASKS = (
    "Tell me about",
    "Write a short poem on",
    "Explain to a child",
    "Give three ideas for",
    "Summarise what you know of",
)
THINGS = ("rain", "a bicycle", "bread", "the moon", "chess", "a library", "bees", "a bridge", "tea", "the sea", "glass")
QUESTIONS = [f"{TASKS[number % 5]} {THINGS[number % 11]}, in {number + 20} words." for number in range(64)]


def main() -> None:
    """Print one small table of rates and one of first tokens; about five minutes on two cores."""
    _models()
    policy = factory.policy(name="demo", location=demo_model.NAME)
    project = factory.project(served_by=policy, max_new_tokens=TOKENS, temperature=1.0, top_p=1.0, top_k=0)
    engine = _engine()
    generate = {count: _median(lambda one=count: _generate(engine, _prompts(project, one))) for count in COUNTS}
    alone = {count: _median(lambda one=count: _engine_alone(engine, _prompts(project, one))) for count in COUNTS}
    of_one = _median(lambda: _engine_alone(engine, _prompts(project, 1) * 3))
    own = _own_first_tokens(engine, project)
    engine.close()
    with _worker(policy):
        _ask(project, 1)
        worker = {count: _median(lambda one=count: _through_the_worker(project, one)) for count in COUNTS}
        idle = [_first_token(project) for _ in range(TRIES)]
    # While no worker runs, which would answer these chats before their makers do.
    for _ in range(BULK):
        factory.finished_chat(project)
    with _worker(policy):
        busy = list(_first_tokens_under_load(project))
    print(f"\nTokens per second, {TOKENS} tokens each, load {os.getloadavg()[0]:.1f}")
    print(f"{'requests':>20} {'generate':>10} {'engine':>10} {'worker':>10} {'ratio':>8}")
    for count in COUNTS:
        rates = (generate[count], alone[count], worker[count])
        print(f"{count:>20} " + " ".join(f"{rate:>10.0f}" for rate in rates) + f" {rates[2] / rates[0]:>8.2f}")
    print(f"{'three of one context':>20} {'':>10} {of_one:>10.0f}")
    print("\nMilliseconds to the first token, median and longest of", TRIES)
    for name, seconds in (
        ("engine alone", own),
        ("asked to event, idle", idle),
        ("asked to event, bulk running", busy),
    ):
        print(f"{name:>30} {statistics.median(seconds) * 1000:>7.0f} {max(seconds) * 1000:>7.0f}")
    more = statistics.median(idle) - statistics.median(own)
    print(f"{'more than the engine, idle':>30} {more * 1000:>7.0f}   (budget 100)")


def _models() -> None:
    """The demo model in this run's home: the site's own where there is one, else converted anew."""
    models = settings.BOTHSIDES_HOME / "models"
    models.mkdir(parents=True, exist_ok=True)
    site = Path(settings.BASE_DIR) / "var" / "models" / demo_model.NAME
    if (site / "config.json").exists() and not (models / demo_model.NAME).exists():
        (models / demo_model.NAME).symlink_to(site)
    demo_model.bring(models, print)


def _engine() -> Engine:
    return registry.load(
        engine=Policy.Engine.TRANSFORMERS,
        location=demo_model.NAME,
        revision="",
        models=settings.BOTHSIDES_HOME / "models",
        capacity=settings.WORKER_CAPACITY,
        device="auto",
    )


def _prompts(project, count: int) -> list[list[dict]]:
    system = {"role": "system", "content": project.system_message}
    return [[system, {"role": "user", "content": text}] for text in QUESTIONS[:count]]


def _generate(engine, prompts: list[list[dict]]) -> float:
    """Tokens per second of one padded `generate`; what follows the end of a text does not count."""
    import torch

    rendered = [engine.render(messages).token_ids for messages in prompts]
    longest, end = max(map(len, rendered)), engine._tokenizer.eos_token_id
    ids = torch.tensor([[end] * (longest - len(one)) + one for one in rendered])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in rendered])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = engine._model
    began = time.monotonic()
    written = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=TOKENS,
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        pad_token_id=end,
    )[:, longest:]
    took = time.monotonic() - began
    tokens = sum(min(TOKENS, [*row.tolist(), end].index(end) + 1) for row in written)
    return tokens / took


def _median(rate) -> float:
    return statistics.median(rate() for _ in range(RATES))


def _engine_alone(engine: Engine, prompts: list[list[dict]]) -> float:
    """Tokens per second without queue and streams. Each time the prompts begin anew, so that none was read before."""
    fresh = f"{time.monotonic_ns()} "
    system = {"role": "system", "content": fresh + prompts[0][0]["content"]}
    rendered = [engine.render([system, *messages[1:]]) for messages in prompts]
    began, tokens, ended = time.monotonic(), 0, 0
    for number, one in enumerate(rendered):
        engine.submit((fresh, number), one, Sampling(max_new_tokens=TOKENS, temperature=1))
    while ended < len(rendered):
        for chunk in engine.read(1):
            if chunk.finish:
                ended, tokens = ended + 1, tokens + chunk.completion_tokens
    return tokens / (time.monotonic() - began)


def _own_first_tokens(engine: Engine, project) -> list[float]:
    """Seconds from the prompt to the first piece of text, without queue and streams."""
    seconds = []
    for number, messages in enumerate(_prompts(project, TRIES + 1)):
        began = time.monotonic()
        engine.submit(number, engine.render(messages), Sampling(max_new_tokens=1, temperature=1), urgent=True)
        engine.read(60)
        seconds.append(time.monotonic() - began)
    return seconds[1:]


@contextmanager
def _worker(policy) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, *processes.WORKER], cwd=settings.BASE_DIR, stderr=subprocess.DEVNULL)
    try:
        while streams.policy_state(policy.pk)[0] != "ready":
            assert process.poll() is None, "The worker ended."
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _ask(project, count: int) -> list[GenerationRequest]:
    """So many trainers ask, each in a chat of their own; returns when all are answered."""
    requests = [_say(project, text) for text in QUESTIONS[:count]]
    over = GenerationRequest.objects.filter(pk__in=[request.pk for request in requests], ended_at__isnull=False)
    while over.count() < count:
        time.sleep(0.05)
    return list(over)


def _say(project, text: str) -> GenerationRequest:
    slot = factory.held_chat(project, factory.trainer(project))
    return conversations.say(assignment=slot, user=slot.trainer, text=text)


def _through_the_worker(project, count: int) -> float:
    """Tokens per second from the first claim to the last result."""
    requests = _ask(project, count)
    took = max(one.ended_at for one in requests) - min(one.claimed_at for one in requests)
    tokens = sum(one.completion_tokens for request in requests for one in request.completions.all())
    return tokens / took.total_seconds()


def _first_token(project) -> float:
    """Seconds from asking to the first event of text that a page would read."""
    slot = factory.held_chat(project, factory.trainer(project))
    began = time.monotonic()
    request = conversations.say(assignment=slot, user=slot.trainer, text=QUESTIONS[int(began * 1000) % 64])
    for found in streams.read(slot.pk):
        if found and found[1]["request"] == request.pk and found[1]["kind"] == "text":
            return time.monotonic() - began
    raise AssertionError


def _first_tokens_under_load(project) -> Iterator[float]:
    """The same while alternatives take all of their share."""
    bulk = GenerationRequest.objects.filter(purpose="alternatives", state="waiting")
    while bulk.count() == BULK:
        time.sleep(0.1)
    for _ in range(TRIES):
        assert bulk.exists(), "The bulk was over too soon."
        time.sleep(1)
        yield _first_token(project)
