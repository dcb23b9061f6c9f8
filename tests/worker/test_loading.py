"""Loading a model on the device, in the precision and with the attention that the settings name."""

import time
from concurrent.futures import ThreadPoolExecutor

import huggingface_hub
import pytest
import torch
import transformers

from tests import tiny
from tests.worker.test_engine import begin, follow, load, text_of
from worker.engines import loading, registry, sizes
from worker.engines.base import LoadError, Sampling


@pytest.mark.parametrize(("dtype", "attention"), [("float32", "eager"), ("bfloat16", "sdpa"), ("float16", "eager")])
def test_precision_and_attention_are_as_set(tiny_models, dtype, attention):
    engine = load(tiny_models / "endless", dtype=dtype, attention=attention)
    (pieces,) = follow(engine, begin(engine, sampling=Sampling(max_new_tokens=5)))
    assert (pieces[-1].finish, engine._model.dtype) == ("length", getattr(torch, dtype))
    assert engine._model.config._attn_implementation == attention
    engine.close()


def test_eager_attention_writes_what_sdpa_writes(tiny_models):
    written = []
    for attention in ("sdpa", "eager"):
        engine = load(tiny_models / "endless", dtype="float32", attention=attention)
        keys = [begin(engine, text) for text in ("the word", "look " * 100)]
        written.append([text_of(pieces) for pieces in follow(engine, *keys)])
        engine.close()
    assert written[0] == written[1]


def test_models_are_made_one_at_a_time_and_leave_the_precision_of_others_alone(tiny_models, monkeypatch):
    make, default = transformers.LlamaForCausalLM.__init__, torch.get_default_dtype()

    def slowly(model, *arguments, **more):
        make(model, *arguments, **more)
        time.sleep(0.2)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "__init__", slowly)
    with ThreadPoolExecutor(3) as threads:
        loads = []
        for _ in range(3):
            loads.append(threads.submit(loading.load, str(tiny_models / "endless"), device="cpu", dtype="bfloat16"))
            time.sleep(0.05)
        assert {one.result()[0].dtype for one in loads} == {torch.bfloat16}
    assert torch.get_default_dtype() == default


def test_by_itself_it_attends_by_sdpa(tiny_models):
    model, _ = loading.load(str(tiny_models / "tiny"), device="cpu")
    assert model.config._attn_implementation == "sdpa"


def test_attention_that_takes_no_mask_of_ours_is_refused(tiny_models):
    with pytest.raises(LoadError, match="attends by flex_attention: set WORKER_ATTENTION"):
        loading.load(str(tiny_models / "tiny"), device="cpu", attention="flex_attention")


@pytest.mark.parametrize("quantisation", ["int8", "int4"])
def test_a_quantised_model_is_smaller_and_writes(tiny_models, quantisation):
    plain, _ = loading.load(str(tiny_models / "endless"), device="cpu", dtype="float32")
    engine = registry.load(
        engine="transformers",
        location="endless",
        revision="",
        models=tiny_models,
        capacity=4,
        device="cpu",
        quantisation=quantisation,
    )
    assert _layers_bytes(engine._model) < _layers_bytes(plain) / (2 if quantisation == "int8" else 4)
    keys = [begin(engine, sampling=Sampling(max_new_tokens=9)) for _ in range(3)]
    assert all(pieces[-1].completion_tokens == 9 and text_of(pieces) for pieces in follow(engine, *keys))
    engine.close()


def _layers_bytes(model):
    return sum(one.numel() * one.element_size() for one in model.model.layers.parameters())


def test_without_its_library_a_quantised_model_says_what_to_install(tiny_models, monkeypatch):
    monkeypatch.setattr("transformers.utils.is_bitsandbytes_available", lambda: False)
    with pytest.raises(LoadError, match=r"4 bits a weight, which needs the package bitsandbytes: .* `quantised`"):
        loading.load(str(tiny_models / "tiny"), device="cpu", quantisation="int4")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_said_so(tiny_models, device):
    with pytest.raises(LoadError, match=f"WORKER_DEVICE is {device}, and torch finds no such device on this machine"):
        load(tiny_models / "tiny", device=device)


def test_an_unknown_device_is_said_so(tmp_path):
    with pytest.raises(LoadError, match="no device that torch knows"):
        load(tiny.build(tmp_path / "model"), device="abacus")


def test_what_is_neither_here_nor_to_be_had_is_told_before_others_are_put_down_for_it(monkeypatch):
    def silent(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    how = {"revision": "", "capacity": 4, "device": "cpu", "dtype": "auto", "quantisation": ""}
    for read in (lambda: sizes.size_of("nobody/gone", **how), lambda: loading.load("nobody/gone", device="cpu")):
        with pytest.raises(LoadError, match=r"^nobody/gone cannot be loaded: it is no folder, the hub does not answer"):
            read()


def test_a_folder_without_a_configuration_is_not_weighed(tmp_path):
    how = {"revision": "", "capacity": 4, "device": "cpu", "dtype": "auto", "quantisation": ""}
    with pytest.raises(LoadError, match=r"there is no config\.json"):
        sizes.size_of(str(tmp_path), **how)
