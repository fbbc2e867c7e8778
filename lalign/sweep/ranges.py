"""The points of a sweep: `0,1,2.5`, `0:5`, `0:5:0.5` to numbers, and numbers to alignments."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import ROUND_FLOOR, Context, Decimal, InvalidOperation, localcontext

from lalign.errors import OptionError
from lalign.method.recipe import Recipe
from lalign.method.recipes import recipe_with
from lalign.text import shortened

MOST_POINTS = 1_000
# Digits enough for any range worth trying to end where it says.
EXACT = Context(prec=60)
# How other programs and people write a range: 0..5, 0-5, 0…5, 0 to 5.
_OTHER_RANGE = re.compile(r"([\d.]+?)\s*(?:\.{2,3}|-|–|…|to)\s*([\d.]+)")


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
        _limit(len(points), option, shortened(text))
    return tuple(points)


def sweep_points(bases: Sequence[Recipe], strengths: Sequence[float], ps: Sequence[float]) -> tuple[Recipe, ...]:
    """Each recipe at every strength and p: all of its first p, then those of the next. One without p has one curve.

    Strengths are ratios, or nats where a recipe measures its steps in them. An empty sequence stands for the strength
    or p of the recipe itself. Raises `OptionError` for a value that a recipe does not allow, for `ps` where none of
    them takes p, or for more than 1,000 points.
    """
    if ps and not any(hasattr(base, "p") for base in bases):
        raise OptionError("ps", f"p is no option of {', '.join(base.recipe for base in bases)}")
    with _blaming("ps"):
        curves = [one for base in bases for one in _at_ps(base, ps)]
    option = f"{bases[0].axis}s"
    _limit(max(len(strengths), 1) * len(curves), option, f"{len(strengths):,} {option} of {len(curves):,} curves")
    with _blaming(option):
        return tuple(
            recipe_with(one, **{one.axis: strength}) for one in curves for strength in strengths or (one.strength,)
        )


def _at_ps(base: Recipe, ps: Sequence[float]) -> list[Recipe]:
    return [recipe_with(base, p=p) for p in ps] if ps and hasattr(base, "p") else [base]


@contextmanager
def _blaming(option: str) -> Iterator[None]:
    """What is wrong with a value is laid to the option that gave it."""
    try:
        yield
    except OptionError as error:
        raise OptionError(option, error.problem) from None


def _item(item: str, option: str, infinite: bool) -> list[float]:
    if not item:
        raise OptionError(option, "is empty, or has an empty item between its commas")
    if infinite and item.lower() == "inf":
        return [float("inf")]
    bounds = [_number(part.strip(), item, option) for part in item.split(":")]
    if len(bounds) == 1:
        return [_as_float(bounds[0], item, option)]
    if len(bounds) > 3:
        raise OptionError(option, f"{shortened(item)}: a range is first:last or first:last:step")
    first, last, step = (*bounds, Decimal(1))[:3]
    if step <= 0:
        raise OptionError(option, f"{shortened(item)}: the step of a range must be above 0")
    if last < first:
        raise OptionError(option, f"{shortened(item)}: the range ends below where it begins")
    with localcontext(EXACT):
        steps = (last - first) / step
        points = steps.to_integral_value(ROUND_FLOOR) + 1
        _limit(points, option, shortened(item))
        return [_as_float(first + index * step, item, option) for index in range(int(points))]


def _number(part: str, item: str, option: str) -> Decimal:
    try:
        # Decimal takes digits of all scripts, and underscores among them.
        number = Decimal(part) if part.isascii() and "_" not in part else Decimal("nan")
    except InvalidOperation:
        number = Decimal("nan")
    if number.is_finite():
        return number
    if other := _OTHER_RANGE.fullmatch(part):
        raise OptionError(option, f"{shortened(part)} is not a number; a range is {other[1]}:{other[2]}")
    within = "" if part == item else f" in {shortened(item)}"
    raise OptionError(option, f"{shortened(part)}{within} is not a finite number")


def _as_float(value: Decimal, item: str, option: str) -> float:
    number = float(value)
    if math.isinf(number):
        raise OptionError(option, f"{shortened(item)} is too large a number")
    return number


def _limit(count: Decimal | int, option: str, what: str) -> None:
    if count > MOST_POINTS:
        amount = f"{int(count):,}" if count < 10**9 else "over a thousand million"
        raise OptionError(option, f"{what}: {amount} points; at most {MOST_POINTS:,} are allowed")
