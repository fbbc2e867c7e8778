"""What a pair takes, against what the store and the logits of a tiny model hold; and how many fit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psutil
import pytest
import torch
from conftest import VOCABULARY, TinyModel

from lalign.engine import memory
from lalign.engine.forward import Forward
from lalign.engine.memory import LARGEST_AUTO_BATCH, free_bytes, is_out_of_memory, largest_batch, row_bytes

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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_says_that_memory_is_out(error: Exception, told: bool) -> None:
    assert is_out_of_memory(error) is told


# In a process of its own, whose address space is bounded when the model stands and half the job has been tried.
_BOUNDED = """
import resource, sys, psutil, torch
from transformers import AutoModelForCausalLM, LlamaConfig
from lalign.engine.engine import Engine
from lalign.engine.forward import Forward
from lalign.engine.interface import Point, Request
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling

torch.set_num_threads(1)
model = AutoModelForCausalLM.from_config(LlamaConfig(
    vocab_size=300, hidden_size=512, intermediate_size=16, num_hidden_layers=2, num_attention_heads=8,
), dtype=torch.float32).eval()
point = Point(Alignment(ratio=2), Sampling(max_new_tokens=4))

def run(batch_size):
    waiting = [
        Request(key, [(key * 7 + place) % 300 for place in range(150)],
                ([(key * 3 + place) % 300 for place in range(150)],), (1.0,), (point,))
        for key in range(64)
    ]
    def source(room, wait):
        given, waiting[:] = waiting[:room], waiting[room:]
        return given or None
    engine = Engine(Forward(model), frozenset(), batch_size, "none")
    ends = [end for ended in engine.run(source) for end in ended]
    return engine, {end.sequence.request.key: (end.reason, end.sequence.tokens) for end in ends}

wanted = run(4)[1]
bound = psutil.Process().memory_info().vms + (120 << 20)
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
engine, found = run(64)
sys.exit(not (len(found) == 64 and found == wanted and engine.counters.batch_halvings > 0))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address spaces are bounded on Linux alone")
def test_a_batch_is_halved_under_a_bound_on_the_address_space() -> None:
    done = subprocess.run([sys.executable, "-c", _BOUNDED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
