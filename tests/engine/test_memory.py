"""What a pair takes, against what the store and the logits of a tiny model hold; and how many fit."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
import torch
from conftest import VOCABULARY, TinyModel

from lalign.engine import memory
from lalign.engine.forward import Forward
from lalign.engine.memory import LARGEST_AUTO_BATCH, free_bytes, largest_batch, row_bytes

TOKENS = 40


def stored_bytes(model: Any) -> int:
    """Of one row's keys and values in a store that is just large enough."""
    with torch.inference_mode():
        store = Forward(model).prefix(list(range(TOKENS))).store
    return sum(tensor.nbytes for layer in store.layers for tensor in (layer.keys, layer.values))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "gemma3", "mistral"])
def test_keys_and_values_are_counted_exactly(tiny_model: TinyModel, kind: str) -> None:
    model = tiny_model(kind)
    assert row_bytes(model, TOKENS) - row_bytes(model, 0) == stored_bytes(model)


def test_half_the_precision_takes_half_the_room(tiny_model: TinyModel) -> None:
    single, half = tiny_model("llama"), tiny_model("llama").bfloat16()
    logits = row_bytes(single, 0)
    assert row_bytes(half, 0) == logits  # the update is computed in float32 whatever the model
    assert row_bytes(half, TOKENS) - logits == (row_bytes(single, TOKENS) - logits) / 2


def test_logits_are_counted_several_times_over(tiny_model: TinyModel) -> None:
    assert row_bytes(tiny_model("llama"), 0) >= 8 * 4 * VOCABULARY


def test_as_many_pairs_as_fit_into_the_share(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100 * row_bytes(model, TOKENS))
    assert largest_batch(model, rows_per_pair=2, tokens=TOKENS, share=0.5) == 25
    assert largest_batch(model, rows_per_pair=3, tokens=TOKENS, share=0.5) == 16
    assert largest_batch(model, rows_per_pair=2, tokens=TOKENS, share=1.0) == 50


@pytest.mark.parametrize(("free", "pairs"), [(0, 1), (10**15, LARGEST_AUTO_BATCH)])
def test_there_is_always_one_pair_and_never_more_than_are_of_use(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, free: int, pairs: int
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert largest_batch(tiny_model("llama"), 2, TOKENS, 0.7) == pairs


def test_free_memory_of_a_cpu_is_what_the_machine_has_available() -> None:
    assert 0 < free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total
