"""The figures of a sweep as a table for a terminal, the knees marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from lalign.sweep.curves import by_curve, has_several_recipes
from lalign.sweep.knee import KNEE_MARK, knees, shortages
from lalign.sweep.metrics import PointSummary


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its heading, its unit, and what it shows of a point."""

    heading: str
    unit: str
    cell: Callable[[PointSummary], str]


RECIPE = Column("recipe", "", lambda point: point.alignment.recipe)
P = Column("p", "", lambda point: f"{point.alignment.point['p']:g}" if "p" in point.alignment.point else "")
COLUMNS = (
    Column("ratio", "", lambda point: f"{point.alignment.strength:g}"),
    Column("length", "tokens", lambda point: f"{point.length.mean:.1f}"),
    Column("KL", "nats", lambda point: f"{point.kl.mean:.3f}"),
    Column("KL max", "nats", lambda point: f"{point.kl_max:.2f}"),
    Column("flipped", "%", lambda point: f"{100 * point.flipped.mean:.1f}"),
    Column("dist-2", "%", lambda point: f"{100 * point.distinct_2.mean:.1f}"),
    Column("rep-4", "%", lambda point: f"{100 * point.repeated_4gram.mean:.1f}"),
)
LOGPROBS = (
    Column("lp base", "nats", lambda point: f"{point.logprob_base.mean:.2f}"),
    Column("lp princ", "nats", lambda point: f"{point.logprob_principle.mean:.2f}"),
)
FAILED = Column("failed", "", lambda point: str(point.failures))


def columns(summaries: Sequence[PointSummary]) -> tuple[Column, ...]:
    """What is shown of points: the recipe where there are several, p where one has it, failures where there are any."""
    points = [summary.alignment for summary in summaries]
    in_nats = bool(points) and all(point.axis == "kl" for point in points)
    return (
        *([RECIPE] if has_several_recipes(points) else []),
        *([P] if any("p" in point.point for point in points) else []),
        *([replace(COLUMNS[0], heading="kl", unit="nats"), *COLUMNS[1:]] if in_nats else COLUMNS),
        *LOGPROBS,
        *([FAILED] if any(summary.failures for summary in summaries) else []),
    )


def legend(summaries: Sequence[PointSummary]) -> str:
    """What the table's mark and headings mean, and where the sweep has not gone far enough to show a knee."""
    lines = [
        "KL, lp: per token, lp the log-probability under the base and the",
        "principled model; dist-2: distinct bigrams; rep-4: repeated 4-grams.",
    ]
    marked = knees(summaries)
    if marked:
        lines.append(f"{KNEE_MARK} knee: the last point before dist-2 and rep-4 are worse than at the")
        lines.append("smallest ratio, prompt by prompt.")
    groups = by_curve(summaries)
    if open_ended := [curve for curve, point in marked.items() if point is groups[curve][-1]]:
        lines.append(f"{'; '.join(open_ended)}: not so at any ratio tried; the knee may lie higher.")
    for curve, prompts in shortages(summaries).items():
        lines.append(f"{curve}: too few prompts for a knee; {prompts} answered at every ratio are needed.")
    return "\n".join(lines)


def table(summaries: Sequence[PointSummary]) -> Table:
    """One row a point, in the order given, and the legend below; within 80 columns.

    Several recipes leave no room for the log-probabilities; plots and pages show them.
    """
    marked = {point.alignment for point in knees(summaries).values()}
    shown = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, caption=legend(summaries), caption_justify="left")
    several = has_several_recipes(point.alignment for point in summaries)
    kept = [column for column in columns(summaries) if not (several and column in LOGPROBS)]
    for column in kept:
        shown.add_column(f"{column.heading}\n{column.unit}", justify="right", no_wrap=True)
    shown.add_column("\n")
    for point in summaries:
        cells = [column.cell(point) for column in kept]
        shown.add_row(*cells, KNEE_MARK if point.alignment in marked else "")
    return shown
