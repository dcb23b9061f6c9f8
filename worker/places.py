"""The place of one policy in the memory of its worker process, which the models there share (worker/memory.py)."""

from collections.abc import Callable

from django.conf import settings

from annotate.models import Policy
from worker.engines import registry
from worker.engines.base import Engine, Size
from worker.memory import Asked, Memory, Turn


def memory_of_this_process(ring: Callable[[int], None]) -> Memory:
    """What the models of this process share, by the settings; `ring` wakes the loop of a policy."""
    gigabytes = settings.WORKER_MEMORY_GIGABYTES

    def total() -> int:
        return int(gigabytes * 2**30) if gigabytes else registry.memory_of(settings.WORKER_DEVICE)

    return Memory(total, settings.WORKER_SWAP_SECONDS, ring)


class Place:
    """Of one policy whose model this worker loads. Called by the thread of its loop."""

    def __init__(self, policy: Policy, memory: Memory):
        self._policy, self._memory = policy, memory
        self._size: Size | None = None
        self._weighed = False
        memory.join(policy.pk)

    def turn(self, asked: Asked) -> Turn:
        """Say what is asked of the model, and hear what it may do. Raises LoadError where it cannot be loaded."""
        if not self._weighed:
            self._weigh()
        return self._memory.look(self._policy.pk, asked)

    def makes_room(self) -> bool:
        """Whether nothing more should be begun."""
        return self._memory.is_last(self._policy.pk)

    def hurries(self) -> bool:
        """Whether people have waited so long for another model that bulk should not be finished first."""
        return self._memory.hurries(self._policy.pk)

    def load(self) -> Engine:
        """Load the model, whose turn it is; takes seconds to minutes. Raises LoadError."""
        engine = registry.load(
            engine=self._policy.engine,
            attention=settings.WORKER_ATTENTION,
            thinking=self._policy.thinking,
            memory=self._memory.allowance(self._policy.pk),
            **self._how(),
        )
        rows = min(engine.rows, self._size.rows) if self._size else engine.rows
        self._memory.loaded(self._policy.pk, needs=engine.memory - engine.rows + rows, takes=engine.memory)
        return engine

    def left(self, *, failed: bool = False) -> None:
        """The model is not in memory any more, or `failed` to be loaded; then it is weighed again."""
        self._weighed = self._weighed and not failed
        self._memory.left(self._policy.pk, failed=failed)

    def give_up(self) -> None:
        """The policy is served no more."""
        self._memory.leave(self._policy.pk)

    def _weigh(self) -> None:
        # The others go on without one that cannot be loaded as things stand.
        needs = 0
        try:
            self._size = registry.weigh(**self._how())
            needs, self._weighed = self._size and self._size.weights + self._size.rows, True
        finally:
            self._memory.weighed(self._policy.pk, needs)

    def _how(self) -> dict:
        """What the size depends on."""
        return {
            "location": self._policy.location,
            "revision": self._policy.revision,
            "models": settings.BOTHSIDES_HOME / "models",
            "capacity": settings.WORKER_CAPACITY,
            "device": settings.WORKER_DEVICE,
            "dtype": settings.WORKER_DTYPE,
            "quantisation": self._policy.quantisation,
        }
