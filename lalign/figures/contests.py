"""Wins, ties and losses as stacked bars, one a contest (the paper's Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lalign.figures.plot import LONGEST_TITLE, new_figure, save, style
from lalign.judging.report import ContestReport
from lalign.text import printable

# Told apart by lightness as well as by hue; with the colour of the writing on each.
LOOKS = {"win": ("#2f6f8f", "white"), "tie": ("#d9d4c7", "black"), "lose": ("#c8553d", "white")}
# A part of less than so many per cent has no room for its figure.
NARROWEST = 5


def plot_contests(path: Path, reports: Sequence[ContestReport]) -> None:
    """Draw the share of wins, ties and losses of each contest, and the interval of the score as a whisker.

    Args:
        path: a .png or .svg file, written over.
        reports: contests of which some matches were judged are drawn, from the top.

    Raises as `plot.plot_sweep`.
    """
    shown = [report for report in reports if report.judged]
    with style():
        figure = new_figure(8.5, 1.5 + 0.62 * max(1, len(shown)))
        cell = figure.subplots()
        for row, report in enumerate(shown):
            left = 0.0
            for name, (colour, ink) in LOOKS.items():
                width = 100 * (getattr(report, name).value or 0)
                cell.barh(row, width, left=left, height=0.62, color=colour, label=name if not row else None)
                if width >= NARROWEST:
                    cell.text(left + width / 2, row, f"{width:.0f}", ha="center", va="center", color=ink)
                left += width
            score = report.score
            if score.value is not None and score.low is not None and score.high is not None:
                at, below, above = (100 * part for part in (score.value, score.low, score.high))
                cell.errorbar(at, row - 0.42, xerr=([at - below], [above - at]), fmt="|", color="black", capsize=3)
        cell.set_yticks(range(len(shown)), [_label(report) for report in shown], parse_math=False)
        cell.set_ylim(len(shown) - 0.45, -0.75)
        cell.set_xlim(0, 100)
        cell.set_xlabel("% of prompts; above each bar its score (wins and half the ties), 95 % interval")
        cell.axvline(50, color="black", linewidth=0.8, linestyle="--", zorder=0)
        cell.spines[["top", "right", "left"]].set_visible(False)
        cell.tick_params(axis="y", length=0)
        figure.legend(*cell.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
        save(figure, path)


def _label(report: ContestReport) -> str:
    return f"{_short(report.first)}\nvs {_short(report.second)} (n = {report.judged})"


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= LONGEST_TITLE else shown[: LONGEST_TITLE - 1] + "…"
