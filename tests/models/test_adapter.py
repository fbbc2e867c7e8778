"""An adapter's folder stands for the model it was trained on, with the adapter in it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TinyModel, TinyTokenizer

from lalign.errors import ModelError
from lalign.models.loading import ModelOptions, load

IDS = torch.tensor([[5, 6, 7, 8]])
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture
def base(tmp_path: Path, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> Path:
    path = tmp_path / "base"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer("chatml").save_pretrained(path)
    return path


def trained(base: Path, folder: Path, config: Any) -> Any:
    """A model with an adapter of random weights, which is saved in a folder."""
    import peft
    from transformers import AutoModelForCausalLM

    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora" in name or "prompt" in name:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as raised:
        load(ModelOptions(name=str(folder)))
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{folder}: ")
    return message


@needs_peft
def test_an_adapter_is_merged_into_its_model(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    folder = tmp_path / "adapter"
    adapted = trained(base, folder, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    loaded = load(ModelOptions(name=str(folder)))
    assert (loaded.name, loaded.location, loaded.adapter) == (str(folder), str(base), str(folder))
    with torch.inference_mode():
        logits, plain = loaded.model(IDS).logits, load(ModelOptions(name=str(base))).model(IDS).logits
        torch.testing.assert_close(logits, adapted(IDS).logits, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(logits, plain, atol=1e-2)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"


@needs_peft
def test_the_fingerprint_is_of_the_model_and_of_the_adapter(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    folder = tmp_path / "adapter"
    trained(base, folder, LoraConfig(r=4, target_modules=["q_proj"]))
    seen = {load(ModelOptions(name=str(base))).fingerprint(), load(ModelOptions(name=str(folder))).fingerprint()}
    trained(base, folder, LoraConfig(r=2, target_modules=["q_proj"]))
    seen.add(load(ModelOptions(name=str(folder))).fingerprint())
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    seen.add(load(ModelOptions(name=str(folder))).fingerprint())
    assert len(seen) == 4


@needs_peft
def test_a_tokenizer_that_comes_with_the_adapter_is_taken(
    base: Path, tmp_path: Path, tiny_tokenizer: TinyTokenizer
) -> None:
    from peft import LoraConfig

    folder = tmp_path / "adapter"
    trained(base, folder, LoraConfig(r=4, target_modules=["q_proj"]))
    tiny_tokenizer("{{ messages }}").save_pretrained(folder)
    assert load(ModelOptions(name=str(folder))).tokenizer.chat_template == "{{ messages }}"


@needs_peft
def test_an_adapter_that_cannot_be_merged_or_does_not_fit_is_refused(
    base: Path, tmp_path: Path, tiny_model: TinyModel
) -> None:
    from peft import LoraConfig, PromptTuningConfig

    folder = tmp_path / "prompt"
    trained(base, folder, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    assert "an adapter of the kind PROMPT_TUNING cannot be merged" in refusal(folder)
    folder = tmp_path / "lora"
    trained(base, folder, LoraConfig(r=4, target_modules=["q_proj"]))
    tiny_model("llama", hidden_size=64).save_pretrained(base)
    assert "does not fit its model" in refusal(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"junk")
    assert "does not fit its model" in refusal(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "--allow-pickle" in refusal(folder)


def adapter_folder(folder: Path, config: str) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(config)
    return folder


def test_without_peft_an_adapter_says_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter_folder(tmp_path / "adapter", '{"base_model_name_or_path": "acme/base"}')
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    assert refusal(folder) == (
        f"{folder}: an adapter of acme/base, which takes the package peft: pip install 'lalign[peft]'"
    )


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "names no base_model"),
        ('{"base_model_name_or_path": 3}', "names no base_model"),
    ],
)
def test_an_adapter_that_does_not_say_what_it_goes_over_is_refused(tmp_path: Path, config: str, why: str) -> None:
    assert why in refusal(adapter_folder(tmp_path / "adapter", config))
