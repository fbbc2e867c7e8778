"""Wins, ties and losses as stacked bars, one a contest (the paper's Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lalign.figures.canvas import About, Width, counted, new_figure, save, shortened, style, wrapped, write_below
from lalign.judging.report import ContestReport

# Told apart by lightness as well as by hue; with the colour of the writing on each.
LOOKS = {"win": ("#0072b2", "white"), "tie": ("#dcdcdc", "black"), "lose": ("#d55e00", "black")}
# A part of less than so many per cent has no room for its figure.
NARROWEST = {"column": 12, "full": 5}
ACROSS = "% of prompts; below each bar its score (wins and half the ties), with its 95 % interval"


# So that the line at 50 % does not run through the names.
BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def plot_contests(
    path: Path, reports: Sequence[ContestReport], about: About | None = None, width: Width = "full"
) -> None:
    """Draw the share of wins, ties and losses of each contest, and the interval of the score as a whisker.

    Args:
        path: a .pdf, .png or .svg file, written over.
        reports: contests of which some matches were judged are drawn, from the top.

    Raises as `canvas.save`.
    """
    shown = [report for report in reports if report.judged]
    caption = (about or About()).line(counted(report.judged for report in shown))
    with style():
        figure = new_figure(width, 1.15 + 0.5 * max(1, len(shown)))
        cell = figure.subplots()
        for row, report in enumerate(shown):
            _bar(cell, row, report, NARROWEST[width])
        cell.set_yticks([])
        cell.set_ylim(len(shown) - 0.4, -0.75)
        cell.set_xlim(0, 100)
        cell.set_xlabel(wrapped(ACROSS, 0.9 * figure.get_figwidth()))
        cell.axvline(50, color="black", linewidth=0.6, linestyle="--", zorder=0)
        cell.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(*cell.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
        write_below(figure, caption)
        told = "; ".join(_label(report) for report in shown)
        save(figure, path, "Wins, ties and losses", f"Shares of wins, ties and losses of {told}. {caption}")


def _bar(cell: Any, row: int, report: ContestReport, narrowest: float) -> None:
    cell.text(0, row - 0.28, _label(report), ha="left", va="bottom", parse_math=False, bbox=BLANK)
    left = 0.0
    for name, (colour, ink) in LOOKS.items():
        width = 100 * (getattr(report, name).value or 0)
        cell.barh(row, width, left=left, height=0.44, color=colour, label=name if not row else None)
        if width >= narrowest:
            cell.text(left + width / 2, row, f"{width:.0f}", ha="center", va="center", color=ink)
        left += width
    score = report.score
    if score.value is not None and score.low is not None and score.high is not None:
        at, below, above = (100 * part for part in (score.value, score.low, score.high))
        bounds = ([max(0, at - below)], [max(0, above - at)])
        cell.errorbar(at, row + 0.34, xerr=bounds, fmt="|", color="black", capsize=2, elinewidth=0.9)


def _label(report: ContestReport) -> str:
    return f"{shortened(report.first)} vs {shortened(report.second)} (n = {report.judged})"
