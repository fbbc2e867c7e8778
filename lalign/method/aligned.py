"""What a recipe makes of one step, and the names of what is measured of it. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

STATISTICS = (
    "kl_aligned_base",
    "kl_principle_base",
    "entropy_base",
    "entropy_aligned",
    "shift_norm",
    "step_norm",
    "logprob_base",
    "logprob_principle",
    "logprob_aligned",
    "ratio",
    "flipped",
)


class Aligned(NamedTuple):
    """What a recipe makes of one step.

    logits: aligned logits over the whole vocabulary `[rows, vocab]`, before the support is applied.
    shift: d, the direction of preference, with entries that are not finite set to zero `[rows, vocab]`.
    step: what was added to the anchor `[rows, vocab]`.
    ratio: the ratio in force, after `max_kl` `[rows]`.
    allowed: the tokens that may be taken, bool `[rows, vocab]`; None for all.
    state: what the sequence carries to its next step `[rows, ...]`; None for nothing.
    """

    logits: Tensor
    shift: Tensor
    step: Tensor
    ratio: Tensor
    allowed: Tensor | None = None
    state: Tensor | None = None

    def final(self) -> Tensor:
        """The logits to draw from: -inf where a token may not be taken. `[rows, vocab]`."""
        return self.logits if self.allowed is None else self.logits.masked_fill(~self.allowed, float("-inf"))
