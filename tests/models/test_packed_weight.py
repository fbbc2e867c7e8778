"""Products with packed weights against those of torch, and where weights are packed at all."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TinyModel
from torch import nn
from torch.nn import functional as F

from lalign.models import packed_weight
from lalign.models.linear import PackedLinear, settle_weights
from lalign.models.packed_embedding import packed_embedding
from lalign.models.packed_weight import PackedWeight, can_pack, packing_helps

CPU = torch.device("cpu")
needs_operators = pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="torch has no packed weights here")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


@pytest.fixture(params=[1, 4])
def full_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As without and with AVX-512, whichever this machine has."""
    monkeypatch.setattr(packed_weight, "FULL_ROWS", {torch.backends.cpu.get_cpu_capability(): request.param})
    return int(request.param)


@needs_operators
@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (3,), (4,), (5,), (1, 1), (2, 1), (1, 2), (1, 3), (3, 5), (2, 0)])
def test_rows_that_are_filled_up_give_what_they_give_alone(shape: tuple[int, ...], full_rows: int) -> None:
    weight, bias, x = random(80, 48), random(80), random(*shape, 48)
    with torch.inference_mode():
        found, wanted = PackedWeight(weight).product(x, bias), F.linear(x, weight, bias)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@needs_operators
def test_few_rows_run_as_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_weight, "FULL_ROWS", {torch.backends.cpu.get_cpu_capability(): 4})
    weight = PackedWeight(random(80, 48))
    multiplied: list[tuple[int, ...]] = []
    product = weight._multiplied

    def multiply(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        multiplied.append(tuple(x.shape))
        return product(x, bias)

    monkeypatch.setattr(weight, "_multiplied", multiply)
    with torch.inference_mode():
        for rows in (1, 2, 3, 4, 7):
            weight.product(random(rows, 48), None)
        weight.product(random(2, 1, 48), None)
    assert multiplied == [(4, 48), (4, 48), (6, 48), (4, 48), (7, 48), (4, 1, 48)]


class Operators:
    """What `torch.ops.mkldnn` is where a build of torch has only some of the operators."""

    def __init__(self, *names: str) -> None:
        for name in names:
            setattr(self, name, None)


def torch_with(*names: str) -> Any:
    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        class ops:
            mkldnn = Operators(*names)

    return Torch()


@pytest.mark.parametrize("names", [(), ("_reorder_linear_weight",), ("_linear_pointwise",)])
def test_without_the_operators_a_model_keeps_its_stock_layers(
    monkeypatch: pytest.MonkeyPatch, tiny_model: TinyModel, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(packed_weight, "torch", torch_with(*names))
    model = tiny_model("llama")
    assert not can_pack(CPU, torch.float32)
    assert settle_weights(model) is model
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    assert any(type(module) is nn.Linear for module in model.modules())


@needs_operators
@pytest.mark.parametrize("names", [(), ("data_ptr",), ("_nbytes",)])
def test_without_the_operators_its_memory_is_not_read(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """Embeddings and output layer are both kept then."""
    plain = nn.Embedding(200, 48)
    weight = PackedWeight(plain.weight)
    monkeypatch.setattr(packed_weight, "torch", torch_with(*names))
    assert weight.blocks() is None
    assert packed_embedding(plain, weight) is None


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cuda", torch.float32), ("mps", torch.float32), ("cpu", torch.float16), ("cpu", torch.float64)],
)
def test_weights_of_other_devices_and_types_are_not_packed(device: str, dtype: torch.dtype) -> None:
    assert not can_pack(torch.device(device), dtype)


@pytest.mark.parametrize("supported", [False, True])
def test_bfloat16_is_packed_where_the_cpu_can_do_it(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert can_pack(CPU, torch.bfloat16) is (supported and can_pack(CPU, torch.float32))


@pytest.mark.parametrize(
    ("maker", "capability", "dtype", "helps"),
    [
        ("GenuineIntel", "AVX2", torch.float32, True),
        ("GenuineIntel", "AVX512", torch.float32, False),
        ("GenuineIntel", "AVX512", torch.bfloat16, True),
        ("GenuineIntel", "DEFAULT", torch.float32, True),
        ("AuthenticAMD", "AVX512", torch.float32, True),
        ("AuthenticAMD", "AVX2", torch.float32, True),
    ],
)
def test_float32_is_left_to_mkl_on_intels_cpus_with_avx512(
    maker: str, capability: str, dtype: torch.dtype, helps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = tmp_path / "cpuinfo"
    cpus.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
    monkeypatch.setattr(packed_weight, "CPUS", cpus)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert packing_helps(dtype) is helps


@pytest.mark.parametrize(
    ("processor", "intel"),
    [
        ("Intel64 Family 6 Model 140 Stepping 1, GenuineIntel", True),
        ("AMD64 Family 25, AuthenticAMD", False),
        ("", False),
    ],
)
def test_without_proc_the_system_is_asked_whose_cpu_it_is(
    processor: str, intel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_weight, "CPUS", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: processor)
    assert packed_weight.made_by_intel() is intel
