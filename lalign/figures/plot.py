"""The curves of a sweep, as PDF, PNG or SVG; matplotlib is loaded only when one is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from lalign.figures.canvas import (
    COLOURS,
    DASHES,
    MARKERS,
    About,
    Width,
    counted,
    name_axes,
    new_figure,
    save,
    set_ticks,
    style,
    write_below,
)
from lalign.figures.pareto import Quality, draw_pareto
from lalign.sweep.curves import by_curve, has_several_recipes
from lalign.sweep.knee import knees
from lalign.sweep.metrics import Measure, PointSummary

Over = Literal["ratio", "kl"]
MOST_IN_LEGEND = 7
KNEE = "knee: last before\ndegeneration; at\nthe end: no sign"
MOST_MARKERS = 12
# More bands than these would hide one another: whiskers, side by side, say the same.
MOST_BANDS = 2
ACROSS = {"column": 2, "full": 4}


@dataclass(frozen=True, slots=True)
class Panel:
    """One small multiple: a figure of the points over the ratio or their KL.

    scale: what to multiply by to get the unit.
    """

    title: str
    unit: str
    measure: Callable[[PointSummary], Measure]
    scale: float = 1.0


PANELS = (
    Panel("KL(aligned ‖ base)", "nats per token", lambda point: point.kl),
    Panel("Flipped steps", "% of tokens", lambda point: point.flipped, 100),
    Panel("Response length", "tokens", lambda point: point.length),
    Panel("Repeated 4-grams", "% of 4-grams", lambda point: point.repeated_4gram, 100),
    Panel("Distinct bigrams", "% of bigrams", lambda point: point.distinct_2, 100),
    Panel("Log p, base", "nats per token", lambda point: point.logprob_base),
    Panel("Log p, principled", "nats per token", lambda point: point.logprob_principle),
)


def plot_sweep(
    summaries: Sequence[PointSummary],
    path: Path,
    about: About | None = None,
    *,
    over: Over = "ratio",
    width: Width = "full",
    qualities: Sequence[Quality] = (),
) -> None:
    """Draw each figure of the points, a line a curve, with the middle half of the responses as a band or whisker.

    Args:
        summaries: the points of a sweep.
        path: a .pdf, .png or .svg file, written over.
        over: what is drawn across; with several recipes it is the KL in any case, the scale that they share.
        qualities: what is known of how good the points are; a panel each, over the KL.

    Raises as `canvas.save`.
    """
    groups, marked = by_curve(summaries), knees(summaries)
    axes_of = [axis(panel, summaries, over) for panel in PANELS]
    caption = (about or About()).line(counted(point.responses for points in groups.values() for point in points))
    with style():
        cells, legend, figure = _cells(len(PANELS) + len(qualities), width)
        # The two log-probabilities share a scale, so that they compare.
        cells[-1].sharey(cells[-2])
        for cell, quality in zip(cells, qualities, strict=False):
            draw_pareto(cell, quality, groups)
        for cell, panel, (name, across) in zip(cells[len(qualities) :], PANELS, axes_of, strict=True):
            shifts = _shifts(groups, across)
            for look, (curve, points) in enumerate(groups.items()):
                _curve(cell, panel, across, points, marked.get(curve), look, shifts[look], len(groups))
            name_axes(cell, panel.title, panel.unit, name)
            set_ticks(cell, [across(point) for points in groups.values() for point in points])
        _legend(legend, list(groups), bool(marked), bool(qualities))
        write_below(figure, caption)
        shown = ", ".join([*(quality.title for quality in qualities), *(panel.title for panel in PANELS)])
        told = f"Means over {axes_of[1][0]} of {shown}; curves: {', '.join(groups) or 'none'}. {caption}"
        save(figure, path, "What the strength of alignment does to responses", told)


def axis(
    panel: Panel, summaries: Sequence[PointSummary], over: Over = "ratio"
) -> tuple[str, Callable[[PointSummary], float]]:
    """What a panel is drawn over, and its name: the ratio or the KL; with several recipes the KL, which they share.

    The KL itself is drawn over the ratio, each recipe's own.
    """
    recipes = [point.alignment for point in summaries]
    if panel is not PANELS[0] and (over == "kl" or has_several_recipes(recipes)):
        return "KL, nats per token", lambda point: point.kl.mean
    in_nats = bool(recipes) and all(recipe.axis == "kl" for recipe in recipes)
    return "kl, nats" if in_nats else "ratio", lambda point: point.alignment.strength


def _cells(panels: int, width: Width) -> tuple[list[Any], Any, Any]:
    """The cells of so many panels, the legend's, and their figure."""
    across = ACROSS[width]
    down = math.ceil((panels + 1) / across)
    figure = new_figure(width, 0.4 + 1.62 * down)
    cells = list(figure.subplots(down, across, squeeze=False).flat)
    # The legend stands in the upper right corner, and what is left over at the end is empty.
    legend = cells.pop(across - 1)
    for cell in cells[panels:]:
        cell.set_axis_off()
    return cells[:panels], legend, figure


