"""OPAD: the step before lends its shift to this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lalign.method.aligned import Aligned
from lalign.method.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Opad(Recipe):
    """First token: p. Then p_t + c[(l_p - l_b)_t + (l_p - l_b)_{t-1}], c = 1: on-the-fly preference alignment (Zhu et
    al. 2025, ICLR, arXiv:2502.14204). The authors take c = 0.5 for P-soups.

    What a sequence carries on is the last step's whole shift, over the vocabulary. In their program the row before
    that of the second token is the mean of the logits over all positions of the prompt. An engine gives the logits of
    the last position alone, so that here it is the row at which the first token was drawn; for a prompt of one token
    that is the same. In `replay` it is the first row.
    """

    recipe: str = "opad"
    ratio: float = 1.0

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        from lalign.method.gauge import preference

        log_base, log_principled = base.log_softmax(-1), principled.log_softmax(-1)
        shift = preference(log_base, log_principled)
        if state is None:
            return Aligned(log_principled, shift, shift * 0, strength * 0, state=shift)
        step = strength.unsqueeze(-1) * (shift + state)
        return Aligned(log_principled + step, shift, step, strength, state=shift)
