"""Layers in fewer operations, against the stock ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import SLIDING_WINDOW, VOCABULARY, TinyModel
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from lalign.engine.cache import KVStore
from lalign.engine.forward import Forward
from lalign.models.decoder_layer import FusedLayer, RootMeanSquareNorm, fuse_layers
from lalign.models.packed_weight import can_pack

FUSED = ["llama", "mistral", "qwen2", "qwen3"]
PREFIX = [(7 * place + 3) % VOCABULARY for place in range(2 * SLIDING_WINDOW)]
PACKED = [False, True] if can_pack(torch.device("cpu"), torch.float32) else [False]


def fused_layers(model: nn.Module) -> int:
    return sum(isinstance(module, FusedLayer) for module in model.modules())


def steps(model: Any, rows: list[list[int]], *, share: bool) -> torch.Tensor:
    """Logits of prompts behind a prefix and of three steps after them: `[4 * rows, vocab]`."""
    forward = Forward(model)
    if share:
        forward.share_if_it_can()
    store = KVStore(forward.num_layers)
    with torch.inference_mode():
        logits, opened = forward.prompts([[*PREFIX, *row] for row in rows], [forward.prefix(PREFIX)], store)
        store.admit(opened)
        following = [torch.tensor([[5 * step + number] for number in range(len(rows))]) for step in range(3)]
        return torch.cat([logits, *(forward.step(ids, store) for ids in following)])


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("kind", FUSED)
def test_prompts_and_steps_give_the_logits_of_the_stock_model(
    tiny_model: TinyModel, kind: str, packed: bool, share: bool
) -> None:
    stock, model = tiny_model(kind), tiny_model(kind)
    assert fuse_layers(model, packed=packed) == fused_layers(model) == model.config.num_hidden_layers
    rows = [[5, 6, 7], [8], [9, 10]]
    torch.testing.assert_close(steps(model, rows, share=share), steps(stock, rows, share=share), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", FUSED)
def test_whole_texts_give_the_logits_of_the_stock_model(tiny_model: TinyModel, kind: str) -> None:
    stock, model = tiny_model(kind), tiny_model(kind)
    fuse_layers(model, packed=False)
    ids = torch.arange(5, 65).reshape(2, 30)  # beyond a sliding window
    with torch.inference_mode():
        wanted, found = stock(ids, use_cache=False).logits, model(ids, use_cache=False).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"attention_bias": True, "mlp_bias": True}, id="biases"),
        pytest.param({"hidden_act": "gelu"}, id="another activation"),
        pytest.param({"num_key_value_heads": 4}, id="no grouped heads"),
        pytest.param({"num_key_value_heads": 1}, id="one key for all heads"),
        pytest.param({"head_dim": 24}, id="heads wider than the hidden states"),
        pytest.param({"rms_norm_eps": 0.5}, id="a large epsilon"),
        pytest.param({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, id="scaled rope"),
    ],
)
def test_what_a_configuration_changes_is_the_same(tiny_model: TinyModel, overrides: dict[str, Any]) -> None:
    stock, model = tiny_model("llama", **overrides), tiny_model("llama", **overrides)
    for one in (stock, model):
        for name, weight in one.named_parameters():
            if name.endswith("bias") or "norm" in name:
                nn.init.normal_(weight, mean=1, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    assert fuse_layers(model, packed=False) == 2
    rows = [[5, 6, 7], [8]]
    torch.testing.assert_close(steps(model, rows, share=True), steps(stock, rows, share=True), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "gemma3"])
def test_other_families_keep_their_layers(tiny_model: TinyModel, kind: str) -> None:
    model = tiny_model(kind)
    before = list(model.modules())
    assert fuse_layers(model, packed=False) == 0
    assert all(after is module for after, module in zip(model.modules(), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_keep_their_layers(tiny_model: TinyModel, dtype: torch.dtype) -> None:
    """What is rounded between two operations there is not what is rounded after both."""
    assert fuse_layers(tiny_model("llama").to(dtype), packed=False) == 0


class Scaled(nn.Linear):
    """A product that computes something of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def scaled_product(layer: Any) -> None:
    layer.mlp.down_proj = Scaled(64, 32, bias=False)


def added_part(layer: Any) -> None:
    layer.self_attn.added = nn.Linear(2, 2)


@pytest.mark.parametrize("change", [scaled_product, added_part])
def test_a_layer_with_a_part_of_another_kind_is_kept(tiny_model: TinyModel, change: Callable[[Any], None]) -> None:
    model = tiny_model("llama")
    changed = model.model.layers[1]
    change(changed)
    assert fuse_layers(model, packed=False) == 1
    assert model.model.layers[1] is changed


def other_residual(stock: Any, hidden: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
    return torch.as_tensor(stock(hidden, **given) + 0.5 * hidden)


def scaled_far_off(stock: Any, hidden: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
    return torch.as_tensor(stock(hidden, **given) * torch.where(given["position_ids"] > 8192, 1.1, 1.0).unsqueeze(-1))


def renamed(stock: Any, hidden: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
    raise TypeError("forward() got an unexpected keyword argument")


@pytest.mark.parametrize("other", [other_residual, scaled_far_off, renamed])
def test_a_release_whose_layer_computes_something_else_keeps_it(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, other: Callable[..., torch.Tensor]
) -> None:
    stock = LlamaDecoderLayer.forward
    monkeypatch.setattr(
        LlamaDecoderLayer,
        "forward",
        lambda self, hidden_states, **given: other(stock.__get__(self), hidden_states, given),
    )
    assert fuse_layers(tiny_model("llama"), packed=False) == 0


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4),
    st.sampled_from([1e-6, 1e-5, 0.5]),
    st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_the_norm_is_that_of_the_stock_layer_and_of_float64(values: list[float], eps: float, scale: float) -> None:
    x = torch.tensor([values, [1.0, -2.0, 0.0, 3.0]]) * scale
    stock = LlamaRMSNorm(4, eps=eps)
    stock.weight.data = torch.tensor([0.5, -1.0, 2.0, 0.0])
    found = RootMeanSquareNorm(stock.weight, eps)(x)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + eps).sqrt() * stock.weight.double()
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found, stock(x), atol=1e-5, rtol=1e-5)
