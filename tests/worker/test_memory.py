"""Whose turn it is in memory: single rules, and simulated hours of arrivals."""

import random
from collections import deque

import pytest

from worker.memory import LOADS_WORTH, PEOPLE_WAIT, Asked, Memory, Turn

PATIENCE = 60
PEOPLE = PATIENCE * PEOPLE_WAIT


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rung():
    return []


@pytest.fixture
def memory(clock, rung):
    """Of 10 bytes, with models of 6: a, b and c."""
    return made(clock, rung, a=6, b=6, c=6)


def made(clock, rung, total=10, **needs):
    memory = Memory(lambda: total, PATIENCE, rung.append, clock)
    for name in needs:
        memory.join(name)
    for name, size in needs.items():
        memory.weighed(name, size)
    rung.clear()
    return memory


def load(memory, clock, name, asked=Asked.NOTHING, seconds=0, size=6):
    assert memory.look(name, asked) == Turn.LOAD
    clock.now += seconds
    memory.loaded(name, needs=size, takes=size)
    assert memory.look(name, asked) == Turn.KEEP


def test_models_that_fit_are_all_held_without_being_asked(clock, rung):
    memory = made(clock, rung, a=4, b=5)
    load(memory, clock, "a", size=4)
    load(memory, clock, "b", size=5)
    assert memory.look("a", Asked.NOTHING) == memory.look("b", Asked.BY_PEOPLE) == Turn.KEEP


def test_nothing_is_loaded_before_all_are_weighed(clock, rung):
    memory = Memory(lambda: 10, PATIENCE, rung.append, clock)
    memory.join("a")
    memory.join("b")
    memory.weighed("a", 6)
    assert memory.look("a", Asked.BY_PEOPLE) == Turn.SOON
    memory.weighed("b", 6)
    assert rung[-2:] == ["a", "b"]
    assert memory.look("a", Asked.NOTHING) == Turn.LOAD


def test_one_that_cannot_be_weighed_is_loaded_alone(clock, rung):
    memory = made(clock, rung, a=1, b=None)
    load(memory, clock, "a", size=1)
    assert memory.look("b", Asked.BULK) == Turn.WAIT
    assert memory.look("a", Asked.NOTHING) == Turn.LAST
    memory.left("a")
    assert memory.look("b", Asked.BULK) == Turn.LOAD
    memory.loaded("b", needs=2, takes=2)
    assert memory.look("a", Asked.NOTHING) == Turn.LOAD


def test_one_that_is_larger_than_all_memory_is_tried_alone(clock, rung):
    memory = made(clock, rung, a=6, b=50)
    load(memory, clock, "a")
    assert memory.look("b", Asked.BULK) == Turn.WAIT
    memory.left("a")
    assert memory.look("b", Asked.BULK) == Turn.LOAD
    assert memory.allowance("b") == 10


def test_one_that_has_nothing_to_do_makes_room_at_once(memory, clock, rung):
    load(memory, clock, "a", seconds=20)
    assert memory.look("b", Asked.NOTHING) == Turn.REST
    assert memory.look("b", Asked.BULK) == Turn.WAIT
    assert rung == ["a"]
    assert memory.is_last("a")
    assert memory.look("a", Asked.NOTHING) == Turn.LAST
    memory.left("a")
    assert "b" in rung
    assert memory.look("a", Asked.NOTHING) == Turn.REST
    assert memory.look("b", Asked.BULK) == Turn.LOAD


def test_the_longest_unused_makes_room(clock, rung):
    memory = made(clock, rung, a=5, b=5, c=5)
    load(memory, clock, "a", Asked.BULK, size=5)
    load(memory, clock, "b", Asked.BULK, seconds=1, size=5)
    clock.now += 1
    for name in ("b", "a"):
        memory.look(name, Asked.NOTHING)
    memory.look("c", Asked.BULK)
    assert (memory.is_last("a"), memory.is_last("b")) == (True, False)


def test_nobody_makes_room_in_vain(clock, rung):
    memory = made(clock, rung, a=5, b=5, c=10)
    load(memory, clock, "a", size=5)
    load(memory, clock, "b", Asked.BULK, size=5)
    assert memory.look("c", Asked.BULK) == Turn.WAIT
    assert memory.look("a", Asked.NOTHING) == Turn.KEEP
    clock.now += PATIENCE
    memory.look("c", Asked.BULK)
    assert memory.look("a", Asked.NOTHING) == memory.look("b", Asked.BULK) == Turn.LAST


