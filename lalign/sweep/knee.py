"""Where degeneration sets in as the ratio grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lalign.sweep.curves import by_curve

if TYPE_CHECKING:
    from lalign.sweep.metrics import PointSummary

KNEE_RULE = (
    "Going up from the smallest ratio of each recipe and p (0 is the base model in most), the knee is the last point "
    "before the mean share of repeated 4-grams rises, or mean distinct-2 falls, by more than two standard errors of "
    "the smallest ratio's mean and by more than 0.02."
)
KNEE_FLOOR = 0.02
KNEE_MARK = "◆"


def knee(summaries: Iterable[PointSummary]) -> PointSummary | None:
    """The knee among the points of one curve, by `KNEE_RULE`; None where fewer than two points have responses.

    It is the largest ratio of all where no point degenerates, and the smallest where every other one does.
    """
    points = sorted((point for point in summaries if point.responses), key=lambda point: point.alignment.strength)
    if len(points) < 2:
        return None
    last = base = points[0]
    most_repeated = base.repeated_4gram.mean + max(2 * base.repeated_4gram_error, KNEE_FLOOR)
    least_distinct = base.distinct_2.mean - max(2 * base.distinct_2_error, KNEE_FLOOR)
    for point in points[1:]:
        if point.repeated_4gram.mean > most_repeated or point.distinct_2.mean < least_distinct:
            break
        last = point
    return last


def knees(summaries: Iterable[PointSummary]) -> dict[str, PointSummary]:
    """The knee of each curve that has one, by the curve's name."""
    found = {curve: knee(points) for curve, points in by_curve(summaries).items()}
    return {curve: point for curve, point in found.items() if point is not None}
