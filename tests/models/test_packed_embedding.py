"""Embeddings looked up in a packed output layer against plain ones."""

from __future__ import annotations

import pytest
import torch
from conftest import TinyModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lalign.models.linear import PackedLinear, pack_output_layer
from lalign.models.packed_embedding import PackedEmbedding, packed_embedding
from lalign.models.packed_weight import PackedWeight, can_pack

# Elsewhere weights are ordered otherwise, and embeddings are kept.
KNOWN = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") and can_pack(torch.device("cpu"), torch.float32)
pytestmark = pytest.mark.skipif(not KNOWN, reason="torch packs no weights here, or in another order")


def embeddings(tokens: int, size: int) -> nn.Embedding:
    torch.manual_seed(tokens)
    return nn.Embedding(tokens, size)


@given(tokens=st.integers(2, 300), size=st.integers(1, 80), data=st.data())
@settings(deadline=None, max_examples=40)
def test_every_row_is_found_to_the_bit(tokens: int, size: int, data: st.DataObject) -> None:
    """Whether or not the weight fills its last blocks."""
    plain = embeddings(tokens, size)
    found = packed_embedding(plain, PackedWeight(plain.weight))
    assert found is not None
    ids = torch.tensor(data.draw(st.lists(st.integers(0, tokens - 1), min_size=1, max_size=12))).view(1, -1)
    assert torch.equal(found(ids), plain(ids))
    assert torch.equal(found(torch.arange(tokens)), plain.weight)
    assert torch.equal(found.weight, plain.weight)
    assert (found.num_embeddings, found.embedding_dim) == (tokens, size)


@pytest.mark.parametrize("tokens", [64, 100])
@pytest.mark.parametrize("past", [0, 5])
def test_ids_of_no_token_are_refused_and_not_read_from_what_fills_the_last_block(tokens: int, past: int) -> None:
    plain = embeddings(tokens, 16)
    found = packed_embedding(plain, PackedWeight(plain.weight))
    assert found is not None
    for wrong in (tokens + past, -1 - past):
        with pytest.raises(IndexError):
            plain(torch.tensor([[3, wrong]]))
        with pytest.raises(IndexError, match=f"of {tokens} tokens"):
            found(torch.tensor([[3, wrong]]))


class Scaled(nn.Embedding):
    """As of Gemma, whose embeddings are multiplied after they are looked up."""


@pytest.mark.parametrize("plain", [Scaled(100, 32), nn.Embedding(100, 32, max_norm=1.0)])
def test_embeddings_of_another_kind_are_left_alone(plain: nn.Embedding) -> None:
    assert packed_embedding(plain, PackedWeight(plain.weight)) is None


def test_a_weight_that_is_ordered_otherwise_is_not_read() -> None:
    plain = embeddings(200, 48)
    assert packed_embedding(plain, PackedWeight(embeddings(200, 48).weight.flip(0))) is None


def test_weights_of_another_type_are_not_read() -> None:
    if can_pack(torch.device("cpu"), torch.bfloat16):
        plain = embeddings(200, 48).to(torch.bfloat16)
        assert packed_embedding(plain, PackedWeight(plain.weight)) is None


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_whose_output_layer_is_packed_gives_the_same_logits(
    tiny_model: TinyModel, kind: str, tied: bool
) -> None:
    stock, model = (tiny_model(kind, tie_word_embeddings=tied) for _ in range(2))
    pack_output_layer(model)
    assert isinstance(model.get_output_embeddings(), PackedLinear)
    assert isinstance(model.get_input_embeddings(), PackedEmbedding) is tied
    ids = torch.arange(5, 35).reshape(2, 15)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, stock(ids).logits, atol=1e-4, rtol=1e-4)
