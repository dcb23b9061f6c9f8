"""The transformers engine where memory is short, where a text is poisoned, and where the device is lost."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.worker.test_engine import GREEDY, begin, follow, load, messages, text_of
from worker.engines import faults
from worker.engines.base import Sampling
from worker.engines.rows import Rows

pytestmark = pytest.mark.slow

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB."
WORDS = ["the", "of and to in it", "that he was for on " * 5, "x" * 150, "two more words", "look"]


@pytest.fixture
def engine(tiny_models):
    made = load(tiny_models / "endless")
    yield made
    made.close()


@pytest.fixture(scope="module")
def plainly(tiny_models):
    """What generate writes greedily, 24 tokens."""
    model = AutoModelForCausalLM.from_pretrained(tiny_models / "endless", dtype=torch.float32)

    def write(engine, text):
        prompt = engine.render(messages(text)).token_ids
        written = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        return engine._tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True).rstrip("\ufffd")

    return write


def breaks_in(engine, wrong):
    """Has passes raise what `wrong` returns, given the texts of the pass and how many tokens are read of each."""
    forward = engine._forward

    def pass_(first, tokens, starts):
        rows = engine._seats.rows[first : first + len(tokens)]
        error = wrong([row.text for row in rows], list(map(len, tokens)))
        if error:
            raise error
        return forward(first, tokens, starts)

    engine._forward = pass_


def memory_for(engine, most):
    """Steps of more than so many texts find no memory."""
    breaks_in(engine, lambda texts, counts: torch.OutOfMemoryError(CUDA) if len(texts) > most else None)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError(CUDA), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 0 bytes)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] … DefaultCPUAllocator: can't allocate memory: you …"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("out of memory, says the template"), False),
    ],
)
def test_what_too_little_memory_looks_like(error, short):
    assert faults.out_of_memory(error) is short
    assert not faults.device_lost(error)


def test_a_cpu_says_that_it_has_no_memory_as_expected():
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(1 << 50)
    assert faults.out_of_memory(refusal.value)


@pytest.mark.parametrize("of", ["step", "reading"])
def test_too_little_memory_lowers_the_batch_and_loses_nothing(engine, plainly, of, caplog):
    memory_for(engine, 2) if of == "step" else breaks_in(
        engine, lambda texts, counts: torch.OutOfMemoryError(CUDA) if sum(counts) > 3 and len(texts) > 1 else None
    )
    engine._piece = 1000
    with engine._change:
        keys = [begin(engine, text) for text in WORDS]
    written = follow(engine, *keys)
    assert [text_of(pieces) for pieces in written] == [plainly(engine, text) for text in WORDS]
    assert [pieces[-1].completion_tokens for pieces in written] == [24] * len(WORDS)
    lowered = [record for record in caplog.records if "ran out of memory" in record.message]
    assert engine.capacity == 8 // 2 ** len(lowered)
    assert lowered


def test_texts_go_on_where_memory_ran_out_in_the_middle(engine, plainly):
    passes = []

    def now_and_then(texts, counts):
        passes.append(len(texts))
        return RuntimeError("MPS backend out of memory") if len(passes) in (9, 30) and len(texts) > 1 else None

    breaks_in(engine, now_and_then)
    with engine._change:
        keys = [begin(engine, text) for text in WORDS]
    written = follow(engine, *keys)
    assert [text_of(pieces) for pieces in written] == [plainly(engine, text) for text in WORDS]
    assert engine.capacity < 8


def test_urgent_texts_and_older_ones_keep_their_place(engine):
    memory_for(engine, 2)
    sampling = Sampling(max_new_tokens=30, temperature=0)
    with engine._change:
        bulk = [begin(engine, text, sampling) for text in ("the", "of")]
        reply = begin(engine, "and", sampling, urgent=True)
        later = begin(engine, "to", sampling)
    ended = []
    while len(ended) < 4:
        ended += [chunk.key for chunk in engine.read(1) if chunk.finish]
    assert set(ended[:2]) == {reply, bulk[0]}
    assert set(ended[2:]) == {bulk[1], later}


@pytest.mark.parametrize("layer", [0, 1])
def test_too_little_memory_for_more_rows_makes_texts_wait(engine, plainly, monkeypatch, layer):
    grow = type(engine._cache.layers[layer]).resize

    def resize(self, count, length):
        if self is engine._cache.layers[layer] and count > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        grow(self, count, length)

    monkeypatch.setattr(type(engine._cache.layers[layer]), "resize", resize)
    with engine._change:
        keys = [begin(engine, text) for text in WORDS]
    assert [text_of(pieces) for pieces in follow(engine, *keys)] == [plainly(engine, text) for text in WORDS]
    # Two rows were there when four could not be had.
    assert (engine.capacity, engine._cache.count) == (4, 2)


@pytest.mark.parametrize("where", ["reading", "a step", "its row"])
def test_a_text_that_fits_nowhere_fails_alone(engine, monkeypatch, where):
    huge = len(engine.render(messages("x" * 400)).token_ids)

    def wrong(texts, counts):
        large = any(text.prompt_tokens == huge for text in texts)
        return torch.OutOfMemoryError(CUDA) if large and (where == "reading") == (max(counts) > 1) else None

    if where == "its row":
        fit = Rows.fit

        def no_room(self, rows, length):
            if length > huge:
                raise torch.OutOfMemoryError(CUDA)
            return fit(self, rows, length)

        monkeypatch.setattr(Rows, "fit", no_room)
    else:
        breaks_in(engine, wrong)
    with engine._change:
        large = begin(engine, "x" * 400, Sampling(max_new_tokens=20))
        small = [begin(engine, text, GREEDY) for text in ("the", "of")]
    failed, *fine = follow(engine, large, *small)
    assert (failed[-1].finish, failed[-1].again) == ("error", False)
    assert "does not suffice for this text" in failed[-1].error
    assert [pieces[-1].completion_tokens for pieces in fine] == [24, 24]
    # One text too large says nothing about how many others fit.
    assert engine.alive()


@pytest.mark.parametrize("of", ["reading", "a step"])
def test_a_poisoned_text_fails_alone_and_no_other_loses_a_token(engine, plainly, of):
    poisoned = engine.render(messages("poison")).token_ids

    def wrong(texts, counts):
        bad = any(text.ids[: text.prompt_tokens] == poisoned for text in texts)
        return IndexError("index out of range in self") if bad and (of == "reading") == (max(counts) > 1) else None

    breaks_in(engine, wrong)
    with engine._change:
        keys = [begin(engine, text) for text in [*WORDS[:3], "poison", *WORDS[3:]]]
    written = follow(engine, *keys)
    broken = written.pop(3)
    assert (broken[-1].finish, broken[-1].again) == ("error", False)
    assert broken[-1].error == "The model failed at this text: index out of range in self"
    assert [text_of(pieces) for pieces in written] == [plainly(engine, text) for text in WORDS]
    assert engine.capacity == 8


def test_a_poisoned_text_alone_fails_and_the_engine_goes_on(engine):
    breaks_in(engine, lambda texts, counts: None if len(texts[0].ids) > 40 else ValueError("a bad shape"))
    failed, fine = (follow(engine, begin(engine, text, GREEDY))[0] for text in ("the", "x" * 200))
    assert (failed[-1].finish, failed[-1].again) == ("error", False)
    assert fine[-1].completion_tokens == 24


def test_a_model_that_computes_nothing_any_more_ends_the_engine(engine):
    class Broken(type(engine._model)):
        def forward(self, *args, **kwargs):
            raise RuntimeError("out of order")

    engine._model.__class__ = Broken
    begin(engine)
    engine._thread.join(10)
    assert not engine.alive()
    # Another one can be made in this process.
    assert not engine.device_lost


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_a_lost_device_ends_the_engine_and_is_told(engine, error):
    breaks_in(engine, lambda texts, counts: error)
    with engine._change:
        for text in ("the", "of"):
            begin(engine, text)
    engine._thread.join(10)
    assert not engine.alive()
    assert engine.device_lost


def test_what_is_told_to_fit_is_not_more_than_before(tmp_path):
    made = load(tiny.build(tmp_path / "model", stops=False), capacity=1)
    breaks_in(made, lambda texts, counts: torch.OutOfMemoryError(CUDA) if len(texts) > 1 else None)
    (pieces,) = follow(made, begin(made, sampling=Sampling(max_new_tokens=3)))
    assert (pieces[-1].finish, made.capacity) == ("length", 1)
    made.close()
