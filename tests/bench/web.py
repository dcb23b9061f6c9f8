"""What the way through the site costs: from a click to the first text on the page, and tokens a second there.

A message is posted to the web server and its reply read from the address that the page watches, beside the engine's own
first token and rate in the same run, on the demo model. In the browser itself `pages` measures.
"""

import os
import statistics
import time

from django.db import connections
from django.test import Client

from annotate.models import Completion, Policy
from tests import crowd, factory, site
from tests.bench import sampling
from tests.bench.sampling import QUESTIONS, TOKENS, TRIES
from worker import demo_model
from worker.engines.base import Engine, Sampling

COUNTS = (1, 8, 50)


def main() -> None:
    """Print two small tables; about two minutes on two cores."""
    sampling._models()
    policy = factory.policy(name="web", location=demo_model.NAME)
    Policy.objects.exclude(pk=policy.pk).update(active=False)
    project = factory.project(served_by=policy, max_new_tokens=TOKENS, temperature=1.0, top_p=1.0, top_k=0)
    engine = sampling._engine()
    own = sampling._own_first_tokens(engine, project)
    rates = {count: _rate(engine, project, count) for count in COUNTS}
    engine.close()
    with site.web_server() as port, sampling._worker(policy):
        _watched(port, project, 2)
        ours = [_watched(port, project, 1)[0] for _ in range(TRIES)]
        seen = {count: _watched(port, project, count) for count in COUNTS}
    print(f"\nMilliseconds to the first text of a reply, median and longest of {TRIES}, load {os.getloadavg()[0]:.1f}")
    firsts = [one.first_text for one in ours]
    for name, seconds in (("engine alone", own), ("click to event", firsts)):
        print(f"{name:>30} {statistics.median(seconds) * 1000:>7.0f} {max(seconds) * 1000:>7.0f}")
    more = statistics.median(firsts) - statistics.median(own)
    print(f"{'more than the engine':>30} {more * 1000:>7.0f}   (budget 100)")
    print(f"\nTokens per second, {TOKENS} tokens each")
    print(f"{'replies':>10} {'engine':>10} {'on pages':>10} {'ratio':>8}")
    for count in COUNTS:
        page = _rate_seen(seen[count])
        print(f"{count:>10} {rates[count]:>10.0f} {page:>10.0f} {page / rates[count]:>8.2f}")


def _rate(engine: Engine, project, count: int) -> float:
    """Tokens per second of the engine alone, all asked for at once, from then to the last one's end."""
    begun = time.monotonic()
    for number, messages in enumerate(sampling._prompts(project, count)):
        engine.submit((count, number), engine.render(messages), Sampling(max_new_tokens=TOKENS), urgent=True)
    ended, tokens = 0, 0
    while ended < count:
        for chunk in engine.read(1):
            if chunk.finish:
                ended += 1
                tokens += chunk.completion_tokens
    return tokens / (time.monotonic() - begun)


def _watched(port: int, project, count: int) -> list[crowd.Watcher]:
    """So many trainers send a message each, at once, and watch to the end."""
    watchers = []
    for _ in range(count):
        slot = factory.held_chat(project, factory.trainer(project))
        client = Client()
        client.force_login(slot.trainer, backend="sesame.backends.ModelBackend")
        watchers.append(crowd.Watcher(port, slot.pk, client.cookies["sessionid"].value))
    connections.close_all()
    crowd.watch_all(watchers, messages=QUESTIONS, apart=0)
    return watchers


def _rate_seen(watchers: list[crowd.Watcher]) -> float:
    """Tokens per second from the first click to the last end that a page saw."""
    begun = min(one.sent_at for one in watchers)
    ended = max(one.sent_at + one.took for one in watchers)
    stored = Completion.objects.filter(request__assignment__in=[one.slot for one in watchers])
    return sum(stored.values_list("completion_tokens", flat=True)) / (ended - begun)
