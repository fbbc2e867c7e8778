"""Linear layers of one input joined into one product: query, key and value; gate and up (design section 8).

A decoding step of few rows is bound by how fast weights are read, and one product of three layers reads them faster
than three do. The layers stay where a family's own code looks for them: the first that is called runs the product, and
the others take their part of what it gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalign.models.packed_weight import PackedWeight

# Names of layers that read one input, in the families that have them under these names in one module.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class JoinedProduct:
    """x @ weight.T + bias for several layers at once, from a copy of their weights under one another.

    packed: whether the copy is packed for oneDNN. One call's output is kept until each layer has taken its part of it,
    or another input has come.
    """

    def __init__(self, layers: Sequence[nn.Linear], *, packed: bool) -> None:
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self._weight: Tensor | PackedWeight = PackedWeight(weight) if packed else weight
        self.bias = _joined_bias(layers)
        self.sizes = [layer.out_features for layer in layers]
        self._input: Tensor | None = None
        self._parts: list[Tensor | None] = []

    def __call__(self, x: Tensor) -> Tensor:
        """What all layers give, side by side: `[..., sum of sizes]`."""
        if isinstance(self._weight, PackedWeight):
            return self._weight.product(x, self.bias)
        return F.linear(x, self._weight, self.bias)

    @property
    def weight(self) -> Tensor:
        """The weights under one another in plain layout `[sum of out, in]`; made anew at each call where packed."""
        return self._weight.plain() if isinstance(self._weight, PackedWeight) else self._weight

    def part(self, number: int, x: Tensor) -> Tensor:
        """What one of the layers gives: `[..., sizes[number]]`."""
        if x is not self._input or self._parts[number] is None:
            self._input, self._parts = x, list(torch.split(self(x), self.sizes, dim=-1))
        output, self._parts[number] = self._parts[number], None
        if not any(part is not None for part in self._parts):
            self._input = None
        return cast(Tensor, output)


class JoinedLinear(nn.Module):
    """One layer of a joined product, which stands where the layer stood."""

    def __init__(self, product: JoinedProduct, number: int, in_features: int) -> None:
        super().__init__()
        self.product = product
        self.number = number
        self.in_features = in_features
        self.out_features = product.sizes[number]

    @property
    def weight(self) -> Tensor:
        """The weight in plain layout `[out, in]`, made anew at each call: for code that looks at it."""
        return torch.split(self.product.weight, self.product.sizes)[self.number]

    @property
    def bias(self) -> Tensor | None:
        return None if self.product.bias is None else torch.split(self.product.bias, self.product.sizes)[self.number]

    def forward(self, x: Tensor) -> Tensor:
        return self.product.part(self.number, x)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def join_siblings(module: nn.Module) -> int:
    """Join the layers of a module that read one input, where each is a plain `nn.Linear`; returns how many."""
    joined = 0
    for names in SIBLINGS:
        layers = [getattr(module, name, None) for name in names]
        if not all(type(layer) is nn.Linear for layer in layers):
            continue
        found = cast(list[nn.Linear], layers)
        if len({(layer.in_features, layer.weight.dtype) for layer in found}) > 1:
            continue
        product = JoinedProduct(found, packed=True)
        for number, name in enumerate(names):
            setattr(module, name, JoinedLinear(product, number, found[number].in_features))
        joined += len(names)
    return joined


def _joined_bias(layers: Sequence[nn.Linear]) -> Tensor | None:
    """The biases side by side, zeros for a layer without one; None where no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat(
        [layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers]
    )
