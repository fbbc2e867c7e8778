"""The contests as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lalign.evaluation.named_table import named_table
from lalign.judging.report import ContestReport, Share

if TYPE_CHECKING:
    from rich.console import Group

CAPTION = (
    "In %, below it the 95 % interval (paired bootstrap over prompts). score: wins and half the ties. p: exact sign "
    "test. order: verdicts that turned with the order of the answers (they count as ties), below it for the answer "
    "shown first / second. length: score where the first one's answer is shorter / alike / longer, below it the mean "
    "of these. {unparsable} unparsable."
)


HEADINGS = ("n", "win", "tie", "lose", "score", "p", "order", "length")


def contest_table(reports: Sequence[ContestReport]) -> Group:
    """A row a contest."""
    unparsable = sum(report.unparsable for report in reports)
    rows = [((report.first, report.second), _figures(report)) for report in reports]
    return named_table("contest", HEADINGS, rows, CAPTION.format(unparsable=unparsable or "None was"))


def _figures(report: ContestReport) -> list[str]:
    shares = [_cell(share) for share in (report.win, report.tie, report.lose, report.score)]
    p = "<.001" if report.p_value < 0.001 else f"{report.p_value:.3f}".removeprefix("0")
    return [str(report.judged), *shares, p, _order(report), _length(report)]


def _per_cent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


def _cell(share: Share) -> str:
    if share.value is None:
        return "–"
    low_high = "" if share.low is None else f"\n{_per_cent(share.low)}–{_per_cent(share.high)}"
    return f"{100 * share.value:.1f}{low_high}"


def _order(report: ContestReport) -> str:
    bias = report.bias
    if not bias.asked:
        return "–"
    turned, first, second = (
        _per_cent(count / bias.asked) for count in (bias.asked - bias.agreed, bias.first, bias.second)
    )
    return f"{turned}\n{first}/{second}"


def _length(report: ContestReport) -> str:
    parts = "/".join(_per_cent(share.value) for share in report.by_length.values())
    return f"{parts}\n{_per_cent(report.controlled)}"
