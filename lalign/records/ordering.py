"""Outcomes that come as they are ready, given out in the order of the input."""

from __future__ import annotations

from lalign.results import Failure, Result


class InOrder:
    """Holds back outcomes until all of the positions before theirs are complete.

    Args:
        points: outcomes that make a position complete, where it does not fail as a whole.
    """

    def __init__(self, points: int = 1) -> None:
        self.points = points
        self._next = 0
        self._held: dict[int, dict[int, Result | Failure]] = {}
        self._failed: set[int] = set()

    def put(self, position: int, place: int, outcome: Result | Failure) -> None:
        """The outcome of one point of a position."""
        self._held.setdefault(position, {})[place] = outcome

    def fail(self, position: int, failure: Failure) -> None:
        """A failure that is the whole outcome of a position."""
        self.put(position, 0, failure)
        self._failed.add(position)

    def ready(self) -> list[Result | Failure]:
        """All outcomes that may leave now, in order; each is given out once."""
        leaving: list[Result | Failure] = []
        while (held := self._held.get(self._next)) and (len(held) == self.points or self._next in self._failed):
            leaving += (held[place] for place in sorted(held))
            del self._held[self._next]
            self._failed.discard(self._next)
            self._next += 1
        return leaving
