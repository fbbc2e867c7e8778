"""Published methods that go along one straight line: an anchor, plus or minus a multiple of a row or of the shift.

Notation, here and in the other files of the family: b the logits of the base (or contrast) twin, p those of the
principled one, l their log-softmax. A method's strength is always `ratio`. All is computed on l, which differs from
the logits by a constant that softmax ignores, so that no statistic depends on it either. `docs/recipes.md` tells which
of these are one another at which ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lalign.method.aligned import Aligned
from lalign.method.recipe import Needs, Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Along(Recipe):
    """l_anchor + direction * ratio * (l_p - l_b): the family's affine rule; entries of -inf take no step."""

    anchor: ClassVar[str] = "base"
    direction: ClassVar[int] = 1

    @property
    def is_base(self) -> bool:
        return super().is_base or (self.anchor == "base" and self.ratio == 0)

    def needs(self, weights: tuple[float, ...]) -> Needs:
        if self.is_base:
            return "base"
        return "principled" if self.ratio == 0 and not self.is_measured and weights == (1.0,) else "both"

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        from lalign.method.gauge import preference

        log_base, log_principled = base.log_softmax(-1), principled.log_softmax(-1)
        shift = preference(log_base, log_principled)
        ratio = self.in_force(log_base, log_principled, strength)
        step = self.direction * ratio.unsqueeze(-1) * shift
        if self.anchor == "base":
            return Aligned(log_base + step, shift, step, ratio, move=step)
        return Aligned(log_principled + step, shift, step, ratio)

    def in_force(self, log_base: Tensor, log_principled: Tensor, strength: Tensor) -> Tensor:
        """The multiple of the shift that each row takes: `[rows]`."""
        return strength


@dataclass(frozen=True)
class Cfg(Along):
    """b + r(p - b), r = 1.5: classifier-free guidance (Sanchez et al. 2023, arXiv:2306.17806).

    The paper works with the prompt itself as the principle; 1.5 is the strength of its main table, and of the example
    of transformers' `guidance_scale`.
    """

    recipe: str = "cfg"
    ratio: float = 1.5


@dataclass(frozen=True)
class Preadd(Along):
    """b + s(prefix - b), s = 1: PREADD (Pei et al. 2023, arXiv:2307.03214).

    p is the row with the prefix. The authors' program steers away from a prefix with s = -1: here that is the weight
    of the principle (`--weight -1`), and the ratio its size. Their program leaves out tokens that top-k or top-p takes
    from the base row before the update; here these come after it.
    """

    recipe: str = "preadd"
    ratio: float = 1.0


@dataclass(frozen=True)
class Cad(Along):
    """p + a(p - b), a = 1: context-aware decoding (Shi et al. 2023, arXiv:2305.14739)."""

    recipe: str = "cad"
    ratio: float = 1.0
    anchor: ClassVar[str] = "principle"


@dataclass(frozen=True)
class ContextSteering(Along):
    """l_p + r(l_p - l_b); several contexts: l_b + sum_k r_k (l_k - l_b) (He et al. 2024, arXiv:2405.01768).

    The authors' program has no default strength; r = 1 here. For one context their r is `ratio`; for several each
    has an r_k of its own, which is (1 + ratio) times its weight: `--ratio 0` makes the weights the r_k. They divide
    the logits by the temperature before the update and lalign after it, which is the same.
    """

    recipe: str = "context-steering"
    ratio: float = 1.0
    anchor: ClassVar[str] = "principle"


@dataclass(frozen=True)
class SelfCd(Along):
    """s - r(s - p): Self-CD (Shi et al. 2024, arXiv:2401.17633), which weakens a system text that stresses safety.

    s, the row with that text, stands in the principled row's place, and their p, the row without it, is the base row.
    r = 1 is the base model; below it the text is weakened, above it the model is moved to the other side of it. The
    paper's formula was at hand and its strength was not: r = 2.5 is lalign's.
    """

    recipe: str = "self-cd"
    ratio: float = 2.5
    anchor: ClassVar[str] = "principle"
    direction: ClassVar[int] = -1


@dataclass(frozen=True)
class Less(Recipe):
    """l_p - ratio * l_n: n, a text to keep away from, in the base row's place (`--contrast`).

    The two weights do not add up to 1, so that it is sharper or flatter than an affine rule, with the same likeliest
    token. `step` is -ratio * l_n. An entry of -inf in n takes nothing away.
    """

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        from lalign.method.gauge import preference

        log_unwanted, log_principled = base.log_softmax(-1), principled.log_softmax(-1)
        step = (-strength.unsqueeze(-1) * log_unwanted).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        return Aligned(log_principled + step, preference(log_unwanted, log_principled), step, strength)


@dataclass(frozen=True)
class Rose(Less):
    """p - a n, a = 0.5: ROSE, reverse prompt contrastive decoding (Zhong et al. 2024, arXiv:2402.11889); greedy."""

    recipe: str = "rose"
    ratio: float = 0.5


@dataclass(frozen=True)
class Instructive(Less):
    """p + e n, e = -0.3: Instructive Decoding (Kim et al. 2024, arXiv:2311.00233); greedy.

    n is the row with a noisy instruction, and the ratio is -e: their programs write it with either sign.
    """

    recipe: str = "instructive"
    ratio: float = 0.3
