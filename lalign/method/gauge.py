"""Logits live modulo constants: the one representative of a row that the method works in (docs/method.md).

Pure functions of tensors. Rows are independent; everything is `[rows, vocab]` float32 unless said otherwise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Direction = Literal["logits", "probabilities"]
# A probability below e^-104 is zero in float32.
NO_PROBABILITY = -104.0


def peaked(logits: Tensor) -> Tensor:
    """Each row with its largest entry at 0: exact near the top, so that what follows keeps its digits."""
    return logits - logits.amax(-1, keepdim=True)


def preference(base: Tensor, principled: Tensor, direction: Direction = "logits") -> Tensor:
    """The direction of preference d, which no constant added to either row changes.

    logits: d = log pi_1 - log pi_0, so that d is above 0 where the principle has made a token likelier.
    probabilities: d = pi_1 - pi_0 (Eq. 12).

    Zero where a twin has -inf, and where neither gives any probability (padded vocabulary). Both distributions are
    taken over the tokens that both twins have.
    """
    first, second = base.log_softmax(-1), principled.log_softmax(-1)
    # What follows is for rare rows; where there is none it changes nothing.
    if not bool(torch.minimum(first.amin(), second.amin()) > NO_PROBABILITY):
        here = base.isfinite() & principled.isfinite()
        first = base.masked_fill(~here, -torch.inf).log_softmax(-1)
        second = principled.masked_fill(~here, -torch.inf).log_softmax(-1)
        here &= (first > NO_PROBABILITY) | (second > NO_PROBABILITY)
        first, second = first.masked_fill(~here, -torch.inf), second.masked_fill(~here, -torch.inf)
    if direction == "probabilities":
        return second.exp_() - first.exp_()
    return difference(first, second)


def difference(one: Tensor, other: Tensor) -> Tensor:
    """`other - one`; zero where that is not finite."""
    return (other - one).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
