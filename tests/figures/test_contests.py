"""The stacked bars of `lalign judge --plot`: the shares of the table, and names as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lalign.figures.contests import plot_contests
from lalign.judging.judged import Judged
from lalign.judging.report import contest_reports


def drawn(path: Path, outcomes: list[Any], first: str = "ours", second: str = "theirs") -> str:
    judged = [Judged(n, first, second, outcome, ("A", "B"), (1, 1)) for n, outcome in enumerate(outcomes)]
    plot_contests(path, contest_reports(judged))
    return path.read_text(encoding="utf-8")


def test_each_bar_has_its_shares_and_how_many_were_judged(tmp_path: Path) -> None:
    outcomes = ["win"] * 12 + ["tie"] * 5 + ["lose"] * 3 + ["unparsable"] * 7
    figure = drawn(tmp_path / "bars.svg", outcomes)
    for text in ("60", "25", "15", "win", "tie", "lose", "ours vs theirs (n = 20)"):
        assert f">{text}<" in figure


def test_a_part_without_room_has_no_figure(tmp_path: Path) -> None:
    figure = drawn(tmp_path / "bars.svg", ["win"] * 97 + ["lose"] * 3)
    assert ">97<" in figure
    assert ">3<" not in figure


@pytest.mark.parametrize("name", ["$x$", "<b>&", "a\x1b[31m", "n" * 500])
def test_a_name_is_shown_as_it_is_and_not_too_long(tmp_path: Path, name: str) -> None:
    figure = drawn(tmp_path / "bars.svg", ["win", "lose"], first=name)
    assert "\x1b" not in figure
    assert "n" * 200 not in figure
    if name in ("$x$", "<b>&"):
        assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in figure


def test_nothing_judged_is_a_figure_without_bars(tmp_path: Path) -> None:
    assert "vs theirs" not in drawn(tmp_path / "bars.svg", ["unparsable"])
