"""The transformers engine on the tiny Llama."""

import itertools
import json
import time
from contextlib import contextmanager

import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests import tiny
from worker.engines import loading, registry
from worker.engines.base import LoadError, Sampling
from worker.engines.transformers import Tokens, TransformersEngine

pytestmark = pytest.mark.slow

GREEDY = Sampling(max_new_tokens=24, temperature=0)
_names = itertools.count()


def messages(text):
    return [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]


def load(folder, **more):
    """An engine, in float32, whatever this machine multiplies fastest, so that greedy texts can be compared."""
    return TransformersEngine(str(folder), **({"capacity": 8, "device": "cpu", "dtype": "float32"} | more))


@pytest.fixture(scope="module")
def engine(tiny_models):
    made = load(tiny_models / "tiny")
    yield made
    made.close()


@pytest.fixture(scope="module")
def endless(tiny_models):
    made = load(tiny_models / "endless")
    yield made
    made.close()


def begin(engine, text="the word", sampling=GREEDY, **more):
    key = f"text {next(_names)}"
    engine.submit(key, engine.render(messages(text)), sampling, **more)
    return key


def follow(engine, *keys, seconds=30):
    """The pieces of each text until all have their end."""
    pieces = {key: [] for key in keys}
    until = time.monotonic() + seconds
    while not all(of and of[-1].finish for of in pieces.values()):
        assert engine.alive()
        assert time.monotonic() < until
        for chunk in engine.read(1):
            if chunk.key in pieces:
                pieces[chunk.key].append(chunk)
    return [pieces[key] for key in keys]


def text_of(pieces):
    return "".join(piece.text for piece in pieces)


@pytest.fixture(scope="module")
def plainly(tiny_models):
    """What transformers' own generate writes greedily."""
    models = {}

    def write(engine, name, text, most):
        model = models.get(name) or AutoModelForCausalLM.from_pretrained(tiny_models / name, dtype=engine._model.dtype)
        models[name] = model
        prompt = engine.render(messages(text)).token_ids
        written = model.generate(torch.tensor([prompt]), max_new_tokens=most, do_sample=False)
        return engine._tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)

    return write


def test_the_pieces_are_the_text_that_generate_writes(engine, plainly):
    (pieces,) = follow(engine, begin(engine))
    assert text_of(pieces) == plainly(engine, "tiny", "the word", GREEDY.max_new_tokens).rstrip("\ufffd")
    assert len(pieces) > 1
    assert all(piece.finish is None for piece in pieces[:-1])


def test_texts_of_different_lengths_do_not_disturb_each_other(endless, plainly):
    sampling = Sampling(max_new_tokens=40, temperature=0)
    asked = ["the", "of and to in it you that he was for on are with as", "look", "x" * 300, "two more words"]
    keys = []
    for text in asked:
        keys.append(begin(endless, text, sampling))
        # So that some start while others are being written.
        time.sleep(0.01)
    written = [text_of(pieces) for pieces in follow(endless, *keys)]
    alone = [plainly(endless, "endless", text, 40).rstrip("\ufffd") for text in asked]
    assert written == alone


def _other(folder, config):
    """A model of another kind, of random weights, with the tiny one's tokenizer and template."""
    tiny.build(folder, stops=False)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "vocab_size": 700}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    none = {"eos_token_id": None, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes, **heads, **none, **config)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mistral", "sliding_window": 16},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
        {"model_type": "gpt_neox"},
    ],
    ids=["windows", "some layers with windows", "another kind of positions"],
)
def test_models_of_other_kinds_write_what_generate_writes(tmp_path, config):
    model = _other(tmp_path / "model", config)
    engine = load(tmp_path / "model")
    asked = ["the", "of and to in it you that he was for on are with as " * 3, "look " * 200]
    keys = [begin(engine, text) for text in asked]
    written = [text_of(pieces) for pieces in follow(engine, *keys)]
    for text, ours in zip(asked, written, strict=True):
        ids = engine.render(messages(text)).token_ids
        theirs = model.generate(torch.tensor([ids]), max_new_tokens=GREEDY.max_new_tokens, do_sample=False)
        assert ours == engine._tokenizer.decode(theirs[0, len(ids) :], skip_special_tokens=True).rstrip("\ufffd")
    engine.close()


