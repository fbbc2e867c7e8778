"""Which points of a sweep make one curve: those of a recipe, and of a p where it has one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lalign.method.recipe import Recipe

if TYPE_CHECKING:
    from lalign.sweep.metrics import PointSummary


def has_several_recipes(points: Iterable[Recipe]) -> bool:
    """True where points are of more than one recipe, so that their ratios do not compare and only their KL does."""
    return len({point.recipe for point in points}) > 1


def labels(points: Iterable[Recipe]) -> dict[Recipe, str]:
    """What the curve of each point is called: `p = 2`, with the recipe before it where there are several."""
    points = list(points)
    several = has_several_recipes(points)
    return {point: point.curve if several else point.curve.removeprefix(f"{point.recipe}, ") for point in points}


def by_curve(summaries: Iterable[PointSummary]) -> dict[str, list[PointSummary]]:
    """The points of each curve with at least one response, from the smallest ratio up.

    Curves go by recipe in the order of the points, then by p.
    """
    summaries = list(summaries)
    names = labels(summary.alignment for summary in summaries)
    order = {recipe: index for index, recipe in enumerate(dict.fromkeys(point.recipe for point in names))}

    def place(summary: PointSummary) -> tuple[int, float, float]:
        point = summary.alignment
        return order[point.recipe], float(point.point.get("p", 0)), point.strength

    groups: dict[str, list[PointSummary]] = {}
    for summary in sorted(summaries, key=place):
        if summary.responses:
            groups.setdefault(names[summary.alignment], []).append(summary)
    return groups
