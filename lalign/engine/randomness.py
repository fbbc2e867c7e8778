"""The random numbers of a response: a stream of its own for each, so that no batch changes it."""

from __future__ import annotations

import numpy as np


def uniforms(seed: tuple[int, ...], count: int) -> list[float]:
    """The first `count` numbers in [0, 1) of the stream that belongs to `seed`, the same on every machine."""
    numbers: list[float] = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).random(count).tolist()
    return numbers
