"""The trust-region update of Linear Alignment (design section 2; Gao et al. 2024, Eq. 8-11).

Pure functions of tensors. Rows are independent; everything is `[rows, vocab]` float32 unless said otherwise.
Symbols of the paper: `base` is mu_0, `principled` mu_1, `shift` d = mu_1 - mu_0, `step` s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lalign.method.aligned import Aligned

# How many of the likeliest tokens are looked at before the whole vocabulary is sorted: a nucleus is rarely larger.
NUCLEUS_CANDIDATES = 64
# max_kl is met from below to within this many nats.
KL_TOLERANCE = 1e-3
KL_BISECTIONS = 40


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


def trust_region_step(shift: Tensor, ratio: Tensor, p: float, scale: str = "relative") -> Tensor:
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


def within_kl(base: Tensor, aligned: Aligned, max_kl: float) -> Aligned:
    """Each row's move away from `base` shrunk until KL(aligned || base) is at most `max_kl` nats."""
    move = preference(base, aligned.logits)
    share = kl_share(base, move, max_kl).unsqueeze(-1)
    # What is within the bound stays to the bit; but an entry that one side alone has at -inf would break it.
    kept = (share >= 1) & (aligned.logits - base).isfinite()
    return aligned._replace(
        logits=torch.where(kept, aligned.logits, base + share * move),
        step=aligned.step * share,
        ratio=aligned.ratio * share.squeeze(-1),
    )


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
    """`logits` with -inf outside the nucleus of the principled twin (design section 2, `support`). `[rows, vocab]`."""
    return logits.masked_fill(~nucleus(principled, top_p, temperature), -math.inf)


def nucleus(principled: Tensor, top_p: float, temperature: float) -> Tensor:
    """Which tokens the nucleus of the principled twin holds: bool `[rows, vocab]`.

    The nucleus of softmax(mu_1 / temperature) keeps a token while the mass before it, in order of probability, is
    below `top_p`; so at least one.
    """
    scaled = principled / temperature
    normaliser = scaled.logsumexp(-1, keepdim=True)
    # On an accelerator sorting is cheap and looking at a result is not; on a CPU it is the other way round.
    vocab = principled.shape[-1]
    candidates = min(NUCLEUS_CANDIDATES, vocab) if principled.device.type == "cpu" else vocab
    kept, indices = _nucleus(scaled, normaliser, top_p, candidates)
    if candidates < vocab and bool(kept[:, -1].any()):
        kept, indices = _nucleus(scaled, normaliser, top_p, vocab)
    return torch.zeros_like(scaled, dtype=torch.bool).scatter_(-1, indices, kept)


def _nucleus(scaled: Tensor, normaliser: Tensor, top_p: float, candidates: int) -> tuple[Tensor, Tensor]:
    """Which of the likeliest `candidates` tokens the nucleus keeps, and their ids: both `[rows, candidates]`."""
    if candidates < scaled.shape[-1]:
        values, indices = scaled.topk(candidates, dim=-1)
    else:
        values, indices = scaled.sort(dim=-1, descending=True)
    probabilities = (values - normaliser).exp()
    before = probabilities.cumsum(-1) - probabilities
    return before < top_p, indices
