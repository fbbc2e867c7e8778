"""Self-Debias: tokens that an unwanted text makes likelier lose probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lalign.errors import OptionError
from lalign.method.aligned import Aligned
from lalign.method.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

# No token's probability is multiplied by less.
FLOOR = 0.01


@dataclass(frozen=True)
class SelfDebias(Recipe):
    """softmax(b) * max(exp(-50 max(0, softmax(n) - softmax(b))), 0.01), n the row with the unwanted text (Schick et
    al. 2021, arXiv:2103.00453); of several unwanted texts the largest softmax(n) of each token.

    The unwanted text stands in the principle's place, so that there is no `support`, which would allow what is likely
    under it; weights have no meaning. The ratio is the decay constant, 50.

    Raises `OptionError` for another support than "none".
    """

    recipe: str = "self-debias"
    ratio: float = 50.0

    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.support != "none":
            raise OptionError("support", f"must be none in recipe {self.recipe}: its principle is the unwanted text")

    @property
    def is_base(self) -> bool:
        return super().is_base or self.ratio == 0

    def merge(self, base: Tensor, principled: list[Tensor], weights: tuple[float, ...]) -> Tensor:
        """log max_k softmax(n_k), which of several texts is not normalised: `[rows, vocab]`."""
        import torch

        return torch.stack([logits.log_softmax(-1) for logits in principled]).amax(0)

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        from lalign.method.gauge import preference

        log_base = base.log_softmax(-1)
        excess = (principled.exp() - log_base.exp()).clamp_min(0)
        step = (-strength.unsqueeze(-1) * excess).exp().clamp_min(FLOOR).log()
        shift = preference(log_base, principled.log_softmax(-1))
        return Aligned(log_base + step, shift, step, strength, move=step)
