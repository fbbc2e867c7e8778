"""Reading ahead: prompts are parsed and tokenised in a thread, and admitted by length (design section 6)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lalign.engine.interface import Request
from lalign.results import Failure

# How long a wait for input lasts before the caller is heard again, in seconds.
PATIENCE = 0.1


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


class Lookahead:
    """Requests taken from an iterator ahead of their use; the iterator runs in a thread.

    Called as an engine's source, it gives the longest first: prompts of a length run together, with little padding,
    and in rows of little more than their width. No more than `window` requests are looked at from the oldest that
    waits, so that none waits for ever, and no more outcomes than that wait for it.

    Attributes:
        points, prefixes: what an engine may know of the requests beforehand; see `interface.Source`.
        error: what the iterator raised, for the caller to raise when all that came before it is done.
    """

    def __init__(
        self,
        items: Iterator[tuple[int, Request | Failure]],
        window: int,
        points: int = 1,
        prefixes: Sequence[list[int]] = (),
    ) -> None:
        self.points = points
        self.prefixes = prefixes
        self.error: BaseException | None = None
        self._items = items
        self._window = window
        self._waiting: list[tuple[int, Request]] = []
        self._failed: list[tuple[int, Failure]] = []
        self._arrived = 0
        self._ended = False
        self._queue: queue.Queue[tuple[int, Request | Failure] | _End] = queue.Queue(maxsize=window)
        self._closed = threading.Event()
        threading.Thread(target=self._read, name="lalign-reader", daemon=True).start()

    def __call__(self, room: int, wait: bool) -> list[Request] | None:
        """Up to `room` requests; none if none is at hand, None at the end. Blocks for a moment if `wait`."""
        self._gather(wait)
        if not self._waiting:
            return None if self._ended else []
        # Sorting is stable: of two as long, the older goes first.
        chosen = sorted(self._waiting, key=lambda waiting: -waiting[1].length)[:room]
        taken = {number for number, _ in chosen}
        self._waiting = [waiting for waiting in self._waiting if waiting[0] not in taken]
        return [request for _, request in chosen]

    def ready(self) -> bool:
        """Whether a request is at hand, or the end is reached; waits for a moment."""
        self._gather(wait=True)
        return bool(self._waiting) or self._ended

    def at_hand(self) -> list[Request]:
        """Requests that have been read and not yet taken."""
        return [request for _, request in self._waiting]

    def take_failed(self) -> list[tuple[int, Failure]]:
        """Items that were no requests, with their positions, since the last call."""
        taken, self._failed = self._failed, []
        return taken

    def close(self) -> None:
        """Stop reading. A read that is blocked is left to end with the process."""
        self._closed.set()

    def _gather(self, wait: bool) -> None:
        while not self._ended and (not self._waiting or self._arrived - self._waiting[0][0] < self._window):
            try:
                item = self._queue.get(timeout=PATIENCE) if wait and not self._waiting else self._queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, _End):
                self._ended, self.error = True, item.error
                return
            position, outcome = item
            if isinstance(outcome, Failure):
                self._failed.append((position, outcome))
                if wait and not self._waiting:
                    return
            else:
                self._waiting.append((self._arrived, outcome))
                self._arrived += 1

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_End())
        except BaseException as error:
            self._put(_End(error))

    def _put(self, item: tuple[int, Request | Failure] | _End) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=PATIENCE)
            except queue.Full:
                continue
            return True
        return False
