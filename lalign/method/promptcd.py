"""PromptCD: contrastive decoding between two prompts, among the tokens that the wanted one finds plausible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lalign.method.affine import Less
from lalign.method.aligned import Aligned

if TYPE_CHECKING:
    from torch import Tensor

# A token is plausible from this share of the likeliest one's probability on; and so many always are.
LEAST_SHARE = 0.01
FEWEST_KEPT = 5


@dataclass(frozen=True)
class PromptCd(Less):
    """l_p - 0.5 l_b, where l_p is at least min(max l_p + ln 0.01, the 5th largest l_p); elsewhere -inf.

    Polarity-prompt contrastive decoding (Bi et al. 2026, arXiv:2602.20696), which cuts as the program of DoLa does. The
    unwanted prompt is the base row, or a `--contrast`. As with every support, statistics and `max_kl` are of the logits
    before the cut.
    """

    recipe: str = "promptcd"
    ratio: float = 0.5

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        log_principled = principled.log_softmax(-1)
        largest = log_principled.topk(min(FEWEST_KEPT, log_principled.shape[-1]), dim=-1).values
        floor = (largest[:, :1] + math.log(LEAST_SHARE)).minimum(largest[:, -1:])
        return super().update(base, principled, strength, state)._replace(allowed=log_principled >= floor)
