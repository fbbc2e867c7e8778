"""Where degeneration sets in as the ratio grows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lalign.sweep.curves import by_curve

if TYPE_CHECKING:
    from lalign.sweep.metrics import PointSummary

KNEE_RULE = (
    "Going up from the smallest ratio of each recipe and p (0 is the base model in most), the knee is the last point "
    "before responses degenerate: before they have more repeated 4-grams and fewer distinct bigrams than those to the "
    "same prompts at the smallest ratio, both by more than 0.02 in the mean and by an exact test that flips signs of "
    "prompts "
    "(one-sided, 5 % divided by the ratios compared). One ratio compared needs 5 prompts, 5 need 7, 50 need 10: with "
    "fewer there is no knee."
)
KNEE_FLOOR = 0.02
KNEE_LEVEL = 0.05
KNEE_MARK = "◆"


def knee(summaries: Iterable[PointSummary]) -> PointSummary | None:
    """The knee among the points of one curve, by `KNEE_RULE`.

    It is the largest ratio of all where no point degenerates, and the smallest where the next one does. None where
    fewer than two points have responses, and where a point on the way shares fewer than `least_prompts` with the
    smallest ratio.
    """
    from lalign.sweep.paired import sign_flip, worsening  # numpy, which the command line's help does without

    points = sorted((point for point in summaries if point.responses), key=lambda point: point.alignment.strength)
    if len(points) < 2:
        return None
    last = base = points[0]
    for point in points[1:]:
        worse = worsening(base, point)
        if worse.shape[-1] < least_prompts(len(points)):
            return None
        level = KNEE_LEVEL / (len(points) - 1)
        if all(measure.mean() > KNEE_FLOOR and sign_flip(measure) <= level for measure in worse):
            break
        last = point
    return last


def knees(summaries: Iterable[PointSummary]) -> dict[str, PointSummary]:
    """The knee of each curve that has one, by the curve's name."""
    found = {curve: knee(points) for curve, points in by_curve(summaries).items()}
    return {curve: point for curve, point in found.items() if point is not None}


def shortages(summaries: Iterable[PointSummary]) -> dict[str, int]:
    """How many prompts a knee needs, of each curve that has several points and no knee."""
    groups = by_curve(summaries)
    return {
        curve: least_prompts(len(group)) for curve, group in groups.items() if len(group) > 1 and knee(group) is None
    }


def least_prompts(points: int) -> int:
    """The fewest prompts with which the test can find anything, were all worse off; `points` with the smallest."""
    return math.ceil(math.log2((points - 1) / KNEE_LEVEL))
