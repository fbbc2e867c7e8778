"""Values and texts as people are shown them: shortened, escaped, and p as JSON can say it."""

from __future__ import annotations

import math
from typing import Any

SHOWN = 40  # characters of a value in a message


def shortened(value: Any, limit: int = SHOWN) -> str:
    """`repr(value)`, of `limit` characters at the most."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str) -> str:
    """`text` with every character that does not print as itself (escapes, line ends) written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def json_number(value: Any) -> Any:
    """`value` as JSON can say it: an infinite p is "inf"."""
    return "inf" if value == math.inf else value


def signed(number: float, digits: int) -> str:
    """A number with its sign and so many digits behind the point; one that they show as zero is "+0.00"."""
    return f"{round(number, digits) + 0.0:+.{digits}f}"  # -0.0 + 0.0 is 0.0
