"""How good the points of a sweep are against how far they are from the base model: what alignment is traded for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lalign.figures.canvas import COLOURS, MARKERS, name_axes, set_ticks
from lalign.method.recipe import Recipe
from lalign.sweep.metrics import PointSummary

GREY = "#777777"


@dataclass(frozen=True, slots=True)
class Level:
    """How good a point is, and the interval of that; low and high are the value itself where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How good points are, by one measure: more is better.

    even: the value at which nothing is gained (of guessing, of a draw), drawn as a line; None for no line.
    """

    title: str
    unit: str
    levels: Mapping[Recipe, Level]
    even: float | None = None


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, gain) those than which none has as much gain at no more cost, from the cheapest up."""
    kept: list[tuple[float, float]] = []
    for cost, gain in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not kept or gain > kept[-1][1]:
            kept.append((cost, gain))
    return kept


def draw_pareto(cell: Any, quality: Quality, groups: Mapping[str, Sequence[PointSummary]]) -> None:
    """Draw a measure of the points over their KL, and the front of those not outdone with their ratios."""
    known = [point for points in groups.values() for point in points if point.alignment in quality.levels]
    kept = front((point.kl.mean, quality.levels[point.alignment].value) for point in known)
    cell.plot(*zip(*kept, strict=True), color=GREY, linewidth=0.8, zorder=1)
    if quality.even is not None:
        cell.axhline(quality.even, color="#666666", linestyle="--", linewidth=0.8, zorder=0)
    for look, points in enumerate(groups.values()):
        look %= len(COLOURS)
        for point in points:
            if (level := quality.levels.get(point.alignment)) is None:
                continue
            at = point.kl.mean, level.value
            spread = ([max(0, level.value - level.low)], [max(0, level.high - level.value)])
            face = COLOURS[look] if at in kept else "white"
            looks: dict[str, Any] = {"color": COLOURS[look], "marker": MARKERS[look], "markersize": 3.5}
            cell.errorbar(*at, yerr=spread, markerfacecolor=face, elinewidth=0.7, capsize=1.5, linestyle="", **looks)
            if at in kept:
                label = f"{point.alignment.strength:g}"
                cell.annotate(label, at, xytext=(3, 2), textcoords="offset points", color=COLOURS[look])
    cell.margins(x=0.12)
    set_ticks(cell, [point.kl.mean for point in known])
    name_axes(cell, quality.title, quality.unit, "KL, nats per token")
