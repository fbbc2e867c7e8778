"""Intervals and paired tests, by scipy: what is resampled and flipped is questions, or prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lalign.errors import LalignError

CONFIDENCE = 0.95
RESAMPLES = 9999
# Numbers held at a time while resampling.
RESAMPLING_BATCH = 1 << 22


def intervals(values: NDArray[np.float64], seed: int) -> list[tuple[float, float] | tuple[None, None]]:
    """The 95 % percentile bootstrap interval of the mean of each row `[rows, questions]`.

    All rows are resampled alike. One question alone has no interval.
    """
    if values.shape[-1] < 2:
        return [(None, None)] * len(values)
    interval = (
        _scipy_stats()
        .bootstrap(
            (values,),
            np.mean,
            axis=-1,
            n_resamples=RESAMPLES,
            batch=max(1, RESAMPLING_BATCH // values.size),
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        .confidence_interval
    )
    return list(zip(interval.low.tolist(), interval.high.tolist(), strict=True))


def sign_test(gained: int, lost: int) -> float:
    """The two-sided p-value of the exact sign test, which of paired items is McNemar's: half should go either way."""
    if not gained + lost:
        return 1.0
    return float(_scipy_stats().binomtest(gained, gained + lost, 0.5).pvalue)


def sign_flip(differences: NDArray[np.float64], seed: int) -> list[float]:
    """Two-sided p-values for the mean of each row `[rows, questions]` being 0, by flipping signs of questions.

    Exact up to 13 questions, where there are no more than `RESAMPLES` flips; else by that many random ones. One
    question alone proves nothing: 1.
    """
    if differences.shape[-1] < 2:
        return [1.0] * len(differences)
    result = _scipy_stats().permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=max(1, RESAMPLING_BATCH // differences.size),
        rng=np.random.default_rng(seed),
    )
    return [float(p) for p in result.pvalue]


def check_extra() -> None:
    """Raise `LalignError` where scipy is not installed; for callers to know before a model is loaded."""
    _scipy_stats()


def _scipy_stats() -> Any:
    try:
        import scipy.stats
    except ImportError:
        raise LalignError("intervals and tests need scipy: pip install 'lalign[eval]'") from None
    return scipy.stats