def test_a_model_that_does_not_say_how_long_its_context_is_is_refused(tmp_path):
    folder = tiny.build(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    config = AutoConfig.for_model("bloom", hidden_size=64, n_layer=2, n_head=4, vocab_size=700)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(LoadError, match="does not say how long"):
        load(folder)


def test_a_model_with_another_kind_of_memory_is_refused(tmp_path):
    folder = tiny.build(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    config = AutoConfig.for_model("mamba", hidden_size=64, num_hidden_layers=2, vocab_size=700)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(LoadError, match="layers that this engine does not serve"):
        load(folder)


def test_a_model_that_computes_something_else_in_a_batch_is_refused(tiny_models, monkeypatch):
    mask = TransformersEngine._mask
    # As one would that finds its positions in a way of its own.
    monkeypatch.setattr(
        TransformersEngine, "_mask", lambda self, positions, reach: mask(self, positions, reach).roll(3)
    )
    with pytest.raises(LoadError, match="computes something else"):
        load(tiny_models / "tiny")


def test_it_ends_with_the_models_turn(engine):
    keys = [begin(engine, sampling=Sampling(max_new_tokens=400)) for _ in range(8)]
    ends = [pieces[-1] for pieces in follow(engine, *keys)]
    assert {end.finish for end in ends} == {"stop"}
    assert all(0 < end.completion_tokens < 400 for end in ends)
    assert not any("<|im_end|>" in end.text for end in ends)


def test_it_stops_at_every_token_that_ends_a_turn(tmp_path):
    folder = tiny.build(tmp_path / "model", stops=False)
    first = load(folder)
    (pieces,) = follow(first, begin(first))
    first.close()
    token = first._tokenizer(pieces[2].text, add_special_tokens=False).input_ids[0]
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [2, token]}))
    second = load(folder)
    (cut,) = follow(second, begin(second))
    second.close()
    assert (cut[-1].finish, text_of(cut)) == ("stop", pieces[0].text + pieces[1].text)


def test_it_is_cut_at_the_longest_length(endless):
    (pieces,) = follow(endless, begin(endless, sampling=Sampling(max_new_tokens=7)))
    assert (pieces[-1].finish, pieces[-1].completion_tokens) == ("length", 7)
    assert pieces[-1].prompt_tokens == len(endless.render(messages("the word")).token_ids)


@contextmanager
def reading(engine):
    """The passes of the engine: of each, how many tokens are read in each row."""
    passes, forward = [], engine._forward
    engine._forward = lambda first, tokens, starts: (
        passes.append(list(map(len, tokens))) or forward(first, tokens, starts)
    )
    yield passes
    engine._forward = forward


def submit_together(engine, count, rendered, sampling):
    """So that the engine finds all of them at once."""
    keys = [f"text {next(_names)}" for _ in range(count)]
    with engine._change:
        for key in keys:
            engine.submit(key, rendered, sampling)
    return keys


@pytest.mark.parametrize("count", [4, 8])
def test_samples_of_one_context_differ_and_share_its_reading(endless, count):
    rendered = endless.render(messages(f"{count}{next(_names)} " + "y" * 500))
    with reading(endless) as passes:
        keys = submit_together(endless, count, rendered, Sampling(max_new_tokens=20))
        texts = {text_of(pieces) for pieces in follow(endless, *keys)}
    assert len(texts) == count
    # The prompt once; its last token for each of the others, in their first step; and the twenty but for the last.
    assert sum(map(sum, passes)) <= len(rendered.token_ids) + (count - 1) + count * 19
    # They are written together from the second token on.
    assert sum(read == [1] * count for read in passes) >= 18


def test_a_prompt_is_not_read_again_while_it_is_read(endless):
    rendered = endless.render(messages(f"{next(_names)} " + "w" * 600))
    with reading(endless) as passes:
        first = submit_together(endless, 1, rendered, Sampling(max_new_tokens=200))
        while not passes:
            time.sleep(0.001)
        others = submit_together(endless, 3, rendered, Sampling(max_new_tokens=5))
        follow(endless, *first, *others)
    assert sum(count for read in passes for count in read if count > 1) <= len(rendered.token_ids)


def test_a_prompt_whose_first_text_has_ended_is_still_there(endless):
    rendered = endless.render(messages(f"{next(_names)} " + "v" * 300))
    follow(endless, *submit_together(endless, 1, rendered, Sampling(max_new_tokens=3)))
    with reading(endless) as passes:
        follow(endless, *submit_together(endless, 3, rendered, Sampling(max_new_tokens=3)))
    assert max(map(sum, passes)) <= 3


def test_short_prompts_are_read_at_once(endless, plainly):
    asked = [f"{letter} " * (3 + place) for place, letter in enumerate("bdfhjl")]
    follow(endless, begin(endless, "k"))
    with reading(endless) as passes:
        with endless._change:
            keys = [begin(endless, text) for text in asked]
        written = [text_of(pieces) for pieces in follow(endless, *keys)]
    # One pass for all that fits a piece, whatever their lengths.
    assert len(passes) <= 2 + GREEDY.max_new_tokens
    assert any(len(read) > 2 and len(set(read)) > 1 for read in passes)
    assert written == [plainly(endless, "endless", text, 24).rstrip("\ufffd") for text in asked]


