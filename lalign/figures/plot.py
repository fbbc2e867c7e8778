"""The curves of a sweep and of an evaluation, as PNG or SVG; matplotlib is loaded only when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from lalign.errors import OptionError, OutputError
from lalign.sweep.curves import by_curve, has_several_recipes
from lalign.sweep.knee import knees
from lalign.sweep.metrics import Measure, PointSummary
from lalign.text import printable

PlotFormat = Literal["png", "svg", "html"]
# One look for each curve, told apart by marker, dash and lightness as well as by hue.
COLOURS = ("#1b1b3a", "#c8553d", "#3a7d6b", "#8f6bb3", "#d9a441", "#5b8fc9", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))
MOST_IN_LEGEND = 7
MOST_MARKERS = 12
LONGEST_TITLE = 40


@dataclass(frozen=True, slots=True)
class Panel:
    """One small multiple: a figure of the points over the ratio.

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
    Panel("Log-probability, base", "nats per token", lambda point: point.logprob_base),
    Panel("Log-probability, principled", "nats per token", lambda point: point.logprob_principle),
)


def plot_format(path: Path) -> PlotFormat:
    """The format that a plot's file name asks for.

    Raises `OptionError` for another ending than .png, .svg or .html, and for the first two where matplotlib is absent.
    """
    suffix = path.suffix.lower()
    if suffix == ".html":
        return "html"
    if suffix not in (".png", ".svg"):
        raise OptionError("plot", f"must name a .png, .svg or .html file, not {path.name!r}")
    _matplotlib()
    return "png" if suffix == ".png" else "svg"


def plot_sweep(summaries: Sequence[PointSummary], path: Path) -> None:
    """Draw each figure of the points, a line a curve, with the middle half of the responses as a band.

    Over the ratio; with several recipes over what `axis` says.

    Args:
        summaries: the points of a sweep.
        path: a .png or .svg file, written over.

    Raises `OptionError` for another ending or where matplotlib is absent, `OutputError` where the file cannot be
    written.
    """
    groups, marked = by_curve(summaries), knees(summaries)
    several = has_several_recipes(point.alignment for point in summaries)
    with style():
        figure = new_figure(13, 6)
        axes = figure.subplots(2, 4, sharex=not several)
        # The last cell is the legend's; the two log-probabilities share a scale, so that they compare.
        cells = [*axes[0, :3], *axes[1]]
        cells[-1].sharey(cells[-2])
        for cell, panel in zip(cells, PANELS, strict=True):
            name, across = axis(panel, several)
            for look, (curve, points) in enumerate(groups.items()):
                _curve(cell, panel, across, points, marked.get(curve), look)
            _name_axes(cell, panel.title, panel.unit, name)
        for cell in axes[0, :3]:
            cell.tick_params(labelbottom=True)
        _legend(axes[0, 3], list(groups), bool(marked))
        save(figure, path)


def plot_accuracy(path: Path, series: Mapping[str, Sequence[tuple[float, float, float, float]]], chance: float) -> None:
    """Draw accuracy over ratio, a panel a domain, with intervals and the level that guessing reaches (Fig. 5).

    Args:
        path: a .png or .svg file, written over.
        series: (ratio, accuracy, low, high) of each domain, shares of 1; low and high bound the interval.
        chance: accuracy of guessing, a share of 1.

    Raises as `plot_sweep`.
    """
    across = min(3, max(1, len(series)))
    down = max(1, math.ceil(len(series) / across))
    with style():
        figure = new_figure(0.9 + 3.1 * across, 0.7 + 2.5 * down)
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for cell, (domain, points) in zip(axes.flat, series.items(), strict=False):
            rows = sorted(points)
            ratios, accuracies = [row[0] for row in rows], [100 * row[1] for row in rows]
            below = [100 * max(0, accuracy - low) for _, accuracy, low, _ in rows]
            above = [100 * max(0, high - accuracy) for _, accuracy, _, high in rows]
            cell.errorbar(
                ratios, accuracies, (below, above), color=COLOURS[0], marker="o", markersize=4, capsize=3, elinewidth=1
            )
            cell.axhline(100 * chance, color="#666666", linestyle="--", linewidth=1)
            _name_axes(cell, domain, "accuracy, %")
            cell.tick_params(labelbottom=True)  # also where the cell below is empty
        for cell in axes.flat[len(series) :]:
            cell.set_axis_off()
        first = axes[0, 0]
        guess = {"transform": first.get_yaxis_transform(), "ha": "right", "va": "bottom", "fontsize": "small"}
        first.text(0.99, 100 * chance, "chance", color="#555555", **guess)
        save(figure, path)


