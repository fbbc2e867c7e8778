"""Layers with packed weights against the stock ones."""

from __future__ import annotations

import pytest
import torch
from conftest import VOCABULARY, TinyModel
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lalign.models import linear
from lalign.models.linear import PackedLinear, pack_linears, settle_weights
from lalign.models.packed_weight import can_pack

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}

needs_operators = pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="torch has no packed weights here")
# bfloat16 where the CPU can pack it, which AVX2 alone cannot.
PACKED = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(CPU, dtype)]


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@needs_operators
@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (32, 48), (3, 1, 48), (2, 5, 48)])
def test_the_product_is_that_of_f_linear(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    weight = random(80, 48, dtype=dtype) / 7
    offset = random(80, dtype=dtype, seed=1) if bias else None
    x = random(*shape, dtype=dtype, seed=2)
    with torch.inference_mode():
        found = PackedLinear(weight, offset)(x)
    wanted = F.linear(x, weight, offset)
    assert found.shape == wanted.shape
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@needs_operators
@pytest.mark.parametrize("rows", [(4, 1), (4, 6)])
def test_the_product_of_a_view_of_a_larger_tensor(rows: tuple[int, int]) -> None:
    """As of the last position of hidden states."""
    weight = random(16, 48)
    x = random(4, 9, 48, seed=1)[:, -rows[1] :]
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(weight, None)(x), F.linear(x, weight), atol=1e-5, rtol=1e-5)


@needs_operators
@pytest.mark.parametrize("dtype", PACKED)
def test_the_weight_is_given_back_as_it_was(dtype: torch.dtype) -> None:
    weight = random(80, 48, dtype=dtype)
    layer = PackedLinear(weight, None)
    assert torch.equal(layer.weight, weight)
    assert (layer.out_features, layer.in_features) == (80, 48)


@needs_operators
def test_a_transposed_weight_as_of_conv1d() -> None:
    layer = Conv1D(80, 48)
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(0))
    holder = nn.Sequential(layer)
    x = random(2, 5, 48)
    with torch.inference_mode():
        wanted = holder(x)
        assert pack_linears(holder) == 1
        assert isinstance(holder[0], PackedLinear)
        torch.testing.assert_close(holder(x), wanted, atol=1e-5, rtol=1e-5)


@needs_operators
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "gemma3"])
def test_a_model_gives_the_same_logits(tiny_model: TinyModel, kind: str) -> None:
    stock, packed = tiny_model(kind), tiny_model(kind)
    linears = sum(isinstance(module, (nn.Linear, Conv1D)) for module in stock.modules())
    assert pack_linears(packed) == linears
    assert not any(isinstance(module, (nn.Linear, Conv1D)) for module in packed.modules())
    ids = torch.arange(5, 35).reshape(2, 15)
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids).logits, stock(ids).logits, atol=1e-4, rtol=1e-4)


@needs_operators
def test_tied_embeddings_are_left_alone(tiny_model: TinyModel) -> None:
    stock, model = (tiny_model("llama", tie_word_embeddings=True) for _ in range(2))
    pack_linears(model)
    assert torch.equal(model.get_input_embeddings().weight, stock.get_input_embeddings().weight)
    ids = torch.arange(5, 20).unsqueeze(0)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, stock(ids).logits, atol=1e-4, rtol=1e-4)


@needs_operators
def test_subclasses_that_may_compute_something_else_are_left_alone() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    holder = nn.Sequential(Scaled(4, 4))
    assert pack_linears(holder) == 0
    assert isinstance(holder[0], Scaled)


@needs_operators
@pytest.mark.parametrize("packed", [True, False])
def test_a_model_that_is_settled_gives_the_same_logits(
    packed: bool, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "packing_helps", lambda dtype: packed)
    stock, model = tiny_model("llama"), settle_weights(tiny_model("llama"))
    assert any(isinstance(module, nn.Linear) for module in model.modules()) is not packed
    ids = torch.arange(5, 35).reshape(2, 15)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, stock(ids).logits, atol=1e-4, rtol=1e-4)


@needs_operators
def test_positions_that_are_cut_out_are_one_product_with_the_output_layer(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "packing_helps", lambda dtype: False)
    stock, model = tiny_model("gpt2"), settle_weights(tiny_model("gpt2"))
    ids = torch.arange(5, 35).reshape(2, 15)
    with torch.inference_mode():
        wanted = stock(ids, logits_to_keep=3).logits
        with torch.profiler.profile(record_shapes=True) as profile:
            found = model(ids, logits_to_keep=3).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    products = [event.name for event in profile.events() or () if [32, VOCABULARY] in event.input_shapes]
    assert "aten::mm" in products
    assert "aten::bmm" not in products
