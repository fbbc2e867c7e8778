"""Accuracy over ratio, as the paper's Fig. 5."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from lalign.evaluation.runs import Run
from lalign.figures.canvas import (
    COLOURS,
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

GREY = "#666666"


def plot_accuracy(
    path: Path,
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    chance: float,
    asked: str,
    about: About | None = None,
    width: Width = "full",
) -> None:
    """Draw accuracy over ratio, a panel a domain, with intervals and the level that guessing reaches.

    Args:
        path: a .pdf, .png or .svg file, written over.
        series: (ratio, accuracy, low, high) of each domain, shares of 1; low and high bound the interval.
        chance: accuracy of guessing, a share of 1.
        asked: how much was asked, for the line below.

    Raises as `canvas.save`.
    """
    across = min(3 if width == "full" else 2, max(1, len(series)))
    down = max(1, math.ceil(len(series) / across))
    caption = (about or About()).line(f"{asked}; bars: 95 % intervals")
    with style():
        figure = new_figure(width, 0.75 + 1.55 * down)
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for cell, (domain, points) in zip(axes.flat, series.items(), strict=False):
            rows = sorted(points)
            ratios, accuracies = [row[0] for row in rows], [100 * row[1] for row in rows]
            below = [100 * max(0, accuracy - low) for _, accuracy, low, _ in rows]
            above = [100 * max(0, high - accuracy) for _, accuracy, _, high in rows]
            cell.errorbar(
                ratios,
                accuracies,
                (below, above),
                color=COLOURS[0],
                marker="o",
                markersize=3,
                capsize=2,
                elinewidth=0.8,
            )
            cell.axhline(100 * chance, color=GREY, linestyle="--", linewidth=0.8)
            name_axes(cell, domain, "accuracy, %", "ratio")
            set_ticks(cell, ratios)
            cell.tick_params(labelbottom=True)  # also where the cell below is empty
        for cell in axes.flat[len(series) :]:
            cell.set_axis_off()
        guess = import_module("matplotlib.lines").Line2D([], [], color=GREY, linestyle="--", linewidth=0.8)
        figure.legend([guess], [f"chance, {100 * chance:.0f} %"], loc="outside upper right", frameon=False)
        write_below(figure, caption)
        save(figure, path, "Accuracy over ratio", f"Accuracy over ratio of {', '.join(series)}. {caption}")


def plot_runs(path: Path, runs: Sequence[Run], width: Width = "full") -> None:
    """As `plot_accuracy`, a panel an evaluation; their principle is told where it is that of all."""
    asked = f"{counted(run.questions for run in runs)} questions"
    principles = {run.stored["settings"].get("principle") for run in runs}
    about = about_evaluation(None, *principles) if len(principles) == 1 else About(note="principles differ")
    plot_accuracy(path, {run.name: run.points for run in runs}, runs[0].chance, asked, about, width)


def about_evaluation(model: str | None, principle: str | None) -> About:
    """What the figure of an evaluation says: without a principle of the job's, that of each user is asked with."""
    note = "principle: each user's preference" if principle is None else None
    return About(model, () if principle is None else (principle,), note)