@pytest.mark.parametrize(
    ("busy", "coming", "after"),
    [
        (Asked.BULK, Asked.BULK, PATIENCE),
        (Asked.BY_PEOPLE, Asked.BULK, PATIENCE),
        (Asked.BY_PEOPLE, Asked.BY_PEOPLE, PEOPLE),
    ],
)
def test_a_busy_one_makes_room_after_others_have_waited(memory, clock, busy, coming, after):
    load(memory, clock, "a", busy)
    clock.now += 1000
    assert memory.look("b", coming) == Turn.WAIT
    clock.now += after - 1
    memory.look("b", coming)
    assert memory.look("a", busy) == Turn.KEEP
    clock.now += 1
    assert memory.look("a", busy) == Turn.LAST


def test_bulk_makes_room_for_people_once_it_has_had_its_time(memory, clock):
    load(memory, clock, "a", Asked.BULK)
    clock.now += PEOPLE - 1
    memory.look("b", Asked.BY_PEOPLE)
    assert memory.look("a", Asked.BULK) == Turn.KEEP
    clock.now += 1
    assert memory.look("a", Asked.BULK) == Turn.LAST


def test_one_hurries_once_people_have_waited_for_long(memory, clock):
    load(memory, clock, "a", Asked.BULK)
    clock.now += PATIENCE
    memory.look("b", Asked.BY_PEOPLE)
    assert memory.look("a", Asked.BULK) == Turn.LAST
    assert not memory.hurries("a")
    clock.now += PATIENCE
    assert memory.hurries("a")
    # It is bulk for which nobody hurries.
    memory.look("b", Asked.NOTHING)
    memory.look("b", Asked.BULK)
    clock.now += 10 * PATIENCE
    assert memory.look("a", Asked.BULK) == Turn.LAST
    assert not memory.hurries("a")


def test_one_that_loads_slowly_keeps_its_place_for_longer(memory, clock):
    load(memory, clock, "a", Asked.BULK, seconds=30)
    memory.look("b", Asked.BY_PEOPLE)
    clock.now += LOADS_WORTH * 30 - 1
    assert memory.look("a", Asked.BULK) == Turn.KEEP
    clock.now += 1
    assert memory.look("a", Asked.BULK) == Turn.LAST


def test_one_that_is_being_loaded_makes_no_room_before_it_has_had_its_time(memory, clock):
    assert memory.look("a", Asked.BULK) == Turn.LOAD
    memory.look("b", Asked.BY_PEOPLE)
    clock.now += 1000
    memory.look("b", Asked.BY_PEOPLE)
    assert not memory.is_last("a")
    memory.loaded("a", needs=6, takes=6)
    assert memory.look("a", Asked.BULK) == Turn.KEEP


def test_it_keeps_its_place_where_those_who_waited_have_gone(memory, clock):
    load(memory, clock, "a", Asked.BULK)
    memory.look("b", Asked.BULK)
    clock.now += PATIENCE
    assert memory.look("a", Asked.BULK) == Turn.LAST
    memory.look("b", Asked.NOTHING)
    assert memory.look("a", Asked.BULK) == Turn.KEEP


def test_people_come_before_bulk_but_not_for_ever(memory, clock):
    load(memory, clock, "a", Asked.BY_PEOPLE)
    memory.look("b", Asked.BULK)
    clock.now += 1
    memory.look("c", Asked.BY_PEOPLE)
    memory.left("a")
    assert memory.look("b", Asked.BULK) == Turn.WAIT
    assert memory.look("c", Asked.BY_PEOPLE) == Turn.LOAD
    memory.loaded("c", needs=6, takes=6)
    clock.now += PATIENCE
    memory.look("a", Asked.BY_PEOPLE)
    memory.left("c")
    assert memory.look("a", Asked.BY_PEOPLE) == Turn.WAIT
    assert memory.look("b", Asked.BULK) == Turn.LOAD


def test_small_ones_do_not_take_the_room_that_a_large_one_waits_for(clock, rung):
    memory = made(clock, rung, large=10, one=5, two=5)
    load(memory, clock, "one", Asked.BULK, size=5)
    memory.look("large", Asked.BULK)
    assert memory.look("two", Asked.BULK) == Turn.WAIT
    assert memory.look("two", Asked.NOTHING) == Turn.REST


def test_one_that_cannot_be_loaded_puts_the_others_down_ever_more_rarely(memory, clock):
    load(memory, clock, "a", Asked.BULK)
    waited = []
    for _ in range(4):
        began = clock.now
        while memory.look("b", Asked.BULK) != Turn.LOAD:
            clock.now += 1
            if memory.look("a", Asked.NOTHING) == Turn.LAST:
                memory.left("a")
        waited.append(clock.now - began)
        memory.left("b", failed=True)
        assert memory.look("a", Asked.NOTHING) == Turn.LOAD
        memory.loaded("a", needs=6, takes=6)
    assert waited == [1, 2 * PATIENCE, 4 * PATIENCE, 8 * PATIENCE]


