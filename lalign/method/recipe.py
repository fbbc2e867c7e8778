"""The seam for methods: what a recipe is, and what it makes of the logits of one step (design section 10).

Importing a recipe loads no torch, so that options are checked, and recipes listed, before any model library is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from lalign import validation
from lalign.method.aligned import STATISTICS, Aligned
from lalign.text import json_number

if TYPE_CHECKING:
    from torch import Tensor

Support = Literal["principle", "none"]
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
    """

    recipe: str
    ratio: float
    support: Support = "none"
    support_top_p: float = 0.8
    support_temperature: float = 0.5
    max_kl: float | None = None

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
        if self.max_kl is not None:
            validation.number("max_kl", self.max_kl, above=0)

    @property
    def is_base(self) -> bool:
        """True where nothing is aligned: the base model alone, whatever the principled twin says."""
        return False

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
        """The method itself, before `max_kl` and the support are applied.

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
        """One step of rows that are independent of one another.

        Args:
            base: logits of the base twin, `[rows, vocab]` float32.
            principled: logits of the principled twin, `[rows, vocab]` float32.
            strength: the ratio of each row, which stands in for `ratio`: `[rows]`.
            state: what the steps before gave as `Aligned.state`; None at the first.
            merged: `principled` is what `merge` gave, and not a row of the model's own.
        """
        from lalign.method.update import nucleus, within_kl

        if not merged:
            principled = self.merge(base, [principled], (1.0,))
        aligned = self.update(base, principled, strength, state)
        if self.max_kl is not None:
            aligned = within_kl(base, aligned, self.max_kl)
        if self.support == "none" or self.is_base:
            return aligned
        allowed = nucleus(principled, self.support_top_p, self.support_temperature)
        return aligned._replace(allowed=allowed if aligned.allowed is None else allowed & aligned.allowed)

    def statistics(self, base: Tensor, principled: Tensor, aligned: Aligned, tokens: Tensor) -> Tensor:
        """What the step did, in the order of `columns`: `[rows, columns]` float32. `tokens` `[rows]`: those taken."""
        from lalign.method.statistics import step_statistics

        return step_statistics(base, principled, aligned, tokens, self.norm)

    @property
    def point(self) -> dict[str, str | float]:
        """The options that tell the points of a sweep apart."""
        return {"recipe": self.recipe, "ratio": self.ratio}

    @property
    def curve(self) -> str:
        """The curve that this point of a sweep lies on, along which the ratio alone changes: begins with `recipe`."""
        return self.recipe

    @property
    def norm(self) -> float:
        """The p of the norm in which a step is measured."""
        return 2.0
