"""How far a job on Ray is, for whoever waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError

SECONDS = 1.0
# How long a busy cluster is waited for, at most.
PATIENCE = 10.0


class Written:
    """An actor that is told, by each task that writes, how many lines that were; one that is run again counts once."""

    def __init__(self) -> None:
        self._lines: dict[int, int] = {}

    def tell(self, task: int, lines: int) -> None:
        """The lines of a task, by its number."""
        self._lines[task] = lines

    def total(self) -> int:
        """All lines so far."""
        return sum(self._lines.values())


@contextmanager
def watched(watch: Callable[[int], None]) -> Iterator[Any]:
    """An actor `Written`, whose total `watch` hears every second, in a thread of its own.

    Where the actor is lost, the job goes on unheard.
    """
    actor = ray.remote(Written).options(num_cpus=0).remote()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(SECONDS):
            with suppress(RayError):
                watch(ray.get(actor.total.remote(), timeout=PATIENCE))

    looking = threading.Thread(target=look, name="lalign-ray-progress", daemon=True)
    looking.start()
    try:
        yield actor
    finally:
        ended.set()
        looking.join()
        ray.kill(actor)
