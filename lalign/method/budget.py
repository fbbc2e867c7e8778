"""Steps measured in nats: how long a step is for KL(aligned || base) to be what was asked for (docs/method.md).

Pure functions of tensors. Rows are independent; everything is `[rows, vocab]` float32 unless said otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lalign.method.aligned import Aligned
from lalign.method.gauge import difference

# A budget is met from below to within so many nats, or a twentieth of a smaller budget.
KL_TOLERANCE = 5e-4
EVALUATIONS = 60
# Entries of a move that differ by less than a millionth of its range are alike.
RESOLUTION = 1e6


def opened(kl_total: float, tokens: list[int], device: torch.device) -> Tensor:
    """The budgets of responses before their first step: nats left, and tokens they may yet take. `[rows, 2]`."""
    budgets = [[kl_total, float(most)] for most in tokens]
    return torch.tensor(budgets, dtype=torch.float32).to(device)


def share_of(budget: Tensor) -> Tensor:
    """The nats that this step may spend: what is left, divided by the tokens that may come. `[rows]`."""
    return budget[:, 0] / budget[:, 1].clamp_min(1)


def spent(budget: Tensor, nats: Tensor) -> Tensor:
    """The budget after a step of `nats` `[rows]`: `[rows, 2]`."""
    return torch.stack([(budget[:, 0] - nats).clamp_min(0), budget[:, 1] - 1], dim=-1)


def within_kl(base: Tensor, aligned: Aligned, most: Tensor) -> Aligned:
    """Each row's move away from `base` shrunk until KL(aligned || base) is at most `most` nats `[rows]`."""
    move = _move(base, aligned)
    share = kl_share(base, move, most, longest=1.0)
    moved = _moved(base, aligned, move, share)
    # What is within the bound stays to the bit; but an entry that one side alone has at -inf would break it.
    kept = (share >= 1).unsqueeze(-1) & (aligned.logits - base).isfinite()
    return moved._replace(logits=torch.where(kept, aligned.logits, moved.logits))


def at_kl(base: Tensor, aligned: Aligned, nats: Tensor) -> Aligned:
    """Each row's move away from `base` made as long as it takes for KL(aligned || base) to be `nats` `[rows]`.

    Where no length reaches that, the move ends where the divergence stops growing.
    """
    move = _move(base, aligned)
    return _moved(base, aligned, move, kl_share(base, move, nats))


def _move(base: Tensor, aligned: Aligned) -> Tensor:
    return difference(base, aligned.logits) if aligned.move is None else aligned.move


def _moved(base: Tensor, aligned: Aligned, move: Tensor, share: Tensor) -> Aligned:
    # Counted from the token that gains most, so that a long move keeps the digits of those near the top.
    counted = move - _top(base, move)
    return aligned._replace(
        logits=torch.where((share > 0).unsqueeze(-1), base + share.unsqueeze(-1) * counted, base),
        step=aligned.step * share.unsqueeze(-1),
        ratio=aligned.ratio * share,
    )


def kl_share(base: Tensor, move: Tensor, nats: Tensor, longest: float = math.inf) -> Tensor:
    """The largest t up to `longest` for which KL(softmax(base + t move) || softmax(base)) <= nats. `[rows]`.

    The divergence K(t) grows with t, K' = t Var_t(move), up to where all probability is with the tokens that gain
    most. t is met from below, to within `KL_TOLERANCE`, or where K stops growing: constraint (3) of the paper,
    enforced. A row's share depends on that row alone.

    Args:
        base: logits.
        move: finite.
        nats: `[rows]`, >= 0.
    """
    reference = base.log_softmax(-1)
    move = move - _top(base, move)
    width = -move.masked_fill(reference == -math.inf, 0.0).amin(-1)
    move = move.masked_fill(move >= -(width / RESOLUTION).unsqueeze(-1), 0.0)
    tolerance = (nats / 20).clamp_max(KL_TOLERANCE)
    if longest < math.inf:
        high = torch.full_like(nats, longest)
        met = _divergence(reference, move, high)[0] <= nats
        share = torch.where(met, high, 0.0)
        most = nats - tolerance / 10
    else:
        limit = -reference.masked_fill(move < 0, -math.inf).logsumexp(-1)
        most = torch.minimum(nats, limit - tolerance) - tolerance / 10
        high = 100 * RESOLUTION / width.clamp_min(1e-20)
        met = ~(most > tolerance)
        share = torch.zeros_like(nats)
    return _searched(reference, move, most, tolerance, (share, high, met))


def _searched(
    reference: Tensor, move: Tensor, most: Tensor, tolerance: Tensor, found: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """The t of rows that are not `met`, K(t) in [most - tolerance, most], between `low` and `high`: `[rows]`.

    Newton's method on the root of K, which is a straight line near 0, so that a few evaluations do; a bracket
    guards it, and what it returns has been seen to be at most `most`.
    """
    low, high, met = found
    aim = (most - tolerance / 2).clamp_min(0).sqrt()
    spread = torch.linalg.vecdot(reference.exp(), move.square()) - torch.linalg.vecdot(reference.exp(), move).square()
    share = torch.minimum(aim * (2 / spread.clamp_min(1e-30)).sqrt(), high)
    for _ in range(EVALUATIONS):
        if bool(met.all()):
            break
        divergence, growth = _divergence(reference, move, share)
        inside = divergence <= most
        low, high = torch.where(inside & ~met, share, low), torch.where(inside | met, high, share)
        met = met | (inside & (divergence >= most - tolerance))
        root = divergence.clamp_min(0).sqrt()
        newton = share + 2 * root * (aim - root) / growth
        guarded = torch.where(low > 0, torch.minimum((low * high).sqrt(), 4 * low), high / 4)
        share = torch.where((newton > low) & (newton < high), newton, guarded)
    return low


def _divergence(reference: Tensor, move: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """K(t) = KL(softmax(reference + t move) || softmax(reference)) and its derivative, both `[rows]`."""
    moved = torch.addcmul(reference, share.unsqueeze(-1), move)
    normaliser = moved.logsumexp(-1, keepdim=True)
    probabilities = (moved - normaliser).exp_()
    weighted = probabilities.mul_(move)
    mean = weighted.sum(-1)
    variance = torch.linalg.vecdot(weighted, move) - mean.square()
    # The reference adds up to 1 but for rounding, which a small divergence would not survive.
    nats = share * mean - (normaliser.squeeze(-1) - reference.logsumexp(-1))
    return nats, share * variance.clamp_min(0)


def _top(base: Tensor, move: Tensor) -> Tensor:
    """The most that a token which the base allows gains: `[rows, 1]`."""
    return move.masked_fill(base == -math.inf, -math.inf).amax(-1, keepdim=True)
