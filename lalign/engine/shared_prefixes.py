"""What prompts begin with alike, found by its content, run once and kept (design section 6).

System texts, few-shot heads and principles, one for all records or many: each is a beginning of many rows, and one may
go on where another ends. It is run from the longest one kept that it begins with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lalign.engine.cache import Prefix
from lalign.engine.forward import Forward
from lalign.engine.memory import free_bytes, is_out_of_memory
from lalign.engine.rows import longest_shared

# A beginning is run once for all where that adds so many tokens to the longest one kept,
SHORTEST_PREFIX = 8
# and saves so many to other rows at hand. A pass costs as much as some dozens of tokens, however few it runs.
TOKENS_SAVED = 128
# Rows of the past that new ones are compared with, besides those that are to come.
REMEMBERED = 64
# What all prefixes kept may take, as a share of the memory that was free at the first.
MEMORY_SHARE = 0.1


class SharedPrefixes:
    """The prefixes kept for a model, the latest used last. They outlive runs; the oldest go where room is short.

    One that goes while rows stand behind it stays in memory until the last of them has left.
    """

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.kept: dict[tuple[int, ...], Prefix] = {}
        self._remembered: deque[list[int]] = deque(maxlen=REMEMBERED)
        self._bytes = 0
        self._room: int | None = None

    @torch.inference_mode()
    def serving(self, rows: Sequence[list[int]], coming: Iterable[list[int]] = ()) -> list[Prefix]:
        """All prefixes kept, after running what some rows share with one another and with others.

        coming: rows that are to follow. Where there is no memory for a prefix, each row runs its own tokens.
        """
        others = _Table([*rows, *coming, *self._remembered])
        self._remembered.extend(rows)
        for row in rows:
            prefix = self._longest(row)
            while length := others.worthwhile(row, len(prefix.token_ids) if prefix else 0):
                longer = self._run(row[:length])
                if longer is None:
                    break
                prefix = longer
                self._keep(prefix)
            if prefix is not None:
                self._keep(prefix)
        return list(self.kept.values())

    def _longest(self, row: list[int]) -> Prefix | None:
        return longest_shared(row, list(self.kept.values()), whole=True)[1]

    def _run(self, token_ids: list[int]) -> Prefix | None:
        try:
            if not self.kept:
                self.forward.share_if_it_can()
            return self.forward.prefix(token_ids, list(self.kept.values()))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _keep(self, prefix: Prefix) -> None:
        """Make a prefix the latest used, and let go of the oldest ones beyond the room there is; never of this one."""
        name = tuple(prefix.token_ids)
        if self.kept.pop(name, None) is None:
            self._bytes += prefix.nbytes
            if self._room is None:
                self._room = int(MEMORY_SHARE * free_bytes(self.forward.device))
        self.kept[name] = prefix
        while len(self.kept) > 1 and self._room is not None and self._bytes > self._room:
            self._bytes -= self.kept.pop(next(iter(self.kept))).nbytes


class _Table:
    """Rows side by side, to be compared with one of them at once."""

    def __init__(self, rows: Sequence[list[int]]) -> None:
        width = max(map(len, rows), default=0)
        self._rows: NDArray[np.int64] = np.full((len(rows), width + 1), -1, dtype=np.int64)
        for number, row in enumerate(rows):
            self._rows[number, : len(row)] = row

    def worthwhile(self, row: list[int], known: int) -> int:
        """How many tokens of a row are worth being run once for it and others, beyond the `known`; 0 for none.

        That is the length at which the tokens that other rows are saved are most. `row` is one of the table.
        """
        wanted = np.full(self._rows.shape[1], -2, dtype=np.int64)
        wanted[: len(row) - 1] = row[:-1]  # its last token is run with the row, for its logits
        alike = np.sort((self._rows != wanted).argmax(1))[::-1][1:]  # without the row itself
        more = alike - known
        saved = np.arange(1, len(alike) + 1) * np.where(more < SHORTEST_PREFIX, 0, more)
        return int(alike[saved.argmax()]) if saved.max(initial=0) >= TOKENS_SAVED else 0
