"""What prompts begin with alike."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix


def common_prefix(rows: Sequence[list[int]]) -> list[int]:
    """The longest list of token ids that all rows begin with."""
    return list(commonprefix(rows))  # noqa: RUF071, it takes any sequences, and compares them item by item