def test_the_next_turn_reads_only_what_is_new(endless, plainly):
    (pieces,) = follow(endless, begin(endless, "z" * 200))
    longer = [*messages("z" * 200), {"role": "assistant", "content": text_of(pieces)}, *messages("and go")[1:]]
    rendered, earlier = endless.render(longer), endless.render(messages("z" * 200))
    with reading(endless) as passes:
        endless.submit("next turn", rendered, GREEDY)
        (again,) = follow(endless, "next turn")
    assert max(map(sum, passes)) < len(rendered.token_ids) - len(earlier.token_ids)
    fresh = torch.tensor([rendered.token_ids])
    with torch.inference_mode():
        plain = AutoModelForCausalLM.from_pretrained(endless._tokenizer.name_or_path).generate(
            fresh, max_new_tokens=24, do_sample=False
        )
    wanted = endless._tokenizer.decode(plain[0, len(rendered.token_ids) :], skip_special_tokens=True)
    assert text_of(again) == wanted.rstrip("\ufffd")


def test_a_cancelled_text_says_no_more_and_makes_room(endless):
    keys = [begin(endless, sampling=Sampling(max_new_tokens=1500)) for _ in range(8)]
    while not endless.read(1):
        pass
    later = begin(endless, sampling=Sampling(max_new_tokens=5))
    for key in keys:
        endless.cancel(key)
    (pieces,) = follow(endless, later)
    assert pieces[-1].finish == "length"
    assert not any(chunk.key in keys for chunk in endless.read(0.2))


def test_a_text_that_waits_can_be_cancelled(endless):
    running = [begin(endless, sampling=Sampling(max_new_tokens=60)) for _ in range(8)]
    waiting = begin(endless, sampling=Sampling(max_new_tokens=60))
    endless.cancel(waiting)
    follow(endless, *running)
    assert not any(chunk.key == waiting for chunk in endless.read(0.2))


def test_more_texts_than_its_capacity_wait_for_room(engine):
    keys = [begin(engine, sampling=Sampling(max_new_tokens=10)) for _ in range(20)]
    assert all(pieces[-1].finish in ("stop", "length") for pieces in follow(engine, *keys))


def test_an_urgent_text_starts_before_bulk_that_came_earlier(endless):
    bulk = [begin(endless, f"{number} " * 400, Sampling(max_new_tokens=50)) for number in range(7)]
    reply = begin(endless, "the", Sampling(max_new_tokens=3), urgent=True)
    begun = []
    while reply not in begun:
        begun += [chunk.key for chunk in endless.read(1)]
    assert len(set(begun)) <= 3
    follow(endless, *bulk)


