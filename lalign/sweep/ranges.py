"""The points of a sweep: `0,1,2.5`, `0:5`, `0:5:0.5` to numbers, and numbers to alignments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

from lalign.errors import OptionError
from lalign.method.recipe import Recipe
from lalign.method.recipes import recipe_with

MOST_POINTS = 1_000
# As many digits as any float needs, and no more: an exact fraction of 1e999999999 would fill the memory.
NUMBER = re.compile(r"[+-]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)


def parse_range(text: str, option: str, *, infinite: bool = False) -> tuple[float, ...]:
    """The numbers that a list of numbers and ranges stands for, each once, in the order written.

    A range is `first:last` (step 1) or `first:last:step`; it holds both ends, or ends at the last step that does not
    pass `last`. Each point is the float that its decimal literal gives: `0:1:0.1` holds 0.3, not 0.30000000000000004.

    Args:
        text: items separated by commas, such as `0,0.5,1:5`.
        option: the name under which the user gave it, for errors.
        infinite: whether `inf` may be an item.

    Raises `OptionError` for what is not a finite number, a range that goes down, a step that is not above 0, an empty
    item, or more than 1,000 points.
    """
    points: dict[float, None] = {}
    for item in text.split(","):
        points |= dict.fromkeys(_item(item.strip(), option, infinite))
        _limit(len(points), option, _shown(text))
    return tuple(points)


def sweep_points(base: Recipe, ratios: Sequence[float], ps: Sequence[float]) -> tuple[Recipe, ...]:
    """`base` at every ratio and p: all ratios of the first p, then those of the next.

    An empty sequence stands for the ratio or p of `base`. Raises `OptionError` for a value that `Alignment` does not
    allow, or more than 1,000 points.
    """
    bases = [recipe_with(base, p=p) for p in ps] or [base]
    ratios = ratios or (base.ratio,)
    _limit(len(ratios) * len(bases), "ratios", f"{len(ratios):,} ratios at {len(bases):,} values of p")
    return tuple(recipe_with(one, ratio=ratio) for one, ratio in product(bases, ratios))


def _item(item: str, option: str, infinite: bool) -> list[float]:
    if not item:
        raise OptionError(option, "is empty, or has an empty item between its commas")
    if infinite and item.lower() == "inf":
        return [float("inf")]
    bounds = [_number(part.strip(), item, option) for part in item.split(":")]
    if len(bounds) == 1:
        return [_as_float(bounds[0], item, option)]
    if len(bounds) > 3:
        raise OptionError(option, f"{_shown(item)}: a range is first:last or first:last:step")
    first, last, step = (*bounds, Fraction(1))[:3]
    if step <= 0:
        raise OptionError(option, f"{_shown(item)}: the step of a range must be above 0")
    if last < first:
        raise OptionError(option, f"{_shown(item)}: the range ends below where it begins")
    count = (last - first) // step + 1
    _limit(count, option, _shown(item))
    return [_as_float(first + index * step, item, option) for index in range(count)]


def _number(part: str, item: str, option: str) -> Fraction:
    if NUMBER.fullmatch(part):
        return Fraction(part)
    within = "" if part == item else f" in {_shown(item)}"
    raise OptionError(option, f"{_shown(part)}{within} is not a finite number")


def _as_float(value: Fraction, item: str, option: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise OptionError(option, f"{_shown(item)} is too large a number") from None


def _limit(count: int, option: str, what: str) -> None:
    if count > MOST_POINTS:
        amount = f"{count:,}" if count < 10**9 else "over a thousand million"
        raise OptionError(option, f"{what}: {amount} points; at most {MOST_POINTS:,} are allowed")


def _shown(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 40 else shown[:37] + "..."
