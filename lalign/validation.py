"""Checks of single options, for the dataclasses that hold them. Each raises `OptionError` with what is allowed."""

from __future__ import annotations

import math
from typing import Any

from lalign.errors import OptionError
from lalign.text import shortened

# The smallest and the largest number that float32, in which everything is computed, holds to all its digits.
FLOAT32 = (1.1754944e-38, 3.4028234e38)


def number(
    option: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    infinite: bool = False,
) -> None:
    """A number that float32 can hold, within its bounds: at least `low` or more than `above`, and at most `high`."""
    try:
        given = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer that no float can hold
        given = math.nan
    if (
        math.isnan(given)
        or (math.isinf(given) and not infinite)
        or (low is not None and given < low)
        or (above is not None and given <= above)
        or (high is not None and given > high)
    ):
        allowed = _interval(low, above, high, infinite)
        raise OptionError(option, f"must be a number {allowed}, not {shortened(value)}")
    if given and not math.isinf(given) and not FLOAT32[0] <= abs(given) <= FLOAT32[1]:
        raise OptionError(option, f"must be a number that float32 can hold, not {shortened(value)}")


def _interval(low: float | None, above: float | None, high: float | None, infinite: bool) -> str:
    floor = f"above {above:g}" if above is not None else f"of at least {low:g}"
    if high is not None:
        return f"{floor} and at most {high:g}"
    return f"{floor} (inf allowed)" if infinite else floor


def integer(option: str, value: Any, *, low: int, high: int | None = None) -> None:
    """A whole number within its bounds."""
    wanted = f"a whole number of at least {low}" + (f" and at most {high}" if high is not None else "")
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise OptionError(option, f"must be {wanted}, not {shortened(value)}")


def choice(option: str, value: Any, choices: Any) -> None:
    """One of `choices`, which are strings."""
    if not isinstance(value, str) or value not in choices:
        raise OptionError(option, f"must be one of {', '.join(choices)}, not {shortened(value)}")
