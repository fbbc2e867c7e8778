"""Where degeneration sets in as the ratio grows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lalign.sweep.metrics import PointSummary

KNEE_RULE = (
    "Going up from the smallest ratio of each p (0 is the base model), the knee is the last point before the mean "
    "share of repeated 4-grams rises, or mean distinct-2 falls, by more than two standard errors of the smallest "
    "ratio's mean and by more than 0.02."
)
KNEE_FLOOR = 0.02
KNEE_MARK = "◆"


def by_p(summaries: Iterable[PointSummary]) -> dict[float, list[PointSummary]]:
    """The points of each p with at least one response, from the smallest ratio up."""
    groups: dict[float, list[PointSummary]] = {}
    for summary in sorted(summaries, key=lambda summary: summary.alignment.ratio):
        if summary.responses:
            groups.setdefault(float(summary.alignment.point.get("p", math.nan)), []).append(summary)
    return dict(sorted(groups.items()))


def knee(summaries: Iterable[PointSummary]) -> PointSummary | None:
    """The knee among the points of one p, by `KNEE_RULE`; None where fewer than two points have responses.

    It is the largest ratio of all where no point degenerates, and the smallest where every other one does.
    """
    points = sorted((point for point in summaries if point.responses), key=lambda point: point.alignment.ratio)
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


def knees(summaries: Iterable[PointSummary]) -> dict[float, PointSummary]:
    """The knee of each p that has one."""
    found = {p: knee(points) for p, points in by_p(summaries).items()}
    return {p: point for p, point in found.items() if point is not None}
