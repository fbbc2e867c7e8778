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

# The distributions of a step: the one that a token is drawn from, at temperature 1, and those of the twins.
DISTRIBUTIONS = ("aligned", "base", "principle")

FLOAT32_MAX = 3.4e38


def likeliest_width(count: int) -> int:
    """How many columns `likeliest.likeliest` has for so many tokens of each distribution; 0 for none."""
    return len(DISTRIBUTIONS) * (1 + 2 * count) if count else 0


class Aligned(NamedTuple):
    """What a recipe makes of one step.

    logits: aligned logits, up to a constant a row, over the whole vocabulary `[rows, vocab]`, before the support is
        applied.
    shift: d, the direction of preference, in the gauge of `lalign.method.gauge` `[rows, vocab]`.
    step: what was added to the anchor `[rows, vocab]`.
    ratio: the ratio in force, after `max_kl` `[rows]`.
    allowed: the tokens that may be taken, bool `[rows, vocab]`; None for all.
    state: what the sequence carries to its next step `[rows, ...]`, of a recipe's own `[rows, n]`; None for nothing.
    move: what was added to the base logits, where that is known to more digits than their difference has.
    """

    logits: Tensor
    shift: Tensor
    step: Tensor
    ratio: Tensor
    allowed: Tensor | None = None
    state: Tensor | None = None
    move: Tensor | None = None

    def final(self) -> Tensor:
        """The logits to draw from: -inf where a token may not be taken. `[rows, vocab]`."""
        return self.logits if self.allowed is None else self.logits.masked_fill(~self.allowed, float("-inf"))

    def sound(self, final: Tensor) -> Tensor:
        """Which rows float32 could hold, bool `[rows]`: the `final` logits, and the norm of the step."""
        # The maximum carries nan and inf, and is -inf where nothing is left.
        longest = self.step.abs().amax(-1)
        return final.amax(-1).isfinite() & (longest < FLOAT32_MAX / self.step.shape[-1])
