"""Whose models lie in memory, and whose turn it is: the rules alone, without models and threads.

Models that fit are all held. Where one that has work waiting does not fit beside them, others make room: first such as
have nothing to do, those longest unused before the others; then busy ones, which finish what they have begun. A busy
one keeps its place for a while, and for a multiple of what it took to load, so that the time goes into texts.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, IntEnum


class Asked(IntEnum):
    """What is asked of a model: what waits for it, or what it samples."""

    NOTHING = 0
    BULK = 1
    BY_PEOPLE = 2


class Turn(Enum):
    """What a model may do."""

    KEEP = "it is held: go on"
    LAST = "it is held: begin nothing more, and leave when all is finished"
    LOAD = "its room is reserved: load now, and say `loaded` or `left`"
    WAIT = "others are served first, and it comes next"
    REST = "nothing is asked of it, and others have the memory"
    SOON = "not all models have been weighed yet"


PEOPLE_WAIT = 0.25
"""Share of the usual patience that a model has with others while people wait for it."""
LOADS_WORTH = 4
"""A busy model keeps its place for so many times the seconds that it took to load."""
LONGEST_DOUBLING = 6
"""How often patience doubles at most, of a model that could not be loaded again and again."""


@dataclass(eq=False)
class _Model:
    needs: int | None = None  # bytes, with the least share for rows; None before it was weighed
    takes: int = 0  # bytes while it is held, or its room is reserved
    held: bool = False
    ready: bool = False  # it is held and loaded
    last: bool = False  # it makes room
    since: float = -math.inf  # held since; after loading, since it was loaded
    loading: float = 0.0  # seconds that its last loading took
    used: float = -math.inf  # when something was asked of it
    asked: Asked = Asked.NOTHING
    asked_since: float = math.inf  # while it is not held
    due: float = math.inf  # when its patience ends; the first one comes next
    failures: int = 0  # to load, in a row


class Memory:
    """The memory of one worker process, in bytes, and the models that share it. Safe to use from many threads.

    `total` is asked once, when the first model was weighed. A busy model makes room after `patience` seconds in which
    another one waited. `ring` is called with the name of a model that should look at its turn now.
    """

    def __init__(
        self,
        total: Callable[[], int],
        patience: float,
        ring: Callable[[Hashable], None] = lambda name: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._measure, self._patience, self._ring, self._clock = total, patience, ring, clock
        self._total: int | None = None
        self._models: dict[Hashable, _Model] = {}
        self._lock = threading.RLock()

    def join(self, name: Hashable) -> None:
        """A model will be weighed; until it was, nothing is loaded."""
        with self._lock:
            self._models.setdefault(name, _Model())

    def weighed(self, name: Hashable, needs: int | None) -> None:
        """How many bytes it will need; None where that cannot be known, so that it is loaded alone."""
        with self._lock:
            if self._total is None:
                self._total = self._measure()
            self._models.setdefault(name, _Model()).needs = self._total if needs is None else needs
            self._ring_all()

    def leave(self, name: Hashable) -> None:
        """It is served no more by this process."""
        with self._lock:
            self._models.pop(name, None)
            self._ring_all()

    def look(self, name: Hashable, asked: Asked) -> Turn:
        """Say what is asked of a model, and hear what it may do. After LOAD say `loaded` or `left`."""
        with self._lock:
            now, model = self._clock(), self._models[name]
            model.asked = asked
            if asked:
                model.used = now
            if model.held:
                self._plan(now)
                return Turn.LAST if model.last else Turn.KEEP
            self._wish(model, now)
            self._plan(now)
            if any(other.needs is None for other in self._models.values()):
                return Turn.SOON
            if self._may_load(model):
                model.takes, model.held, model.since = self._share(model), True, now
                model.asked_since = model.due = math.inf
                return Turn.LOAD
            return Turn.WAIT if asked else Turn.REST

    def is_last(self, name: Hashable) -> bool:
        """Whether a model that is held makes room."""
        with self._lock:
            return self._models[name].last

    def hurries(self, name: Hashable) -> bool:
        """Whether a model makes room for one that people have waited for through the whole patience."""
        with self._lock:
            coming = self._next()
            waited = self._clock() - coming.asked_since if coming and coming.asked == Asked.BY_PEOPLE else -1.0
            return self._models[name].last and waited >= self._patience

    def allowance(self, name: Hashable) -> int:
        """Bytes that a model may take, rows included, whose turn it is to load."""
        with self._lock:
            return self._models[name].takes

    def loaded(self, name: Hashable, *, needs: int, takes: int) -> None:
        """It is in memory: what it would need at least, now that this is known, and what it takes."""
        with self._lock:
            now, model = self._clock(), self._models[name]
            model.needs, model.takes, model.ready, model.failures = needs, takes, True, 0
            model.loading, model.since = now - model.since, now

    def left(self, name: Hashable, *, failed: bool = False) -> None:
        """It is not in memory any more, or `failed` to be loaded."""
        with self._lock:
            model = self._models[name]
            model.held = model.ready = model.last = False
            model.takes, model.asked = 0, Asked.NOTHING
            model.failures = model.failures + 1 if failed else 0
            self._ring_all()

    # Under the lock ---------------------------------------------------------------------------------

    def _wish(self, model: _Model, now: float) -> None:
        """When its patience ends: earlier once people wait, later where it failed to load before."""
        if not model.asked:
            model.asked_since = model.due = math.inf
            return
        model.asked_since = min(model.asked_since, now)
        model.due = min(model.due, now + self._patience_of(model))

    def _patience_of(self, model: _Model) -> float:
        patience = self._patience * (PEOPLE_WAIT if model.asked == Asked.BY_PEOPLE else 1)
        return patience * 2 ** min(model.failures, LONGEST_DOUBLING)

    def _next(self) -> _Model | None:
        waiting = [model for model in self._models.values() if not model.held and model.asked]
        return min(waiting, key=lambda model: model.due, default=None)

    def _free(self) -> int:
        return self._total - sum(model.takes for model in self._models.values())

    def _may_load(self, model: _Model) -> bool:
        """There is room, and nobody comes before it: else small ones would take the room that a large one waits for."""
        return self._next() in (model, None) and self._least(model) <= self._free()

    def _least(self, model: _Model) -> int:
        # One that is larger than all there is may be tried alone.
        return min(model.needs, self._total)

    def _share(self, model: _Model) -> int:
        """What it needs and, where all models fit beside each other, its part of what is left; never more than that."""
        spare = self._total - sum(other.needs for other in self._models.values())
        return min(self._least(model) + max(0, spare // len(self._models)), self._free())

    def _plan(self, now: float) -> None:
        """Say who makes room for the next one; nobody while that would not be enough."""
        coming = self._next()
        lacking = -1
        if coming is not None and coming.needs is not None:
            lacking = self._least(coming) - self._free()
        leaving = []
        for model in sorted(self._ready(), key=lambda one: (not one.last, one.asked, one.used, one.since)):
            if lacking > 0 and self._gives_way(model, coming, now):
                leaving.append(model)
                lacking -= model.takes
        if lacking > 0:
            leaving = []
        for name, model in self._models.items():
            last = any(model is one for one in leaving)
            if last != model.last:
                model.last = last
                self._ring(name)

    def _ready(self) -> list[_Model]:
        """Those that can make room: one that is put down as soon as it is loaded would have been loaded in vain."""
        return [model for model in self._models.values() if model.ready]

    def _gives_way(self, model: _Model, coming: _Model, now: float) -> bool:
        waited = now - coming.asked_since
        if not model.asked:
            return waited >= self._patience_of(coming) or not coming.failures
        if now - model.since < LOADS_WORTH * model.loading:
            return False
        # Texts that nobody is looking at make room for people as soon as the model has had its time.
        at_once = coming.asked > model.asked and not coming.failures
        held = now - model.since
        return (held if at_once else min(held, waited)) >= self._patience_of(coming)

    def _ring_all(self) -> None:
        for name in self._models:
            self._ring(name)
