"""Scoring: a reward model reads what is to be ranked, a batch at a time, and what it gives is kept."""

from collections.abc import Callable, Sequence
from itertools import groupby

from django.conf import settings

from annotate import comparisons, prompts, scores, uncertain
from annotate.errors import Invalid
from annotate.models import Candidate, Project, TrainingRun
from worker.training import running
from worker.training.scoring import Scorer, Text

LOOKED_UP = 64
"""Candidates that are looked up at once. What is more urgent comes with the next look."""
AT_ONCE = 16
"""Candidates that are scored and kept together: so many are lost at most where the process is killed."""

FAILURES = (Invalid, RuntimeError, IndexError)
"""What a single text may cause: a refusal, too little memory, a token that the model does not have."""


def score(
    *, project: Project, run: TrainingRun, most: int | None = None, told: Callable[[int], None] = lambda done: None
) -> int:
    """Score the candidates that the run has not scored yet, at most so many. How many were read.

    `told` hears how many so far. Raises Invalid where the model is not here or cannot be loaded.
    """
    place = running.place_of(run)
    if not place.is_dir():
        raise Invalid(f"The reward model of run {run.pk} is not on this machine: there is no folder {place}.")
    done, scorer = 0, None
    with running.said_clearly():
        while found := scores.missing(project=project, run=run, limit=_next(done, most)):
            # Not before there is something to read: it takes seconds.
            scorer = scorer or Scorer(
                place, device=None if settings.WORKER_DEVICE == "auto" else settings.WORKER_DEVICE
            )
            for first in range(0, len(found), AT_ONCE):
                batch = found[first : first + AT_ONCE]
                by_head = _by_head(scorer, _texts(batch))
                scores.keep(run=run, by_head=dict(zip([one.pk for one in batch], by_head, strict=True)))
                # Pools may have waited for just these.
                if pools := {one.comparison.pool_id for one in batch} - {None}:
                    uncertain.choose_ready(pools=pools)
                done += len(batch)
                told(done)
    if done:
        # A worker that failed before says so until it is tried again, which it is not where nothing is missing now.
        scores.tell_trouble(run=run, reason="")
    return done


def _next(done: int, most: int | None) -> int:
    """How many candidates are looked up next."""
    return LOOKED_UP if most is None else min(LOOKED_UP, most - done)


def _texts(candidates: Sequence[Candidate]) -> list[Text]:
    """What the model reads of each: the messages before as exports have them, which it has learnt from, and the
    completion. Those of one comparison stand together."""
    texts: list[Text] = []
    for _, alike in groupby(candidates, key=lambda one: one.comparison_id):
        one, *others = alike
        before = prompts.render(comparisons.context(one.comparison))
        texts += [(before, each.completion.text) for each in (one, *others)]
    return texts


def _by_head(scorer: Scorer, texts: Sequence[Text]) -> list[list[float] | None]:
    """What the heads give to each text; None where it is too long, refused by the model's chat template, or makes the
    model fail that reads others."""
    try:
        return scorer.by_head(texts)
    except Invalid:
        refused = True
    except FAILURES:
        refused = False
    # One of them must not keep the others from their rewards. Not before the error is gone, which holds memory.
    found = [_of_one(scorer, text) for text in texts]
    # Where none can be read it may be the machine, and no text.
    return found if refused or any(found) else scorer.by_head(texts)


def _of_one(scorer: Scorer, text: Text) -> list[float] | None:
    try:
        return scorer.by_head([text])[0]
    except FAILURES:
        return None
