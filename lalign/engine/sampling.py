"""From aligned logits to a token (design section 5). Pure functions of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lalign.options import Sampling


def warpers(sampling: Sampling) -> Any:
    """The settings as a list of transformers' own processors, in the order its `generate` has them; empty for none."""
    is_plain = sampling.temperature == 1 and not sampling.top_k and sampling.top_p == 1 and not sampling.min_p
    if sampling.repetition_penalty == 1 and (sampling.temperature == 0 or is_plain):
        return []
    # Seconds to import, which decoding as the model says, on an engine without transformers, need not spend.
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature == 0:
        return processors
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(float(sampling.top_p)))
    if sampling.min_p:
        processors.append(MinPLogitsWarper(float(sampling.min_p)))
    return processors


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row: `[rows, vocab]` -> `[rows]`."""
    return logits.argmax(-1)


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One token a row by inversion of the distribution function: `[rows, vocab]`, `[rows]` in [0, 1) -> `[rows]`.

    A row's token depends on that row alone, so that it is the same whatever batch the row shares. float64, since
    rounding in a sum over the vocabulary would otherwise be as large as the probability of a rare token (but on mps,
    which has no float64).
    """
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = logits.softmax(-1).to(wide).cumsum(-1)
    target = uniforms.to(cumulative).unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return tokens.clamp_max_(logits.shape[-1] - 1)
