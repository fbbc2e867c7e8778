"""Two points of a sweep compared prompt by prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lalign.sweep.metrics import PointSummary

# Differences are counted in so many parts of their sum.
PARTS = 10_000


def worsening(base: PointSummary, point: PointSummary) -> NDArray[np.float64]:
    """What prompts answered at both points have lost: repeated 4-grams gained, distinct-2 lost. `[2, prompts]`."""
    both = sorted(base.shares.keys() & point.shares.keys())
    before, after = (np.array([of.shares[line] for line in both]).reshape(-1, 2) for of in (base, point))
    lost: NDArray[np.float64] = (after - before).T * np.array([[1.0], [-1.0]])
    return lost


def sign_flip(differences: NDArray[np.float64]) -> float:
    """The one-sided p-value of the mean of paired `differences` `[n]` being no more than 0, by flipping their signs.

    Of all 2^n flips, which are equally likely where nothing has changed, the share with a mean as large as this one.
    Exact for the differences in `PARTS` of their sum: the chances of each sum of those above 0 are built up one
    difference at a time.
    """
    largest = np.abs(differences).sum()
    if not largest:
        return 1.0
    sizes = np.rint(np.abs(differences) * (PARTS / largest)).astype(int)
    chances = np.zeros(sizes.sum() + 1)
    chances[0] = 1.0
    for size in sizes[sizes > 0]:
        kept = chances / 2
        chances = kept.copy()
        chances[size:] += kept[:-size]
    return float(chances[sizes[differences > 0].sum() :].sum())
