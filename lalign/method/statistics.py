"""What a step of alignment did to the distribution, in nats (design section 3).

Pure functions of tensors: full vocabulary, temperature 1, before support, top-k and top-p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lalign.method.aligned import STATISTICS, Aligned

# Log-probability zero has none; this stands in for it, so that 0 * log 0 comes out as 0.
LOG_ZERO = -1e30


def step_statistics(base: Tensor, principled: Tensor, aligned: Aligned, tokens: Tensor, p: float) -> Tensor:
    """The statistics of one step, in the order of `STATISTICS`: `[rows, len(STATISTICS)]` float32.

    Args:
        base: `[rows, vocab]` logits.
        principled: `[rows, vocab]` logits.
        aligned: the update made of the two.
        tokens: the token taken by each row `[rows]`.
        p: the norm in which the step is measured.
    """
    logprobs = [_log_softmax(logits) for logits in (base, principled, aligned.logits)]
    log_base, log_principle, log_aligned = logprobs
    probs_base, probs_principle, probs_aligned = (values.exp() for values in logprobs)
    taken = tokens.unsqueeze(-1)
    columns = (
        _divergence(probs_aligned, log_aligned, log_base),
        _divergence(probs_principle, log_principle, log_base),
        -torch.linalg.vecdot(probs_base, log_base),
        -torch.linalg.vecdot(probs_aligned, log_aligned),
        _norm(aligned.shift, 2),
        _norm(aligned.step, p),
        log_base.gather(-1, taken).squeeze(-1),
        log_principle.gather(-1, taken).squeeze(-1),
        log_aligned.gather(-1, taken).squeeze(-1),
        aligned.ratio,
        (aligned.logits.argmax(-1) != base.argmax(-1)).float(),
    )
    return torch.stack(columns, dim=-1)


def divergence(logits: Tensor, base: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(base)) in nats, as `step_statistics` has it: `[rows]`."""
    logprobs = _log_softmax(logits)
    return _divergence(logprobs.exp(), logprobs, _log_softmax(base))


def _divergence(probabilities: Tensor, logprobs: Tensor, reference: Tensor) -> Tensor:
    nats: Tensor = torch.linalg.vecdot(probabilities, logprobs - reference)
    return nats.clamp_min_(0)


def _norm(values: Tensor, p: float) -> Tensor:
    """The p-norm of each row, whether or not float32 holds its powers."""
    norm: Tensor = torch.linalg.vector_norm(values, ord=p, dim=-1)
    if bool(norm.isfinite().all()):
        return norm
    unit = values.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    norm = torch.linalg.vector_norm(values / unit, ord=p, dim=-1)
    return norm * unit.squeeze(-1)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1).clamp_min_(LOG_ZERO)


def columns(
    steps: Sequence[NDArray[np.float32]] | NDArray[np.float32], names: tuple[str, ...] = STATISTICS
) -> dict[str, NDArray[Any]]:
    """The steps of a response, `[len(names)]` each, as one array per statistic: float32, and `flipped` as booleans."""
    table = np.asarray(steps, dtype=np.float32).reshape(len(steps), len(names))
    arrays: dict[str, NDArray[Any]] = {name: np.ascontiguousarray(table[:, index]) for index, name in enumerate(names)}
    arrays["flipped"] = arrays["flipped"] != 0
    return arrays


def summarise(columns: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The statistics of a whole response: mean, max and sum of each divergence, and means of the rest."""
    if not len(columns["flipped"]):
        return {}
    summary: dict[str, float] = {}
    for name in ("kl_aligned_base", "kl_principle_base"):
        values = columns[name].astype(np.float64)
        summary |= {f"{name}_mean": values.mean(), f"{name}_max": values.max(), f"{name}_sum": values.sum()}
    summary["flipped_share"] = columns["flipped"].mean()
    for name in ("logprob_base", "logprob_principle", "logprob_aligned"):
        summary[f"{name}_mean"] = columns[name].mean(dtype=np.float64)
    return {name: float(value) for name, value in summary.items()}
