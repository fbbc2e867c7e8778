"""What the loop asks of a model that runs rows of tokens; torch's and llama.cpp's have it (design section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from lalign.prefixes import common_prefix


class Prefix(Protocol):
    """Tokens that many prompts begin with, run already."""

    @property
    def token_ids(self) -> list[int]: ...


SomePrefix = TypeVar("SomePrefix", bound=Prefix)


class RowStore(Protocol):
    """Rows in flight, numbered 0 to `rows` - 1 with no gaps."""

    @property
    def rows(self) -> int: ...

    def expect(self, rows: int, width: int) -> None:
        """Say how many rows there are to be, and of how many tokens."""
        ...

    def fits(self, rows: int, tokens: int) -> bool:
        """Whether rows of so many tokens altogether, besides shared prefixes, fit; True where only trying tells.

        An empty store may grow for them.
        """
        ...

    def admit(self, opened: Any) -> list[int]:
        """Make the rows that `RowModel.prompts` opened live; returns their numbers."""
        ...

    def fork(self, sources: list[int]) -> list[int]:
        """Copy rows; returns the numbers of the copies."""
        ...

    def remove(self, rows: list[int]) -> dict[int, int]:
        """Drop rows; the last rows move into the gaps. Returns where each moved row went, old number to new."""
        ...


class RowModel(Protocol):
    """A model that runs rows. What a store is to it, and what it opens there, is its own."""

    @property
    def device(self) -> torch.device:
        """Where logits are."""
        ...

    @property
    def shares(self) -> bool:
        """Whether rows stand behind whole prefixes, whose tokens are not theirs; else they may begin with a part."""
        ...

    def store(self) -> Any:
        """An empty `RowStore`; the one given before is given up."""
        ...

    def passes(self, rests: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
        """Split prompts, given by their rows and tokens left to run, into calls of `prompts`: indices into `rests`."""
        ...

    def prompts(self, rows: Sequence[list[int]], prefixes: Sequence[Any], store: Any) -> tuple[Tensor, Any]:
        """Run prompts: logits where each response begins `[rows, vocab]`, and the rows opened in `store`."""
        ...

    def step(self, input_ids: Tensor, store: Any) -> Tensor:
        """Run the next token of each row, `[rows, 1]`: logits `[rows, vocab]`."""
        ...


def longest_shared(
    row: list[int], prefixes: Sequence[SomePrefix], *, whole: bool = False
) -> tuple[int, SomePrefix | None]:
    """The prefix that shares most leading tokens with a row, and how many: never the whole row.

    With `whole` only prefixes that the row begins with from end to end count.
    """
    best: tuple[int, SomePrefix | None] = (0, None)
    for prefix in prefixes:
        length = len(prefix.token_ids)
        if length >= len(row) or row[:length] != prefix.token_ids:
            length = 0 if whole else len(common_prefix([row[:-1], prefix.token_ids]))
        if length > best[0]:
            best = (length, prefix)
    return best


def rest_length(row: list[int], prefixes: Sequence[Prefix], *, whole: bool = False) -> int:
    """How many tokens of a prompt are left to run; `whole` as of `longest_shared`."""
    return len(row) - longest_shared(row, prefixes, whole=whole)[0]