def axis(panel: Panel, several_recipes: bool) -> tuple[str, Callable[[PointSummary], float]]:
    """What a panel is drawn over, and its name: the ratio; with several recipes their KL, the scale they share.

    The KL itself is drawn over the ratio, each recipe's own.
    """
    if several_recipes and panel is not PANELS[0]:
        return "KL, nats per token", lambda point: point.kl.mean
    return "ratio", lambda point: point.alignment.strength


def _curve(
    cell: Any,
    panel: Panel,
    across: Callable[[PointSummary], float],
    points: Sequence[PointSummary],
    knee: PointSummary | None,
    look: int,
) -> None:
    look %= len(COLOURS)
    places = [across(point) for point in points]
    measures = [panel.measure(point) for point in points]
    low, mean, high = (
        [panel.scale * getattr(measure, name) for measure in measures] for name in ("low", "mean", "high")
    )
    colour = COLOURS[look]
    cell.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
    every = max(1, math.ceil(len(points) / MOST_MARKERS))
    cell.plot(places, mean, color=colour, linestyle=DASHES[look], marker=MARKERS[look], markersize=4.5, markevery=every)
    if knee is not None:
        at = across(knee), panel.scale * panel.measure(knee).mean
        cell.plot(*at, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.4)


def _legend(cell: Any, curves: Sequence[str], has_knee: bool) -> None:
    Line2D, Patch = import_module("matplotlib.lines").Line2D, import_module("matplotlib.patches").Patch
    entries = [
        Line2D([], [], color=COLOURS[look], linestyle=DASHES[look], marker=MARKERS[look], label=f"{curve}: mean")
        for look, curve in enumerate(curves[:MOST_IN_LEGEND])
    ]
    if len(curves) > MOST_IN_LEGEND:
        entries.append(Line2D([], [], linestyle="", label=f"the next {len(curves) - MOST_IN_LEGEND} in the same order"))
    entries.append(Patch(color=COLOURS[0], alpha=0.13, label="middle half of responses"))
    if has_knee:
        label = "knee: last point before\ndegeneration sets in\n(the largest ratio: none seen)"
        ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": COLOURS[0]}
        entries.append(Line2D([], [], linestyle="", label=label, **ring))
    cell.set_axis_off()
    cell.legend(handles=entries, loc="center left", frameon=False, labelspacing=1.0, handlelength=3.2)


def _name_axes(cell: Any, title: str, unit: str, across: str = "ratio") -> None:
    # A title may come from a user's file: no mathematics in it, no control characters.
    shown = printable(title)
    shown = shown if len(shown) <= LONGEST_TITLE else shown[: LONGEST_TITLE - 1] + "…"
    cell.set_title(shown, loc="left", parse_math=False)
    cell.set_xlabel(across)
    cell.set_ylabel(unit)
    cell.spines[["top", "right"]].set_visible(False)
    cell.grid(axis="y", color="#dddddd", linewidth=0.6)
    cell.set_axisbelow(True)


def _matplotlib() -> Any:
    try:
        return import_module("matplotlib")
    except ImportError:
        raise OptionError("plot", "needs matplotlib: pip install 'lalign[plot]'") from None


def style() -> AbstractContextManager[None]:
    """The look that all figures share, while entered."""
    settings = {
        "font.size": 10,
        "axes.titlesize": 11,
        "svg.fonttype": "none",  # text stays text: small, searchable, and read out
        "svg.hashsalt": "lalign",  # the same sweep gives the same file
    }
    context: AbstractContextManager[None] = _matplotlib().rc_context(settings)
    return context


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches."""
    figure = import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure


def save(figure: Any, path: Path) -> None:
    """Write a figure as .png or .svg. Raises as `plot_sweep`."""
    kind = plot_format(path)
    if kind == "html":
        raise OptionError("plot", f"must name a .png or .svg file, not {path.name!r}")
    metadata = {"Date": None} if kind == "svg" else None
    try:
        figure.savefig(path, format=kind, dpi=150, metadata=metadata)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
