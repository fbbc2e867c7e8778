"""What each point of a sweep did to the responses.

Bookkeeping over `Result.token_ids` and `Result.summary`; of each response only its line and eight numbers are kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lalign.method.recipe import Recipe
from lalign.results import Failure, Result

SCALARS = ("length", "kl", "kl_max", "flipped", "distinct_2", "repeated_4gram", "logprob_base", "logprob_principle")
# Means over tokens, not over responses: a long response counts for as much as it is long.
PER_TOKEN = ("kl", "flipped", "logprob_base", "logprob_principle")


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a point: its mean, and the 25, 50 and 75 % quantiles over responses; nan where there is none."""

    mean: float
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class PointSummary:
    """The responses of one point of a sweep.

    Attributes:
        alignment: the point.
        responses, failures: how many prompts were answered, and how many could not be.
        length: tokens generated, the stop token included.
        kl, kl_max: KL(aligned || base) of a token in nats: mean over tokens, and the largest of all.
        flipped: share of tokens at which the update changed the most likely token.
        distinct_2: distinct bigrams of token ids over all bigrams, of each response (1 where it has none), averaged.
        repeated_4gram: 1 - distinct 4-grams over all 4-grams, of each response (0 where it has none), averaged.
        logprob_base, logprob_principle: log-probability of a generated token under the two models in nats.
        shares: repeated_4gram and distinct_2 of each line answered, by which points are compared prompt by prompt;
            means where a line has several responses.

    The means of kl, flipped and the log-probabilities are over all tokens of the point.
    """

    alignment: Recipe
    responses: int
    failures: int
    length: Measure
    kl: Measure
    kl_max: float
    flipped: Measure
    distinct_2: Measure
    repeated_4gram: Measure
    logprob_base: Measure
    logprob_principle: Measure
    shares: Mapping[int, tuple[float, float]]


class SweepMetrics:
    """Takes the outcomes of a sweep one at a time, in any order.

    Args:
        alignments: the points, as `lalign.sweep.ranges.sweep_points` gives them.
    """

    def __init__(self, alignments: Iterable[Recipe]) -> None:
        self._points = {point: {name: array("d") for name in SCALARS} for point in alignments}
        self._lines = {point: array("q") for point in self._points}
        self._failures = dict.fromkeys(self._points, 0)

    def add(self, outcome: Result | Failure) -> None:
        """Count an outcome: a failure with no point of its own counts at every point.

        Raises `KeyError` for a result of no point of this sweep, `ValueError` for one without a summary.
        """
        if isinstance(outcome, Result):
            columns = self._points[outcome.alignment]
            for name, value in response_scalars(outcome).items():
                columns[name].append(value)
            self._lines[outcome.alignment].append(outcome.line)
            return
        for alignment in self._failures:
            if outcome.point is None or outcome.point == alignment.point:
                self._failures[alignment] += 1

    def summaries(self) -> tuple[PointSummary, ...]:
        """The points as they stand, in the order given."""
        return tuple(
            _summary(
                alignment,
                np.array(self._lines[alignment]),
                {name: np.array(values) for name, values in columns.items()},
                self._failures[alignment],
            )
            for alignment, columns in self._points.items()
        )


def response_scalars(result: Result) -> dict[str, float]:
    """The eight numbers of a response, by the names of `SCALARS`; units as in `PointSummary`."""
    summary = result.summary
    if summary is None:
        raise ValueError("a sweep's metrics need results with their summary")
    return {
        "length": len(result.token_ids),
        "kl": summary["kl_aligned_base_mean"],
        "kl_max": summary["kl_aligned_base_max"],
        "flipped": summary["flipped_share"],
        "distinct_2": distinct_share(result.token_ids, 2),
        "repeated_4gram": 1 - distinct_share(result.token_ids, 4),
        "logprob_base": summary["logprob_base_mean"],
        "logprob_principle": summary["logprob_principle_mean"],
    }


def distinct_share(ids: Sequence[int], n: int) -> float:
    """Distinct n-grams over all n-grams (Li et al. 2016, distinct-n); 1 where there are fewer than n tokens."""
    grams = list(zip(*(ids[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def _summary(
    alignment: Recipe, lines: NDArray[np.int64], columns: Mapping[str, NDArray[np.float64]], failures: int
) -> PointSummary:
    responses = len(columns["length"])
    measures: dict[str, Any] = {
        name: _measure(values, columns["length"] if name in PER_TOKEN else None)
        for name, values in columns.items()
        if name != "kl_max"
    }
    return PointSummary(
        alignment=alignment,
        responses=responses,
        failures=failures,
        kl_max=float(columns["kl_max"].max()) if responses else float("nan"),
        shares=_by_line(lines, columns["repeated_4gram"], columns["distinct_2"]),
        **measures,
    )


def _measure(values: NDArray[np.float64], weights: NDArray[np.float64] | None) -> Measure:
    if not len(values):
        return Measure(*[float("nan")] * 4)
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Measure(float(np.average(values, weights=weights)), float(low), float(median), float(high))


def _by_line(lines: NDArray[np.int64], *columns: NDArray[np.float64]) -> dict[int, tuple[float, float]]:
    found, places, counts = np.unique(lines, return_inverse=True, return_counts=True)
    repeated, distinct = (np.bincount(places, values, len(found)) / counts for values in columns)
    return dict(zip(found.tolist(), zip(repeated.tolist(), distinct.tolist(), strict=True), strict=True))
