"""Which marks were given before, in memory that millions of them fit in."""

from __future__ import annotations

from array import array

import numpy as np

from lalign.jobs.answered import holds

# As many are held in a set, of some 100 bytes each, before they are packed.
RECENT = 1 << 16


class Seen:
    """A set of numbers of 64 bits, signed: 8 bytes each, beside those of the latest 65,536 and, while runs are merged,
    as much again.

    Runs of sorted numbers, each longer than the next, so that there are about as many as the logarithm of their length.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._runs: list[array[int]] = []

    def add(self, number: int) -> bool:
        """Put a number in; returns whether it was there."""
        if number in self._recent or any(holds(run, number) for run in self._runs):
            return True
        self._recent.add(number)
        if len(self._recent) == RECENT:
            self._pack()
        return False

    def clear(self) -> None:
        """Take all out."""
        self._recent.clear()
        self._runs.clear()

    def _pack(self) -> None:
        run = np.fromiter(self._recent, np.int64, len(self._recent))
        self._recent.clear()
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.concatenate([np.frombuffer(self._runs.pop(), np.int64), run])
        run.sort()
        self._runs.append(array("q", run.tobytes()))
