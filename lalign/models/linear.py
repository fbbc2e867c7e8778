"""Linear layers as products on this machine want their weights (design section 8)."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from torch import Tensor, nn

from lalign.models.decoder_layer import fuse_layers
from lalign.models.joined import join_siblings
from lalign.models.mapped import MappedFiles, move_weights
from lalign.models.packed_embedding import packed_embedding
from lalign.models.packed_weight import PackedWeight, can_pack, packing_helps


class PackedLinear(nn.Module):
    """x @ weight.T + bias, from a packed copy of `weight` `[out, in]`. The weight itself is not kept."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = PackedWeight(weight)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weight in plain layout `[out, in]`, made anew at each call: for code that looks at it."""
        return self.packed.plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.packed.product(x, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def pack_linears(model: nn.Module) -> int:
    """Replace every `nn.Linear` (and GPT-2's `Conv1D`) of a model in place; returns how many.

    Those of one input are joined. Layers are replaced one at a time, so that few weights are in memory twice.
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
                setattr(module, name, PackedLinear(child.weight, child.bias))
            elif isinstance(child, Conv1D):
                setattr(module, name, PackedLinear(cast(Tensor, child.weight).T, cast(Tensor, child.bias)))
            else:
                continue
            replaced += 1
            del child
        if replaced > before:
            kept = {weight.data_ptr() for child in module.children() for weight in child.parameters(False)}
            for place, weight in weights.items():
                if place not in kept and uses[place] == 1:
                    files.give_back(weight)
    return replaced


def settle_weights(model: Any) -> Any:
    """The model with its weights as products on this machine want them, none a view of a mapped file on a CPU."""
    if can_pack(model.device, model.dtype):
        packed = packing_helps(model.dtype)
        if packed:
            # First of all, while the pages of other weights are not in memory yet: it is the largest.
            pack_output_layer(model)
        fuse_layers(model, packed=packed)
        if packed:
            pack_linears(model)
        move_weights(model)
    fold_output_layer(model)
    return model


def pack_output_layer(model: Any) -> None:
    """Pack a model's output layer; embeddings that are tied to it are looked up in what has been packed."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if type(head) is not nn.Linear:
        return
    layer = PackedLinear(head.weight, head.bias)
    model.set_output_embeddings(layer)
    if embedding.weight is head.weight and (found := packed_embedding(embedding, layer.packed)) is not None:
        model.set_input_embeddings(found)
    place = head.weight.data_ptr()
    if all(weight.data_ptr() != place for weight in model.parameters()):
        MappedFiles().give_back(head.weight)


def fold_output_layer(model: Any) -> None:
    """Give the output layer what is cut out of hidden states as one matrix.

    What is not contiguous torch multiplies row by row, which reads the largest weight of all anew for each.
    """
    head = model.get_output_embeddings()
    if type(head) is nn.Linear:
        head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
