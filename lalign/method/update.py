"""The trust-region update of Linear Alignment (design section 2; Gao et al. 2024, Eq. 8-11).

Pure functions of tensors. Rows are independent; everything is `[rows, vocab]` float32 unless said otherwise.
Symbols of the paper: `base` is mu_0, `principled` mu_1, `shift` d, the direction of preference, `step` s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lalign.method.gauge import difference, peaked

# On a CPU so many of the likeliest tokens are looked at, then the next number in rows whose nucleus is larger, before a
# whole row is sorted: that takes five times as long as to find its likeliest 4,096.
NUCLEUS_CANDIDATES = (64, 4096)


def combine(base: Tensor, principled: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """The logits of all principles together, mu_0 + sum_k w_k (mu_k - mu_0) (Eq. 11). `[rows, vocab]`.

    One principle of weight 1 is returned as it is, to the bit.
    """
    if len(principled) == 1 and weights == (1.0,):
        return principled[0]
    total = base.clone()
    for logits, weight in zip(principled, weights, strict=True):
        total += weight * difference(base, logits)
    return total


def trust_region_step(shift: Tensor, ratio: Tensor, p: float, scale: str = "relative") -> Tensor:
    """The exact maximiser of <d, s> in an l_p ball, sized by `ratio` (Eq. 10; design section 2).

    relative: ||s||_2 = ratio * ||d||_2. norm: ||s||_p = ratio, the radius of the ball.
    absolute: s = ratio * sign(d) (|d| / ||d||_2)^(1/(p-1)).

    Args:
        shift: d, finite, `[rows, vocab]`.
        ratio: `[rows]`, >= 0.
        p: in [1, inf]; above 1 for the absolute scale.
    """
    ratio = ratio.unsqueeze(-1)
    if scale == "relative" and p == 2:
        return ratio * shift
    length = torch.linalg.vector_norm(shift, dim=-1, keepdim=True)
    if scale == "absolute":
        return ratio * _powered(shift, length, p)
    # Its largest entry is 1, so that its norms are at least 1, but where there is no shift at all.
    direction = _powered(shift, shift.abs().amax(-1, keepdim=True), p)
    order = p if scale == "norm" else 2
    size = torch.linalg.vector_norm(direction, ord=order, dim=-1, keepdim=True).clamp_min(1)
    step: Tensor = direction * (ratio if scale == "norm" else ratio * length) / size
    return step


def _powered(shift: Tensor, unit: Tensor, p: float) -> Tensor:
    """sign(d) (|d| / unit)^(1/(p-1)), with its limits at p = 1 (ones where |d| = unit) and p = inf (sign(d))."""
    if p == math.inf:
        return shift.sign()
    relative = shift.abs() / unit.clamp_min(torch.finfo(shift.dtype).tiny)
    if p == 1:
        return shift.sign() * (relative >= 1)
    return shift.sign() * relative.pow(1 / (p - 1))


def restrict_to_nucleus(logits: Tensor, principled: Tensor, top_p: float, temperature: float) -> Tensor:
    """`logits` with -inf outside the nucleus of the principled twin (design section 2, `support`). `[rows, vocab]`."""
    return logits.masked_fill(~nucleus(principled, top_p, temperature), -math.inf)


def nucleus(principled: Tensor, top_p: float, temperature: float) -> Tensor:
    """Which tokens the nucleus of the principled twin holds: bool `[rows, vocab]`.

    The nucleus of softmax(mu_1 / temperature) keeps a token while the mass before it, in order of probability, is
    below `top_p`; so at least one.
    """
    scaled = peaked(principled) / temperature
    vocab = principled.shape[-1]
    # On an accelerator sorting is cheap and looking at a result is not; on a CPU it is the other way round.
    first = [count for count in NUCLEUS_CANDIDATES if count < vocab] if principled.device.type == "cpu" else []
    return _allowed(scaled, scaled.logsumexp(-1, keepdim=True), top_p, [*first, vocab])


def _allowed(scaled: Tensor, normaliser: Tensor, top_p: float, candidates: list[int]) -> Tensor:
    """The nucleus, looked for among the first number of candidates; of rows that keep them all, among the next."""
    kept, indices = _nucleus(scaled, normaliser, top_p, candidates[0])
    allowed = torch.zeros_like(scaled, dtype=torch.bool).scatter_(-1, indices, kept)
    if len(candidates) > 1 and bool((larger := kept[:, -1]).any()):
        allowed[larger] = _allowed(scaled[larger], normaliser[larger], top_p, candidates[1:])
    return allowed


def _nucleus(scaled: Tensor, normaliser: Tensor, top_p: float, candidates: int) -> tuple[Tensor, Tensor]:
    """Which of the likeliest `candidates` tokens the nucleus keeps, and their ids: both `[rows, candidates]`."""
    if candidates < scaled.shape[-1]:
        values, indices = scaled.topk(candidates, dim=-1)
    else:
        values, indices = scaled.sort(dim=-1, descending=True)
    probabilities = (values - normaliser).exp()
    before = probabilities.cumsum(-1) - probabilities
    return before < top_p, indices
