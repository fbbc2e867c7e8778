"""Linear Alignment (Gao et al., ICML 2024, Eq. 8-11) as a recipe (design section 2)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from lalign import validation
from lalign.method.aligned import Aligned
from lalign.method.recipe import Needs, Recipe, Support

if TYPE_CHECKING:
    from torch import Tensor

Scale = Literal["relative", "absolute", "norm", "kl"]
Anchor = Literal["base", "principle"]
Direction = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Alignment(Recipe):
    """One point of the trust-region update (design section 2).

    scale: "relative" to the shift's own length, "absolute" as Eq. 10 has it, "norm" for the radius of the ball, "kl".
    direction: what the gradient is taken to be, a difference of "logits" or of "probabilities".

    Raises `OptionError` where a value is out of range: p in [1, inf], ratio >= 0, support_top_p in (0, 1],
    support_temperature > 0, budgets of at least `LEAST_NATS` or None.
    """

    recipe: str = "lalign"
    ratio: float = 1.5
    support: Support = "principle"
    p: float = 2.0
    anchor: Anchor = "base"
    direction: Direction = "logits"

    scales: ClassVar[tuple[str, ...]] = get_args(Scale)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale == "absolute":  # Eq. 10 has no value at p = 1, where the exponent is infinite
            validation.number("p", self.p, above=1, infinite=True)
        else:
            validation.number("p", self.p, low=1, infinite=True)
        validation.choice("anchor", self.anchor, get_args(Anchor))
        validation.choice("direction", self.direction, get_args(Direction))

    @property
    def is_base(self) -> bool:
        return super().is_base or (self.anchor == "base" and self.ratio == 0)

    @property
    def is_principle(self) -> bool:
        """True where the logits of the step are those of the principled twin, so that no base row is needed."""
        if self.is_measured:
            return False
        return self.ratio == 0 if self.anchor == "principle" else self.ratio == 1 and self.is_line

    @property
    def is_line(self) -> bool:
        """True where the ratio goes along the straight line through the twins, with the base twin at 0."""
        on_line = self.scale == "relative" and self.p == 2 and self.direction == "logits"
        return on_line and self.anchor == "base"

    @property
    def point(self) -> dict[str, str | float]:
        return {**super().point, "p": self.p}

    @property
    def curve(self) -> str:
        return f"{self.recipe}, p = {self.p:g}"

    @property
    def norm(self) -> float:
        return self.p

    def needs(self, weights: tuple[float, ...]) -> Needs:
        if self.is_base:
            return "base"
        return "principled" if self.is_principle and weights == (1.0,) else "both"

    def likeness(self) -> Hashable:
        # The presets are one method, and what is left of their options tells them apart.
        return self.is_base, replace(self, ratio=1.0, recipe="lalign")

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        from lalign.method.gauge import preference
        from lalign.method.update import trust_region_step

        shift = preference(base, principled, self.direction)
        step = trust_region_step(shift, strength, self.p, "relative" if self.scale == "kl" else self.scale)
        aligned = (base if self.anchor == "base" else principled) + step
        if self.is_line and bool((at_principle := strength == 1).any()):
            # To the bit what the principled twin alone has.
            aligned = aligned.where(~at_principle.unsqueeze(-1), principled)
        return Aligned(aligned, shift, step, strength, move=step if self.anchor == "base" else None)
