"""What texts, or lists of token ids, begin with alike."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix
from typing import TypeVar

Items = TypeVar("Items", str, list[int])


def common_prefix(rows: Sequence[Items]) -> Items:
    """The longest beginning that all rows have."""
    # It takes any sequences, and compares them item by item.
    return commonprefix(rows)  # type: ignore[return-value]  # noqa: RUF071
