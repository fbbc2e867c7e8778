"""The seam for methods: what a recipe is, and what it makes of the logits of one step (design section 10).

Importing a recipe loads no torch, so that options are checked, and recipes listed, before any model library is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from lalign import validation
from lalign.errors import OptionError
from lalign.method.aligned import STATISTICS, Aligned
from lalign.text import json_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Support = Literal["principle", "none"]
# Below this the rounding of float32 logits is no smaller than the divergence itself.
LEAST_NATS = 1e-4
# Which twins a step looks at.
Needs = Literal["base", "principled", "both"]


@dataclass(frozen=True)
class Recipe(ABC):
    """A decoding method: the next token as a function of the logits of one model under two or more prompts.

    Fields are the options that it takes; these stand in every recipe. Instances are hashable, and equal where they
    do the same. Raises `OptionError` where a value is out of range.

    recipe: the name it goes by.
    ratio: its strength, >= 0: what a sweep varies, and a record may set.
    support: "principle" allows only the nucleus of the principled twin, of mass `support_top_p` at
        `support_temperature`; "none" all tokens.
    max_kl: the most KL(aligned || base) of a step, in nats; None for no bound.
    scale: what `ratio` counts, one of `scales`; "kl" makes the move from the base twin as long as `kl` asks for.
    kl: KL(aligned || base) of a step, in nats, with scale "kl" alone; 0 is the base model.
    kl_total: the most KL(aligned || base) of a whole response, summed over its tokens; None for no bound.
    """

    recipe: str
    ratio: float
    support: Support = "none"
    support_top_p: float = 0.8
    support_temperature: float = 0.5
    max_kl: float | None = None
    scale: str = "relative"
    kl: float | None = None
    kl_total: float | None = None

    # What `scale` may be.
    scales: ClassVar[tuple[str, ...]] = ("relative", "kl")
    # Names of the statistics of a step, in the order of `statistics`.
    columns: ClassVar[tuple[str, ...]] = STATISTICS
    # Not written into every record: the run's header has them.
    unwritten: ClassVar[frozenset[str]] = frozenset({"support_top_p", "support_temperature"})
    # Whether principles of other weights than 1 mean something to it.
    weighted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        validation.number("ratio", self.ratio, low=0)
        validation.choice("support", self.support, get_args(Support))
        validation.number("support_top_p", self.support_top_p, above=0, high=1)
        validation.number("support_temperature", self.support_temperature, above=0)
        for name in ("max_kl", "kl_total"):
            if getattr(self, name) is not None:
                validation.number(name, getattr(self, name), low=LEAST_NATS)
        validation.choice("scale", self.scale, self.scales)
        if (self.kl is not None) != (self.scale == "kl"):
            problem = "is needed with scale kl" if self.kl is None else f"goes with scale kl, not {self.scale}"
            raise OptionError("kl", problem)
        if self.kl is not None:
            validation.number("kl", self.kl, low=LEAST_NATS if self.kl else 0)

    @property
    def is_base(self) -> bool:
        """True where nothing is aligned: the base model alone, whatever the principled twin says."""
        return self.kl == 0

    @property
    def is_measured(self) -> bool:
        """True where a step's length depends on how far it diverges from the base model."""
        return not (self.kl is self.max_kl is self.kl_total is None)

    def needs(self, weights: tuple[float, ...]) -> Needs:
        """Which twins a step looks at, with principles of these weights."""
        return "base" if self.is_base else "both"

    def likeness(self) -> Hashable:
        """Equal for recipes whose rows one call of `step` can serve: they may differ in ratio alone."""
        return self.is_base, replace(self, ratio=1.0)

    def to_dict(self) -> dict[str, Any]:
        """What a record says of the recipe it was made by; JSON values."""
        return {
            name: json_number(value)
            for name, value in asdict(self).items()
            if value is not None and name not in self.unwritten
        }

    def merge(self, base: Tensor, principled: list[Tensor], weights: tuple[float, ...]) -> Tensor:
        """The logits of several principled twins as those of one: base + sum_k w_k (principled_k - base).

        All are `[rows, vocab]`. One principle of weight 1 is returned as it is, to the bit.
        """
        from lalign.method.update import combine

        return combine(base, principled, weights)

    @abstractmethod
    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        """The method itself, before budgets in nats and the support are applied.

        Arguments as of `step`, with `principled` as `merge` gives it.
        """

    def step(
        self,
        base: Tensor,
        principled: Tensor,
        strength: Tensor,
        state: Tensor | None = None,
        *,
        merged: bool = False,
    ) -> Aligned:
        """One step of rows that are independent of one another. Constants added to a row of logits change nothing.

        Args:
            base: logits of the base twin, `[rows, vocab]` float32.
            principled: logits of the principled twin, `[rows, vocab]` float32.
            strength: the ratio of each row, which stands in for `ratio`: `[rows]`.
            state: what the step before gave as `Aligned.state`; at the first, what `opening` gives.
            merged: `principled` is what `merge` gave, and not a row of the model's own.

        Raises `ValueError` where there is a `kl_total` and no state.
        """
        from lalign.method.gauge import peaked
        from lalign.method.update import nucleus

        base = peaked(base)
        if not merged:
            principled = self.merge(base, [peaked(principled)], (1.0,))
        budget = None
        if self.kl_total is not None:
            if state is None:
                raise ValueError("with kl_total the first step needs what `opening` gives")
            budget, state = state[:, :2], state[:, 2:] if state.shape[1] > 2 else None
        aligned = self._measured(base, self.update(base, principled, strength, state), budget)
        if self.support == "none" or self.is_base:
            return aligned
        allowed = nucleus(principled, self.support_top_p, self.support_temperature)
        return aligned._replace(allowed=allowed if aligned.allowed is None else allowed & aligned.allowed)

    def opening(self, tokens: list[int], device: torch.device) -> Tensor | None:
        """The state before the first step of responses of at most so many tokens: `[rows, ...]`; None for nothing."""
        if self.kl_total is None:
            return None
        from lalign.method.budget import opened

        return opened(self.kl_total, tokens, device)

    def _measured(self, base: Tensor, aligned: Aligned, budget: Tensor | None) -> Aligned:
        """The step as long as the budgets in nats have it, and what is left of them before the method's own state."""
        if not self.is_measured:
            return aligned
        import torch

        from lalign.method.budget import at_kl, share_of, spent, within_kl
        from lalign.method.statistics import divergence

        most = torch.full_like(aligned.ratio, math.inf if self.max_kl is None else self.max_kl)
        if budget is not None:
            most = torch.minimum(most, share_of(budget))
        aligned = within_kl(base, aligned, most) if self.kl is None else at_kl(base, aligned, most.clamp_max(self.kl))
        if budget is None:
            return aligned
        left = spent(budget, divergence(aligned.logits, base))
        return aligned._replace(state=left if aligned.state is None else torch.cat([left, aligned.state], dim=-1))

    def statistics(self, base: Tensor, principled: Tensor, aligned: Aligned, tokens: Tensor) -> Tensor:
        """What the step did, in the order of `columns`: `[rows, columns]` float32. `tokens` `[rows]`: those taken."""
        from lalign.method.statistics import step_statistics

        return step_statistics(base, principled, aligned, tokens, self.norm)

    @property
    def axis(self) -> str:
        """The option that a sweep goes along: "ratio", or "kl" where steps are measured in nats."""
        return "ratio" if self.kl is None else "kl"

    @property
    def strength(self) -> float:
        """The value of that option."""
        return self.ratio if self.kl is None else self.kl

    @property
    def point(self) -> dict[str, str | float]:
        """The options that tell the points of a sweep apart."""
        return {"recipe": self.recipe, self.axis: self.strength}

    @property
    def curve(self) -> str:
        """The curve that this point of a sweep lies on, along which the ratio alone changes: begins with `recipe`."""
        return self.recipe

    @property
    def norm(self) -> float:
        """The p of the norm in which a step is measured."""
        return 2.0
