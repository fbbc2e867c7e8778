"""A decoder layer of Llama's kind in half the operations (design section 7).

At few rows a step is some hundred small operations a layer besides its products, and each costs the same however
little it computes. `FusedLayer` computes what transformers' layer does from one product of query, key and value and one
of gate and up, with rotary positions for queries and keys at once. It stands where the stock layer stood, so that the
model around it, its masks, caches and attention stay transformers' own.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from lalign.models.joined import JoinedProduct
from lalign.models.mapped import MappedFiles

# Families of transformers whose layers compute this and nothing else, whatever the position.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_MODULES = frozenset(f"transformers.models.{family}.modeling_{family}" for family in FAMILIES)
# What a layer of theirs is made of; norms of queries and keys where there are any.
PARTS = {
    *("input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    *("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.act_fn"),
}
HEAD_NORMS = {"self_attn.q_norm", "self_attn.k_norm"}
# How far its output may lie from that of the stock layer, as a share of the latter's spread: rounding alone.
TOLERANCE = 1e-4


class RootMeanSquareNorm:
    """x over its root mean square, times `weight` `[..., n]`; both are of the last dimension.

    The root mean square with `eps` in it is the length of x and √(n eps) together, over √n: one operation for both.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.shape[-1]
        self.scaled = weight.detach() * math.sqrt(size)
        self.least = torch.tensor(math.sqrt(size * eps))

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self.scaled).div_(torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self.least))


class FusedLayer(nn.Module):
    """What a stock layer of `FAMILIES` computes, on its own weights; those of joined products are copied."""

    def __init__(self, stock: Any, *, packed: bool) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        super().__init__()
        attention, mlp = stock.self_attn, stock.mlp
        self.input_layernorm = _norm(stock.input_layernorm)
        self.post_attention_layernorm = _norm(stock.post_attention_layernorm)
        self.queries_keys_values = JoinedProduct([attention.q_proj, attention.k_proj, attention.v_proj], packed=packed)
        self.o_proj = attention.o_proj
        self.gate_and_up = JoinedProduct([mlp.gate_proj, mlp.up_proj], packed=packed)
        self.act_fn = mlp.act_fn
        self.down_proj = mlp.down_proj
        self.attention_functions: Any = ALL_ATTENTION_FUNCTIONS
        # What attention functions of transformers look at on the module that calls them.
        self.config = attention.config
        self.layer_idx: int = attention.layer_idx
        self.num_key_value_groups: int = attention.num_key_value_groups
        self.is_causal = True
        self.head_dim: int = attention.head_dim
        self.heads = attention.q_proj.out_features // self.head_dim
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        self.scaling: float = attention.scaling
        self.head_norm: RootMeanSquareNorm | None = None
        if hasattr(attention, "q_norm"):
            weights = [attention.q_norm.weight] * self.heads + [attention.k_norm.weight] * self.kv_heads
            self.head_norm = RootMeanSquareNorm(torch.stack(weights), attention.q_norm.variance_epsilon)
        window = getattr(attention, "sliding_window", None)
        self.given = {} if window is None else {"sliding_window": window}
        # rotate_half(x) is x rolled by half a head, with the first half negated.
        self.signs = torch.ones(self.head_dim)
        self.signs[: self.head_dim // 2] = -1

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **given: Any,
    ) -> Tensor:
        """As the stock layer's: `hidden_states` `[rows, new, hidden size]`, and the same of what comes out."""
        assert position_embeddings is not None
        rows, new, size = hidden_states.shape
        x = hidden_states.reshape(-1, size)
        projected = self.queries_keys_values(self.input_layernorm(x)).view(rows, new, -1, self.head_dim)
        query, key = self._rotated(projected[:, :, : self.heads + self.kv_heads], position_embeddings)
        value = projected[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attended = self._attend(query, key, value, attention_mask, given)
        # In place, where it is of what a product has just made: at hundreds of tokens new memory costs as much as sums.
        x = self.o_proj(attended.reshape(rows * new, -1)).add_(x)
        gate, up = self.gate_and_up(self.post_attention_layernorm(x)).chunk(2, dim=-1)
        return cast(Tensor, self.down_proj(self.act_fn(gate).mul_(up)).add_(x)).view(rows, new, size)

    def _rotated(self, heads: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Queries and keys at their positions, `[rows, heads, new, head size]` each, of `[rows, new, heads, size]`."""
        if self.head_norm is not None:
            heads = self.head_norm(heads)
        cos, sin = (part.unsqueeze(2) for part in position_embeddings)
        turned = torch.roll(heads, self.head_dim // 2, -1)
        rotated = (heads * cos).addcmul_(turned, sin * self.signs).transpose(1, 2)
        return rotated[:, : self.heads], rotated[:, self.heads :]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, given: dict[str, Any]) -> Tensor:
        """By the attention that the model is set to: `[rows, new, heads, head size]`."""
        attend = self.attention_functions[self.config._attn_implementation]
        output, _ = attend(self, query, key, value, mask, dropout=0.0, scaling=self.scaling, **self.given, **given)
        return cast(Tensor, output)


def fuse_layers(model: nn.Module, *, packed: bool) -> int:
    """Put a `FusedLayer` in the place of every layer that it equals, one at a time; returns how many.

    packed: whether joined products are of weights packed for oneDNN. What has been copied is let go of where it is
    mapped from a file.
    """
    files = MappedFiles()
    fused = 0
    for layers in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for number, stock in enumerate(layers):
            layer = _fused(stock, packed) if _is_known(stock) else None
            if layer is None:
                continue
            layers[number] = layer
            fused += 1
            kept = {weight.data_ptr() for weight in layer.parameters()}
            for weight in stock.parameters():
                if weight.data_ptr() not in kept:
                    files.give_back(weight)
    return fused


def _is_known(layer: Any) -> bool:
    """Whether a layer is one of `FAMILIES`, of plain products and no part besides, on a CPU and in float32."""
    kind = type(layer)
    if kind.__module__ not in _MODULES or not kind.__name__.endswith("DecoderLayer"):
        return False
    parts = {name: module for name, module in layer.named_modules() if name and not any(module.children())}
    if set(parts) not in (PARTS, PARTS | HEAD_NORMS):
        return False
    if not all(type(part) is nn.Linear for name, part in parts.items() if name.endswith("_proj")):
        return False
    return all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in layer.parameters())


def _fused(stock: Any, packed: bool) -> FusedLayer | None:
    """The layer in the stock one's place, or None where it gives something else.

    Both run two rows of three random tokens at positions far apart, without a cache.
    """
    drawn = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=drawn)

    try:
        layer = FusedLayer(stock, packed=packed).eval()
        inputs = {
            "hidden_states": random(2, 3, stock.hidden_size),
            "attention_mask": torch.full((3, 3), float("-inf")).triu(1).expand(2, 1, 3, 3),
            "position_ids": torch.tensor([[0, 1, 1000], [7, 100_000, 100_001]]),
            "position_embeddings": (random(2, 3, layer.head_dim), random(2, 3, layer.head_dim)),
        }
        with torch.inference_mode():
            wanted, got = stock(**inputs), layer(**inputs)
        equal = bool((got - wanted).abs().max() <= TOLERANCE * wanted.std())
    except Exception:  # a layer of another release's is called as it does not expect
        return None
    return layer if equal else None


def _norm(stock: Any) -> RootMeanSquareNorm:
    return RootMeanSquareNorm(stock.weight, stock.variance_epsilon)
