"""Weights mapped from a file: what is given back is gone from memory, and what is still needed is not."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import torch
from conftest import TinyModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from lalign.models import linear
from lalign.models.linear import pack_output_layer, settle_weights
from lalign.models.mapped import CHUNK, MappedFiles
from lalign.models.packed_weight import can_pack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped where")
SIZE = 3 * CHUNK + 5


def resident() -> int:
    """Bytes of files that are in this process's memory."""
    return int(psutil.Process().memory_info().shared)


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Two tensors of 48 MB as a model file gives them, read once."""
    values = {name: torch.arange(SIZE, dtype=torch.float32) + number for number, name in enumerate("ab")}
    save_file(values, tmp_path / "model.safetensors")
    found: dict[str, torch.Tensor] = load_file(tmp_path / "model.safetensors")
    for name, value in values.items():
        assert torch.equal(found[name], value)
    return found


def test_what_is_given_back_is_gone_and_its_neighbour_is_not(weights: dict[str, torch.Tensor]) -> None:
    files, before = MappedFiles(), resident()
    files.give_back(weights["a"])
    assert before - resident() > 0.9 * weights["a"].nbytes
    assert torch.equal(weights["b"], torch.arange(SIZE, dtype=torch.float32) + 1)


def test_what_is_moved_is_the_same_and_in_memory_once(weights: dict[str, torch.Tensor]) -> None:
    files, before = MappedFiles(), resident()
    moved = files.moved(weights["b"])
    assert torch.equal(moved, torch.arange(SIZE, dtype=torch.float32) + 1)
    assert moved.data_ptr() != weights["b"].data_ptr()
    assert before - resident() > 0.9 * moved.nbytes


def test_what_is_written_to_is_moved_as_written(weights: dict[str, torch.Tensor]) -> None:
    """As by an adapter."""
    weights["a"].add_(7)
    assert torch.equal(MappedFiles().moved(weights["a"]), torch.arange(SIZE, dtype=torch.float32) + 7)


def test_memory_of_no_file_is_left_alone() -> None:
    tensor = torch.arange(SIZE, dtype=torch.float32)
    MappedFiles().give_back(tensor)
    assert torch.equal(tensor, torch.arange(SIZE, dtype=torch.float32))
    odd = tensor[:CHUNK].view(2, -1).T
    assert torch.equal(MappedFiles().moved(odd), odd)


@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="torch has no packed weights here")
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_a_file_gives_the_same_logits_when_its_weights_are_packed(
    tiny_model: TinyModel, tmp_path: Path, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "packing_helps", lambda dtype: True)
    stock = tiny_model("llama", tie_word_embeddings=tied, hidden_size=128)
    stock.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval().requires_grad_(False)
    settle_weights(model)
    ids = torch.arange(5, 35).reshape(2, 15)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, stock(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="torch has no packed weights here")
def test_a_weight_that_another_layer_has_too_keeps_what_was_written_to_it(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    tiny_model("llama", hidden_size=128).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval().requires_grad_(False)
    model.also = nn.Linear(1, 1, bias=False)
    model.also.weight = model.lm_head.weight
    model.also.weight.add_(7)
    wanted = model.also.weight.clone()
    pack_output_layer(model)
    assert torch.equal(model.also.weight, wanted)
