"""Linear Alignment (Gao et al., ICML 2024, Eq. 8-11) as a recipe (design section 2)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from lalign import validation
from lalign.method.aligned import Aligned
from lalign.method.recipe import Needs, Recipe, Support

if TYPE_CHECKING:
    from torch import Tensor

Scale = Literal["relative", "absolute"]
Anchor = Literal["base", "principle"]


@dataclass(frozen=True)
class Alignment(Recipe):
    """One point of the trust-region update (design section 2).

    Raises `OptionError` where a value is out of range: p in [1, inf], ratio >= 0, support_top_p in (0, 1],
    support_temperature > 0, max_kl > 0 nats or None.
    """

    recipe: str = "lalign"
    ratio: float = 3.0
    support: Support = "principle"
    p: float = 2.0
    scale: Scale = "relative"
    anchor: Anchor = "base"

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.choice("scale", self.scale, get_args(Scale))
        if self.scale == "absolute":  # Eq. 10 has no value at p = 1, where the exponent is infinite
            validation.number("p", self.p, above=1, infinite=True)
        else:
            validation.number("p", self.p, low=1, infinite=True)
        validation.choice("anchor", self.anchor, get_args(Anchor))

    @property
    def is_base(self) -> bool:
        return self.anchor == "base" and self.ratio == 0

    @property
    def is_principle(self) -> bool:
        """True where the logits of the step are those of the principled twin, so that no base row is needed."""
        if self.max_kl is not None or self.scale != "relative":
            return False
        return self.ratio == 0 if self.anchor == "principle" else self.ratio == 1 and self.p == 2

    @property
    def point(self) -> dict[str, str | float]:
        return {"recipe": self.recipe, "ratio": self.ratio, "p": self.p}

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
        from lalign.method.update import preference, trust_region_step

        shift = preference(base, principled)
        step = trust_region_step(shift, strength, self.p, self.scale)
        anchor = base if self.anchor == "base" else principled
        return Aligned(anchor + step, shift, step, strength)
