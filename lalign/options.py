"""What a run can be told: frozen dataclasses, validated here and nowhere else (design sections 2 and 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from lalign.errors import OptionError

Scale = Literal["relative", "absolute"]
Anchor = Literal["base", "principle"]
Support = Literal["principle", "none"]
Statistics = Literal["steps", "summary", "none"]


def _number(
    option: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    infinite: bool = False,
) -> None:
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer that no float can hold
        number = math.nan
    if (
        math.isnan(number)
        or (math.isinf(number) and not infinite)
        or (low is not None and number < low)
        or (above is not None and number <= above)
        or (high is not None and number > high)
    ):
        allowed = _interval(low, above, high, infinite)
        raise OptionError(option, f"must be a number {allowed}, not {_shown(value)}")


def _interval(low: float | None, above: float | None, high: float | None, infinite: bool) -> str:
    floor = f"above {above:g}" if above is not None else f"of at least {low:g}"
    if high is not None:
        return f"{floor} and at most {high:g}"
    return f"{floor} (inf allowed)" if infinite else floor


def _integer(option: str, value: Any, *, low: int, high: int | None = None) -> None:
    wanted = f"a whole number of at least {low}" + (f" and at most {high}" if high is not None else "")
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise OptionError(option, f"must be {wanted}, not {_shown(value)}")


def _choice(option: str, value: Any, choices: Any) -> None:
    if not isinstance(value, str) or value not in choices:
        raise OptionError(option, f"must be one of {', '.join(choices)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True, slots=True)
class Alignment:
    """One point of the trust-region update (design section 2).

    Raises `OptionError` where a value is out of range: p in [1, inf], ratio >= 0, support_top_p in (0, 1],
    support_temperature > 0, max_kl > 0 nats or None.
    """

    recipe: str = "lalign"
    ratio: float = 3.0
    p: float = 2.0
    scale: Scale = "relative"
    anchor: Anchor = "base"
    support: Support = "principle"
    support_top_p: float = 0.8
    support_temperature: float = 0.5
    max_kl: float | None = None

    def __post_init__(self) -> None:
        _number("ratio", self.ratio, low=0)
        _choice("scale", self.scale, get_args(Scale))
        if self.scale == "absolute":  # Eq. 10 has no value at p = 1, where the exponent is infinite
            _number("p", self.p, above=1, infinite=True)
        else:
            _number("p", self.p, low=1, infinite=True)
        _choice("anchor", self.anchor, get_args(Anchor))
        _choice("support", self.support, get_args(Support))
        _number("support_top_p", self.support_top_p, above=0, high=1)
        _number("support_temperature", self.support_temperature, above=0)
        if self.max_kl is not None:
            _number("max_kl", self.max_kl, above=0)

    @property
    def is_base(self) -> bool:
        """True where nothing is aligned: the base model alone."""
        return self.anchor == "base" and self.ratio == 0

    @property
    def is_principle(self) -> bool:
        """True where the logits of the step are those of the principled twin, so that no base row is needed."""
        if self.max_kl is not None or self.scale != "relative":
            return False
        return self.ratio == 0 if self.anchor == "principle" else self.ratio == 1 and self.p == 2


RECIPES: dict[str, Alignment] = {
    "lalign": Alignment(),
    "paper": Alignment(recipe="paper", scale="absolute", support="none"),
    "released": Alignment(recipe="released", anchor="principle", ratio=2.0),
}


def alignment(recipe: str = "lalign", **given: Any) -> Alignment:
    """The settings of a recipe with the options in `given` that are not None put over them.

    Raises `OptionError` for an unknown recipe or an option out of range.
    """
    _choice("recipe", recipe, RECIPES)
    return replace(RECIPES[recipe], **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn from the aligned logits, and when a response ends (design section 5).

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 are off. Raises
    `OptionError` for a value out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, low=0)
        _number("top_p", self.top_p, above=0, high=1)
        _integer("top_k", self.top_k, low=0)
        _number("min_p", self.min_p, low=0, high=1)
        _number("repetition_penalty", self.repetition_penalty, above=0)
        _integer("max_new_tokens", self.max_new_tokens, low=1)
        _integer("seed", self.seed, low=0, high=2**63 - 1)
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise OptionError("stop", "must be one or more non-empty strings")


@dataclass(frozen=True, slots=True)
class Execution:
    """How a job uses the machine; none of it changes a response.

    `batch_size` counts pairs in flight, or is "auto": what fits in `memory_share` of the free memory.
    `statistics`: "steps" (per token), "summary" or "none".
    """

    batch_size: int | Literal["auto"] = 16
    memory_share: float = 0.7
    statistics: Statistics = "steps"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.batch_size != "auto":
            _integer("batch_size", self.batch_size, low=1)
        _number("memory_share", self.memory_share, above=0, high=1)
        _choice("stats", self.statistics, get_args(Statistics))
