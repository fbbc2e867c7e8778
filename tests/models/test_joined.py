"""Layers of one input as one product, against each layer alone."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from conftest import TinyModel
from torch import nn
from torch.nn import functional as F

from lalign.models.joined import JoinedLinear, join_siblings
from lalign.models.linear import pack_linears
from lalign.models.packed_weight import can_pack

pytestmark = pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.float32), reason="torch has no packed weights here"
)
NAMES = ("q_proj", "k_proj", "v_proj")


def attention(biases: tuple[bool, bool, bool] = (False, False, False)) -> Any:
    """Three layers under the names of query, key and value, of 16, 8 and 8 outputs."""
    torch.manual_seed(0)
    module: Any = nn.Module()
    for name, size, bias in zip(NAMES, (16, 8, 8), biases, strict=True):
        setattr(module, name, nn.Linear(12, size, bias=bias).requires_grad_(False))
    return module


def inputs(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 1, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("biases", [(False, False, False), (True, True, True), (True, False, True)])
@pytest.mark.parametrize("order", list(permutations(NAMES)))
def test_each_part_is_what_the_layer_gave(biases: tuple[bool, bool, bool], order: tuple[str, ...]) -> None:
    stock, joined = attention(biases), attention(biases)
    assert join_siblings(joined) == 3
    for seed in range(3):
        x = inputs(seed)
        for name in order:
            wanted = getattr(stock, name)
            torch.testing.assert_close(getattr(joined, name)(x), wanted(x), atol=1e-6, rtol=1e-6)


def test_layers_that_are_given_other_inputs_answer_for_those() -> None:
    """As of attention over what another model has made, or where a layer is not called at all."""
    stock, joined = attention(), attention()
    join_siblings(joined)
    calls = [("q_proj", 0), ("k_proj", 1), ("v_proj", 1), ("q_proj", 1), ("q_proj", 1), ("q_proj", 2), ("v_proj", 2)]
    given = [inputs(seed) for seed in range(3)]
    for name, seed in calls:
        wanted = getattr(stock, name)(given[seed])
        torch.testing.assert_close(getattr(joined, name)(given[seed]), wanted, atol=1e-6, rtol=1e-6)


def test_the_weights_and_biases_are_given_back_as_they_were() -> None:
    stock, joined = attention((True, False, True)), attention((True, False, True))
    join_siblings(joined)
    for name in NAMES:
        layer, part = getattr(stock, name), getattr(joined, name)
        assert torch.equal(part.weight, layer.weight)
        assert torch.equal(part.bias, torch.zeros(8) if layer.bias is None else layer.bias)
        assert (part.in_features, part.out_features) == (layer.in_features, layer.out_features)


def test_nothing_is_kept_when_all_have_taken_their_part() -> None:
    joined = attention()
    join_siblings(joined)
    x = inputs()
    for name in NAMES:
        getattr(joined, name)(x)
    product = joined.q_proj.product
    assert product._input is None
    assert product._parts == [None] * 3


class Adapted(nn.Linear):
    """A layer that computes something of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * F.linear(x, self.weight)


@pytest.mark.parametrize(
    "other", [Adapted(12, 8), nn.Linear(10, 8), nn.Linear(12, 8, dtype=torch.bfloat16), nn.Identity(), None]
)
def test_layers_of_another_kind_or_input_are_left_as_they_are(other: nn.Module | None) -> None:
    module = attention()
    module.k_proj = other
    assert join_siblings(module) == 0
    assert type(module.q_proj) is nn.Linear
    assert module.k_proj is other


@pytest.mark.parametrize(("kind", "parts"), [("llama", 5), ("qwen2", 5), ("mistral", 5), ("gemma3", 5), ("gpt2", 0)])
def test_which_layers_of_a_model_are_joined(tiny_model: TinyModel, kind: str, parts: int) -> None:
    model = tiny_model(kind)
    pack_linears(model)
    found = sum(isinstance(module, JoinedLinear) for module in model.modules())
    assert found == parts * model.config.num_hidden_layers