@pytest.fixture
def cramped(tiny_models, monkeypatch):
    """An engine with memory for two texts of the shortest length."""
    one_token = 2 * 2 * tiny.KEY_HEADS * (tiny.HIDDEN // tiny.HEADS) * 4
    monkeypatch.setattr("worker.engines.loading.memory_for_rows", lambda device: 2 * 256 * one_token)
    made = load(tiny_models / "endless")
    yield made
    made.close()


def test_what_came_later_and_is_small_does_not_take_the_room_of_a_reply(cramped):
    first = begin(cramped, sampling=Sampling(max_new_tokens=150))
    while not cramped.read(1):
        pass
    reply = begin(cramped, sampling=Sampling(max_new_tokens=1000), urgent=True)
    later = [begin(cramped, sampling=Sampling(max_new_tokens=20)) for _ in range(3)]
    ended = []
    while len(ended) < 5:
        ended += [chunk.key for chunk in cramped.read(1) if chunk.finish]
    assert ended[:2] == [first, reply]
    assert set(ended[2:]) == set(later)


def test_little_memory_makes_texts_wait_and_loses_none(cramped):
    engine = cramped
    keys = [begin(engine, sampling=Sampling(max_new_tokens=most)) for most in (20, 20, 1500, 20, 20)]
    assert [pieces[-1].completion_tokens for pieces in follow(engine, *keys)] == [20, 20, 1500, 20, 20]


def test_what_does_not_fit_is_refused_alone(engine):
    wide = begin(engine, "x" * tiny.CONTEXT_TOKENS)
    good = begin(engine)
    refused, fine = follow(engine, wide, good)
    assert [piece.finish for piece in refused] == ["refused"]
    assert "tokens too long for the model" in refused[-1].error
    assert text_of(fine)


def test_a_text_is_as_long_as_the_context_leaves_room_for(endless):
    prompt = len(endless.render(messages("the word")).token_ids)
    (pieces,) = follow(endless, begin(endless, sampling=Sampling(max_new_tokens=10**6)))
    assert (pieces[-1].finish, pieces[-1].completion_tokens) == ("length", tiny.CONTEXT_TOKENS - prompt)


def test_unknown_tokens_fail_alone(engine):
    engine.submit("strange", Tokens([5, 10**6], ""), GREEDY)
    strange, fine = follow(engine, "strange", begin(engine))
    assert strange[-1].finish == "error"
    assert text_of(fine)


def test_a_text_whose_numbers_break_fails_alone(endless):
    picked = endless._forward
    poisoned = endless.render(messages("poison")).token_ids

    def forward(first, tokens, starts):
        logits = picked(first, tokens, starts)
        for row in range(len(tokens)):
            text = endless._seats.rows[first + row].text
            if text and text.ids[: text.prompt_tokens] == poisoned:
                logits[row] = float("nan")
        return logits

    endless._forward = forward
    bad, good = begin(endless, "poison"), begin(endless, "bread")
    broken, fine = follow(endless, bad, good)
    endless._forward = picked
    assert (broken[-1].finish, broken[-1].error) == ("error", "The model computed no numbers.")
    assert fine[-1].finish == "length"


def test_a_broken_engine_is_not_alive_and_read_returns(tiny_models):
    engine = load(tiny_models / "endless")

    def explode(texts, logits):
        raise RuntimeError("out of order")

    engine._write = explode
    begin(engine)
    engine._thread.join(10)
    began = time.monotonic()
    assert engine.read(5) == []
    assert time.monotonic() - began < 1
    assert not engine.alive()
    engine.close()


def test_closing_does_not_wait_for_the_texts(tiny_models):
    engine = load(tiny_models / "endless")
    begin(engine, sampling=Sampling(max_new_tokens=1900))
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 1


def test_it_names_its_chat_template_by_hash(engine):
    rendered = engine.render(messages("a"))
    assert len(rendered.template_hash) == 64
    assert engine._tokenizer.decode(rendered.token_ids).endswith("a<|im_end|>\n<|im_start|>assistant\n")


def test_a_conversation_that_the_template_refuses_is_a_value_error(tmp_path):
    folder = tiny.build(tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system message here') }}")
    engine = load(folder)
    with pytest.raises(ValueError, match="no system message here"):
        engine.render(messages("a"))
    engine.close()


def broken(folder, how):
    if how == "no template":
        (folder / "chat_template.jinja").unlink()
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "cut weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif how == "lost layer":
        weights = load_file(folder / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    elif how == "no config":
        (folder / "config.json").write_text("{")
    return folder


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("no template", "no chat template"),
        ("no weights", "cannot be loaded"),
        ("cut weights", "cannot be loaded"),
        ("lost layer", r"lacks weights: model.layers.1.mlp.up_proj.weight"),
        ("no config", "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_says_why_in_one_line(tmp_path, how, word):
    folder = broken(tiny.build(tmp_path / "model"), how)
    with pytest.raises(LoadError, match=word) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_no_model_is_said_so(tmp_path):
    with pytest.raises(LoadError, match=rf"there is no config\.json in {tmp_path}\.$"):
        load(tmp_path)


def test_a_long_reason_is_told_as_far_as_one_reads():
    error = ValueError("Couldn't do it from one of:\n  (1) a file,\n\n(2) another.\n" + "more " * 100)
    said = loading.in_one_line(error)
    assert said.startswith("Couldn't do it from one of: (1) a file, (2) another. more")
    assert len(said) <= 300
    assert said.endswith(" …")
    assert loading.in_one_line(ValueError(" \n")) == "ValueError"


def test_a_missing_folder_is_said_so(tmp_path):
    with pytest.raises(LoadError, match="There is no folder"):
        load(tmp_path / "nowhere")


def test_an_unknown_engine_is_said_so(tmp_path):
    with pytest.raises(LoadError, match="known: transformers"):
        registry.load(engine="magic", location="a", revision="", models=tmp_path, capacity=1, device="cpu")


def test_a_relative_location_is_looked_for_among_the_models(tiny_models):
    made = registry.load(
        engine="transformers", location="tiny", revision="", models=tiny_models, capacity=2, device="cpu"
    )
    assert made.context_tokens == tiny.CONTEXT_TOKENS
    made.close()
