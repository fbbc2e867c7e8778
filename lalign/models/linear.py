"""Linear layers with their weights reordered once for oneDNN (design section 8).

`F.linear` packs its weight anew at every call, which at the few rows of a decoding step costs more than the product
itself. The operator that takes a packed weight is one torch's own compiler uses; where a build of torch lacks it,
models keep their stock layers. On Intel's CPUs with AVX-512 float32 weights are not packed: there MKL's products are
faster than packed ones at one or two rows. On AMD's MKL's take two to three times as long.
"""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lalign.models.decoder_layer import fuse_layers
from lalign.models.joined import join_siblings
from lalign.models.mapped import MappedFiles, move_weights

# What Linux says of the CPUs.
CPUS = Path("/proc/cpuinfo")
REORDERED_DTYPES = (torch.float32, torch.bfloat16)


class ReorderedLinear(nn.Module):
    """x @ weight.T + bias, from a packed copy of `weight` `[out, in]`. The weight itself is not kept."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weight in plain layout `[out, in]`, made anew at each call: for code that looks at it."""
        return self.packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], ""))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def can_reorder(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the operators for weights of that device and type, and this CPU the instructions."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or dtype not in REORDERED_DTYPES or not built:
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")):
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def reorder_linears(model: nn.Module) -> int:
    """Replace every `nn.Linear` (and GPT-2's `Conv1D`) of a model in place; returns how many.

    Those of one input are joined. Layers are replaced one at a time, so that few weights are in memory twice, and no
    weight stays a view of a mapped file.
    """
    from transformers.pytorch_utils import Conv1D

    files = MappedFiles()
    uses = Counter(weight.data_ptr() for module in model.modules() for weight in module.parameters(recurse=False))
    replaced = 0
    for module in list(model.modules()):
        weights = {weight.data_ptr(): weight for child in module.children() for weight in child.parameters(False)}
        before = replaced
        replaced += join_siblings(module)
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, ReorderedLinear(child.weight, child.bias))
            elif isinstance(child, Conv1D):
                setattr(module, name, ReorderedLinear(cast(Tensor, child.weight).T, cast(Tensor, child.bias)))
            else:
                continue
            replaced += 1
            del child
        if replaced > before:
            kept = {weight.data_ptr() for child in module.children() for weight in child.parameters(False)}
            for place, weight in weights.items():
                if place not in kept and uses[place] == 1:
                    files.give_back(weight)
    move_weights(model)
    return replaced


def reordering_helps(dtype: torch.dtype) -> bool:
    """Whether packed weights are faster on this CPU. It depends on the machine alone, so that runs on it are alike."""
    mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return not (dtype == torch.float32 and mkl and avx512 and made_by_intel())


def made_by_intel() -> bool:
    """Whether this machine's CPU says that it is one of Intel's."""
    if CPUS.is_file():
        return "GenuineIntel" in CPUS.read_text(encoding="utf-8", errors="replace")
    return "Intel" in platform.processor()


def settle_weights(model: Any) -> Any:
    """The model with its weights as products on this machine want them, none a view of a mapped file on a CPU."""
    if can_reorder(model.device, model.dtype):
        packed = reordering_helps(model.dtype)
        fuse_layers(model, packed=packed)
        if packed:
            reorder_linears(model)
        else:
            move_weights(model)
    fold_output_layer(model)
    return model


def fold_output_layer(model: Any) -> None:
    """Give the output layer what is cut out of hidden states as one matrix.

    What is not contiguous torch multiplies row by row, which reads the largest weight of all anew for each.
    """
    head = model.get_output_embeddings()
    if type(head) is nn.Linear:
        head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
