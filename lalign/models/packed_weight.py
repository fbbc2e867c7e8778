"""Products with weights packed for oneDNN, and whether they help (design section 8).

`F.linear` packs its weight anew at every call, which at the few rows of a decoding step costs more than the product
itself. The operator that takes a packed weight is one torch's own compiler uses; where a build of torch lacks it,
models keep their stock layers. On Intel's CPUs with AVX-512 float32 weights are not packed: there MKL's products are
faster than packed ones at one or two rows. On AMD's MKL's take two to three times as long.
"""

from __future__ import annotations

import ctypes
import math
import platform
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

# What Linux says of the CPUs.
CPUS = Path("/proc/cpuinfo")
PACKED_DTYPES = (torch.float32, torch.bfloat16)
# With AVX-512 oneDNN reads weights at the full bandwidth for four rows, and more slowly for one or two.
FULL_ROWS = {"AVX512": 4}
# How oneDNN orders float32 weights: blocks of so many outputs by so many inputs, the outputs of an input side by side.
BLOCK_OUTPUTS, BLOCK_INPUTS = 64, 16


class PackedWeight:
    """A copy of a weight `[out, in]` in the order that oneDNN multiplies with."""

    def __init__(self, weight: Tensor) -> None:
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        self._full_rows = FULL_ROWS.get(torch.backends.cpu.get_cpu_capability(), 1)

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)`, of the weight in plain layout."""
        outputs, inputs = self._packed.shape
        return outputs, inputs

    def plain(self) -> Tensor:
        """The weight in plain layout `[out, in]`, made anew at each call."""
        return self._packed.to_dense()

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x @ weight.T + bias, `[..., in]` to `[..., out]`; of fewer rows than four, with copies of them beside."""
        rows = x.shape[0]
        if x.numel() >= self._full_rows * x.shape[-1] or not rows:
            return self._multiplied(x, bias)
        return self._multiplied(torch.cat([x] * -(-self._full_rows // rows)), bias)[:rows]

    def _multiplied(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], ""))

    def blocks(self) -> Tensor | None:
        """The memory of the copy, `[out blocks, in blocks, inputs, outputs]`; None where it has another size or type.

        It lasts as long as the copy.
        """
        outputs, inputs = self.shape
        shape = -(-outputs // BLOCK_OUTPUTS), -(-inputs // BLOCK_INPUTS), BLOCK_INPUTS, BLOCK_OUTPUTS
        if not _has_operators("data_ptr", "_nbytes") or self._packed.dtype != torch.float32:
            return None
        if torch.ops.mkldnn._nbytes(self._packed) != 4 * math.prod(shape):
            return None
        memory = (ctypes.c_float * math.prod(shape)).from_address(torch.ops.mkldnn.data_ptr(self._packed))
        return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the operators for weights of that device and type, and this CPU the instructions."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or dtype not in PACKED_DTYPES or not built:
        return False
    if not _has_operators("_reorder_linear_weight", "_linear_pointwise"):
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_operators(*names: str) -> bool:
    return all(hasattr(torch.ops.mkldnn, name) for name in names)


def packing_helps(dtype: torch.dtype) -> bool:
    """Whether packed weights are faster on this CPU. It depends on the machine alone, so that runs on it are alike."""
    mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return not (dtype == torch.float32 and mkl and avx512 and made_by_intel())


def made_by_intel() -> bool:
    """Whether this machine's CPU says that it is one of Intel's."""
    if CPUS.is_file():
        return "GenuineIntel" in CPUS.read_text(encoding="utf-8", errors="replace")
    return "Intel" in platform.processor()
