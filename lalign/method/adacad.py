"""AdaCAD: context-aware decoding whose strength is how far apart the twins are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lalign.method.affine import Along

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AdaCad(Along):
    """p + a_t(p - b), a_t = JSD(softmax p, softmax b) in nats (Wang et al. 2024, arXiv:2409.07394).

    JSD is the Jensen-Shannon divergence, between 0 and ln 2. `ratio` multiplies it, 1 as the authors have it; the
    statistic `ratio` is a_t. Their program takes max(a_t, threshold) with a threshold of 0, which changes nothing.
    """

    recipe: str = "adacad"
    ratio: float = 1.0
    anchor: ClassVar[str] = "principle"

    def in_force(self, log_base: Tensor, log_principled: Tensor, strength: Tensor) -> Tensor:
        return strength * jensen_shannon(log_base, log_principled)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of rows of log-probabilities `[rows, vocab]` in nats: `[rows]`."""
    import torch

    middle = torch.logaddexp(first, second) - math.log(2)
    to_first, to_second = (
        torch.linalg.vecdot(row.exp(), (row - middle).nan_to_num(nan=0.0, neginf=0.0)) for row in (first, second)
    )
    nats: Tensor = ((to_first + to_second) / 2).clamp_min(0)
    return nats
