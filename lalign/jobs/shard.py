"""A part of an input that one of several jobs answers: every N-th line, so that all have as much to do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lalign.errors import OptionError


@dataclass(frozen=True, slots=True)
class Shard:
    """The lines of which the number, from 1, leaves `number - 1` when divided by `count`.

    Raises `OptionError` where `number` is not one of 1 to `count`.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise OptionError("shard", f"must be K/N with K from 1 to N, not {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def takes(self, line: int) -> bool:
        """Whether this physical line, counted from 1, belongs to it."""
        return (line - 1) % self.count == self.number - 1


WHOLE = Shard(1, 1)


def parse_shard(text: str | None) -> Shard:
    """A shard from `K/N`; the whole input from None. Raises `OptionError`."""
    if text is None:
        return WHOLE
    if (found := re.fullmatch(r"([0-9]+)/([0-9]+)", text)) is None:
        raise OptionError("shard", f"must be K/N, as 1/4, not {text!r}")
    return Shard(int(found[1]), int(found[2]))