def test_what_is_left_is_shared_where_all_fit(clock, rung):
    memory = made(clock, rung, total=20, a=6, b=6)
    assert memory.look("a", Asked.NOTHING) == memory.look("b", Asked.NOTHING) == Turn.LOAD
    assert memory.allowance("a") == memory.allowance("b") == 10
    memory.leave("b")
    memory.left("a")
    assert memory.look("a", Asked.NOTHING) == Turn.LOAD
    assert memory.allowance("a") == 20


class Simulated:
    """A model in a worker: what waits for it, and what it does each half second."""

    def __init__(self, memory, clock, name, *, size, loads, lasts, rate, people):
        self.memory, self.clock, self.name = memory, clock, name
        self.size, self.loads, self.lasts, self.rate, self.people = size, loads, lasts, rate, people
        self.queue = deque()
        self.running: list[float] = []
        self.held, self.ready_at, self.loadings = False, 0.0, 0
        self.waited: list[float] = []

    def step(self, draw):
        now = self.clock.now
        if draw.random() < self.rate:
            self.queue.append(now)
        if self.ready_at > now:
            return
        if self.held is None:
            self.memory.loaded(self.name, needs=self.size, takes=self.size)
            self.held = True
        asked = (Asked.BY_PEOPLE if self.people else Asked.BULK) if self.queue or self.running else Asked.NOTHING
        if not self.held:
            if self.memory.look(self.name, asked) == Turn.LOAD:
                self.held, self.ready_at, self.loadings = None, now + self.loads, self.loadings + 1
            return
        self.running = [end for end in self.running if end > now]
        while self.queue and len(self.running) < 4 and not self.memory.is_last(self.name):
            self.waited.append(now - self.queue.popleft())
            self.running.append(now + draw.uniform(1, self.lasts))
        asked = asked if self.running else Asked.NOTHING
        if self.memory.look(self.name, asked) == Turn.LAST and not self.running:
            self.memory.left(self.name)
            self.held = False


HOURS = 2
LASTS, LOADS = 10, 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_nobody_starves_and_most_of_the_time_goes_into_texts(clock, rung, seed):
    draw = random.Random(seed)
    total = draw.randint(10, 24)
    memory = Memory(lambda: total, PATIENCE, rung.append, clock)
    models = [
        Simulated(
            memory,
            clock,
            number,
            size=draw.randint(3, 10),
            loads=draw.uniform(1, LOADS),
            lasts=LASTS,
            # Of four texts at once of five seconds each: from next to nothing to all day long.
            rate=draw.choice([0.001, 0.02, 0.2, 0.35]),
            people=draw.random() < 0.5,
        )
        for number in range(draw.randint(2, 5))
    ]
    for model in models:
        memory.join(model.name)
    for model in models:
        memory.weighed(model.name, model.size)
    for _ in range(HOURS * 7200):
        clock.now += 0.5
        for model in models:
            model.step(draw)
        assert sum(model.size for model in models if model.held is not False) <= total
    # The longest turn that each of the others may take before it, with what it has in flight and its loading.
    turn = max(PATIENCE, LOADS_WORTH * LOADS) + LASTS + LOADS + 2
    for model in models:
        # One that has more to do than it gets time for makes its own queue; the others have a bound.
        if model.rate <= 0.02:
            assert max(model.waited, default=0) <= (len(models) + 1) * turn
        assert len(model.queue) < 30 or model.rate > 0.02
        assert model.waited
    asked = sum(len(model.waited) for model in models)
    loadings = sum(model.loadings for model in models)
    # Each turn of a busy one lasts for a quarter of the patience at least; others were brought in for a text.
    assert loadings <= min(asked, 2 * HOURS * 3600 / PEOPLE) + len(models)


def test_two_busy_ones_take_turns(clock, rung):
    memory = made(clock, rung, a=6, b=6)
    draw = random.Random(0)
    models = [Simulated(memory, clock, name, size=6, loads=8, lasts=LASTS, rate=1, people=False) for name in ("a", "b")]
    for _ in range(HOURS * 7200):
        clock.now += 0.5
        for model in models:
            model.step(draw)
    one, other = (len(model.waited) for model in models)
    assert 0.9 < one / other < 1.1
    # A turn is its patience, what is in flight, and a loading: at least four fifths of the time goes into texts.
    loading = sum(model.loadings * model.loads for model in models)
    assert loading < 0.2 * HOURS * 3600
