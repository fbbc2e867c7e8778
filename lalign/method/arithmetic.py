"""The union and the intersection of model arithmetic (Dekoninck et al. 2024, ICLR, arXiv:2311.14479)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

from lalign.method.aligned import Aligned
from lalign.method.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Extreme(Recipe):
    """Of each token the largest or smallest l_k of all twins, that of the base (or contrast) among them.

    At ratio r it is l_b + r(extreme - l_b): at 1 the operation itself, at 0 the base model. Weights have no meaning.
    """

    weighted: ClassVar[bool] = False

    @property
    def is_base(self) -> bool:
        return super().is_base or self.ratio == 0

    @staticmethod
    @abstractmethod
    def of(first: Tensor, second: Tensor) -> Tensor:
        """The extreme of two rows of log-probabilities, element by element."""

    def merge(self, base: Tensor, principled: list[Tensor], weights: tuple[float, ...]) -> Tensor:
        return reduce(self.of, [logits.log_softmax(-1) for logits in principled])

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        from lalign.method.gauge import difference

        log_base = base.log_softmax(-1)
        ratio = strength.unsqueeze(-1)
        extreme = self.of(log_base, principled)
        shift = difference(log_base, extreme)
        step = ratio * shift
        # An entry of -inf, on either side, takes no step but goes over whole.
        passes = (extreme - log_base).isfinite() | (ratio == 0)
        return Aligned((log_base + step).where(passes, extreme), shift, step, strength, move=step)


@dataclass(frozen=True)
class Union(Extreme):
    """max(l_b, l_1, l_2, ...): a token that any of the twins finds likely."""

    recipe: str = "union"
    ratio: float = 1.0

    @staticmethod
    def of(first: Tensor, second: Tensor) -> Tensor:
        return first.maximum(second)


@dataclass(frozen=True)
class Intersection(Extreme):
    """min(l_b, l_1, l_2, ...): a token that all of the twins find likely."""

    recipe: str = "intersection"
    ratio: float = 1.0

    @staticmethod
    def of(first: Tensor, second: Tensor) -> Tensor:
        return first.minimum(second)
