"""The trust-region update of Linear Alignment (design section 2; Gao et al. 2024, Eq. 8-11).

Pure functions of tensors. Rows are independent; everything is `[rows, vocab]` float32 unless said otherwise.
Symbols of the paper: `base` is mu_0, `principled` mu_1, `shift` d = mu_1 - mu_0, `step` s.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lalign.options import Alignment, Scale

# How many of the likeliest tokens are looked at before the whole vocabulary is sorted: a nucleus is rarely larger.
NUCLEUS_CANDIDATES = 64
# max_kl is met from below to within this many nats.
KL_TOLERANCE = 1e-3
KL_BISECTIONS = 40


class Aligned(NamedTuple):
    """The outcome of one update.

    logits: aligned logits over the whole vocabulary `[rows, vocab]`, before the support is applied.
    shift: d, with entries that are not finite set to zero `[rows, vocab]`.
    step: what was added to the anchor `[rows, vocab]`.
    ratio: the ratio in force, after `max_kl` `[rows]`.
    """

    logits: Tensor
    shift: Tensor
    step: Tensor
    ratio: Tensor


def combine(base: Tensor, principled: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """The logits of all principles together, mu_0 + sum_k w_k (mu_k - mu_0) (Eq. 11). `[rows, vocab]`.

    One principle of weight 1 is returned as it is, to the bit.
    """
    if len(principled) == 1 and weights == (1.0,):
        return principled[0]
    total = base.clone()
    for logits, weight in zip(principled, weights, strict=True):
        total += weight * preference(base, logits)
    return total


def preference(base: Tensor, principled: Tensor) -> Tensor:
    """The direction of preference d = mu_1 - mu_0; zero where it is not finite (padded vocabulary, -inf)."""
    shift = principled - base
    return shift.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def trust_region_step(shift: Tensor, ratio: Tensor, p: float, scale: Scale = "relative") -> Tensor:
    """The exact maximiser of <d, s> in an l_p ball, sized by `ratio` (Eq. 10; design section 2).

    relative: ||s||_2 = ratio * ||d||_2. absolute: s = ratio * sign(d) (|d| / ||d||_2)^(1/(p-1)).

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
    direction = _powered(shift, shift.abs().amax(-1, keepdim=True), p)
    size = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    step: Tensor = direction * (ratio * length / size.clamp_min(torch.finfo(shift.dtype).tiny))
    return step


def _powered(shift: Tensor, unit: Tensor, p: float) -> Tensor:
    """sign(d) (|d| / unit)^(1/(p-1)), with its limits at p = 1 (ones where |d| = unit) and p = inf (sign(d))."""
    if p == math.inf:
        return shift.sign()
    relative = shift.abs() / unit.clamp_min(torch.finfo(shift.dtype).tiny)
    if p == 1:
        return shift.sign() * (relative >= 1)
    return shift.sign() * relative.pow(1 / (p - 1))


def align(base: Tensor, principled: Tensor, ratio: Tensor, settings: Alignment) -> Aligned:
    """The aligned logits of one step (design section 2).

    Args:
        base: `[rows, vocab]`.
        principled: `[rows, vocab]`.
        ratio: `[rows]`; it stands in for `settings.ratio`, which may differ from row to row.
        settings: everything else, the same for all rows.
    """
    shift = preference(base, principled)
    step = trust_region_step(shift, ratio, settings.p, settings.scale)
    anchor = base if settings.anchor == "base" else principled
    logits = anchor + step
    if settings.max_kl is not None:
        move = preference(base, logits)
        share = kl_share(base, move, settings.max_kl).unsqueeze(-1)
        # What is within the bound stays to the bit; but an entry that one side alone has at -inf would break it.
        kept = (share >= 1) & (logits - base).isfinite()
        logits = torch.where(kept, logits, base + share * move)
        step, ratio = step * share, ratio * share.squeeze(-1)
    return Aligned(logits, shift, step, ratio)


def kl_share(base: Tensor, move: Tensor, max_kl: float) -> Tensor:
    """The largest t in [0, 1] for which KL(softmax(base + t move) || softmax(base)) <= max_kl nats. `[rows]`.

    The divergence grows with t, so it is found by bisection over all rows at once, from below, to within
    `KL_TOLERANCE` nats, or a tenth of a smaller `max_kl`: constraint (3) of the paper, enforced. A row's share
    depends on that row alone.
    """
    enough = max_kl - min(KL_TOLERANCE, max_kl / 10)
    reference = base.log_softmax(-1)

    def divergence(share: Tensor) -> Tensor:
        logprobs = (reference + share.unsqueeze(-1) * move).log_softmax(-1)
        difference = (logprobs - reference).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        nats: Tensor = torch.linalg.vecdot(logprobs.exp(), difference)
        return nats

    high = torch.ones(base.shape[0], dtype=base.dtype, device=base.device)
    met = divergence(high) <= max_kl
    low = met.to(base)
    for _ in range(KL_BISECTIONS):
        if bool(met.all()):
            break
        middle = (low + high) / 2
        nats = divergence(middle)
        inside = nats <= max_kl
        low, high = torch.where(inside & ~met, middle, low), torch.where(inside, high, middle)
        met |= inside & (nats >= enough)
    return low


def restrict_to_nucleus(logits: Tensor, principled: Tensor, top_p: float, temperature: float) -> Tensor:
    """`logits` with -inf outside the nucleus of the principled twin (design section 2, `support`).

    The nucleus of softmax(mu_1 / temperature) keeps a token while the mass before it, in order of probability, is
    below `top_p`; so at least one. `[rows, vocab]`.
    """
    scaled = principled / temperature
    normaliser = scaled.logsumexp(-1, keepdim=True)
    # On an accelerator sorting is cheap and looking at a result is not; on a CPU it is the other way round.
    vocab = logits.shape[-1]
    candidates = min(NUCLEUS_CANDIDATES, vocab) if logits.device.type == "cpu" else vocab
    kept, indices = _nucleus(scaled, normaliser, top_p, candidates)
    if candidates < vocab and bool(kept[:, -1].any()):
        kept, indices = _nucleus(scaled, normaliser, top_p, vocab)
    chosen = logits.gather(-1, indices).masked_fill_(~kept, -math.inf)
    return torch.full_like(logits, -math.inf).scatter_(-1, indices, chosen)


def _nucleus(scaled: Tensor, normaliser: Tensor, top_p: float, candidates: int) -> tuple[Tensor, Tensor]:
    """Which of the likeliest `candidates` tokens the nucleus keeps, and their ids: both `[rows, candidates]`."""
    if candidates < scaled.shape[-1]:
        values, indices = scaled.topk(candidates, dim=-1)
    else:
        values, indices = scaled.sort(dim=-1, descending=True)
    probabilities = (values - normaliser).exp()
    before = probabilities.cumsum(-1) - probabilities
    return before < top_p, indices
