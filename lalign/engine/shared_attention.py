"""Attention of rows over their own tokens and over a prefix they share, which is kept and read once (design section 6).

Softmax over both parts is the sum of the softmax over each, weighted by their share of the whole: all it takes are the
log-sum-exps of the scores, which the CPU's flash kernel gives. So the keys and values of a prefix are read once for all
the rows behind it, and every row keeps its own tokens alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# The name under which transformers knows it.
NAME = "lalign_shared"
# What attention functions are given that changes nothing here; anything else that is set is a kind not known.
KNOWN = {"position_ids", "use_cache", "output_attentions", "is_causal", "cache_position", "logits_to_keep"}


class SharedPart(NamedTuple):
    """A prefix of one layer, and what selects the rows behind it; keys and values `[heads, tokens, head size]`."""

    rows: Tensor | slice
    keys: Tensor
    values: Tensor


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **given: Any,
) -> tuple[Tensor, None]:
    """As transformers' own attention functions; a store leaves what rows share on `key`, as `shared`.

    query: `[rows, heads, new, head size]`; key, value: `[rows, kv heads, columns, head size]`; attention_mask: bool or
    added to the scores, `[rows, 1, new, columns]`. Returns `[rows, new, heads, head size]`.

    Raises `NotImplementedError` for settings of attention that it does not know.
    """
    shared: list[SharedPart] | None = getattr(key, "shared", None)
    if not shared and query.shape[2] > 1:
        stock: Any = ALL_ATTENTION_FUNCTIONS["sdpa"]
        output, _ = stock(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **given)
        return output, None
    if unknown := sorted(name for name, value in given.items() if value is not None and name not in KNOWN):
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    rows, heads, new, size = query.shape
    kv_heads = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    # Heads that read the same keys stand under one another, as so many queries of one head.
    grouped = query.reshape(rows, kv_heads, -1, size)
    if attention_mask is None and new > 1:  # where nothing is padding, transformers leaves causality to the kernel
        columns = key.shape[2]
        attention_mask = torch.ones(1, 1, new, columns, dtype=torch.bool).tril(columns - new)
    own, weight = _flash(grouped, key, value, scale, _bias(attention_mask, heads // kv_heads, query.dtype))
    for part in shared or ():
        behind = grouped[part.rows]
        queries = behind.transpose(0, 1).reshape(1, kv_heads, -1, size)
        output, its_weight = _flash(queries, part.keys.unsqueeze(0), part.values.unsqueeze(0), scale, None)
        output = output.view(kv_heads, len(behind), -1, size).transpose(0, 1)
        its_weight = its_weight.view(kv_heads, len(behind), -1).transpose(0, 1)
        # In a step every row has a token of its own; among those of a prompt there is padding.
        joined = _joined_step if new == 1 else _joined
        own[part.rows] = joined(own[part.rows], weight[part.rows], output, its_weight)
    return own.view(rows, heads, new, size).transpose(1, 2), None


def _flash(query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs `[rows, heads, queries, size]`, and log-sum-exps of the scores `[rows, heads, queries]`."""
    output, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=bias, scale=scale
    )
    return output, weight.reshape(query.shape[:3])


def _bias(mask: Tensor | None, repeats: int, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores, for queries of `repeats` heads under one another."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, float("-inf"))
    return mask.repeat(1, 1, repeats, 1) if mask.shape[2] > 1 else mask


def _joined(first: Tensor, first_weight: Tensor, second: Tensor, second_weight: Tensor) -> Tensor:
    """The output over both parts; a row may have no token of its own yet, and then has the prefix alone."""
    whole = torch.logaddexp(first_weight, second_weight)
    share = (first_weight - whole).exp().unsqueeze(-1)
    return torch.where(share > 0, first * share, 0) + second * (second_weight - whole).exp().unsqueeze(-1)


def _joined_step(first: Tensor, first_weight: Tensor, second: Tensor, second_weight: Tensor) -> Tensor:
    """As `_joined`, where both parts hold a token."""
    return first.lerp(second, (second_weight - first_weight).sigmoid_().unsqueeze(-1))


def _added(*args: Any, **kwargs: Any) -> Tensor | None:
    """The mask of transformers' own as what is added to the scores: made once a pass, not in every layer."""
    mask = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](*args, **kwargs)
    return mask if mask is None else torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, float("-inf"))


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _added)