def _shifts(groups: Mapping[str, Sequence[PointSummary]], across: Callable[[PointSummary], float]) -> list[float]:
    """How far each curve is drawn beside its place, so that the whiskers of several stand side by side."""
    places = sorted({across(point) for points in groups.values() for point in points})
    shared = sum(len(points) for points in groups.values()) > len(places)
    if len(groups) <= MOST_BANDS or len(places) < 2 or not shared:
        return [0.0] * len(groups)
    gap = min(after - before for before, after in itertools.pairwise(places))
    return [0.5 * gap * ((look + 0.5) / len(groups) - 0.5) for look in range(len(groups))]


def _curve(
    cell: Any,
    panel: Panel,
    across: Callable[[PointSummary], float],
    points: Sequence[PointSummary],
    knee: PointSummary | None,
    look: int,
    shift: float,
    curves: int,
) -> None:
    look %= len(COLOURS)
    colour = COLOURS[look]
    places = [across(point) + shift for point in points]
    measures = [panel.measure(point) for point in points]
    low, mean, high = (
        [panel.scale * getattr(measure, name) for measure in measures] for name in ("low", "mean", "high")
    )
    every = max(1, math.ceil(len(points) / MOST_MARKERS))
    if curves <= MOST_BANDS:
        cell.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        for edge in (low, high):
            cell.plot(places, edge, color=colour, linewidth=0.4, alpha=0.6)
    else:
        cell.vlines(places[::every], low[::every], high[::every], color=colour, linewidth=1.0, alpha=0.55)
    cell.plot(places, mean, color=colour, linestyle=DASHES[look], marker=MARKERS[look], markersize=3, markevery=every)
    if knee is not None:
        at = across(knee) + shift, panel.scale * panel.measure(knee).mean
        ring = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "markeredgecolor": colour}
        cell.plot(*at, markeredgewidth=1.1, clip_on=False, **ring)


def _legend(cell: Any, curves: Sequence[str], has_knee: bool, has_front: bool) -> None:
    Line2D, Patch = import_module("matplotlib.lines").Line2D, import_module("matplotlib.patches").Patch
    entries = [
        Line2D([], [], color=COLOURS[look], linestyle=DASHES[look], marker=MARKERS[look], markersize=3, label=curve)
        for look, curve in enumerate(curves[:MOST_IN_LEGEND])
    ]
    if len(curves) > MOST_IN_LEGEND:
        entries.append(Line2D([], [], linestyle="", label=f"{len(curves) - MOST_IN_LEGEND} more, in\nthis order again"))
    if len(curves) <= MOST_BANDS:
        entries.append(Patch(color=COLOURS[0], alpha=0.2, label="middle half\nof responses"))
    else:
        entries.append(Line2D([], [], color="#777777", linestyle="", marker="|", label="middle half\nof responses"))
    if has_knee:
        ring = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "markeredgecolor": "#444444"}
        entries.append(Line2D([], [], linestyle="", label=KNEE, **ring))
    if has_front:
        entries.append(Line2D([], [], color="#777777", linewidth=0.8, label="Pareto front"))
    cell.set_axis_off()
    anchor = {"loc": "center left", "bbox_to_anchor": (-0.42, 0.5), "handletextpad": 0.5}
    # Not in the layout, in which it would make its whole column narrower.
    cell.legend(handles=entries, frameon=False, handlelength=2.0, **anchor).set_in_layout(False)
