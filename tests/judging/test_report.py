"""Figures of a contest, against scipy and values counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lalign.judging.judged import Judged
from lalign.judging.report import ContestReport, contest_reports, to_json
from lalign.judging.table import contest_table

VERDICTS: dict[str, Any] = {"win": ("A", "B"), "lose": ("B", "A"), "tie": ("C", "C"), "unparsable": (None, "A")}


def judged(number: int, outcome: Any, lengths: tuple[int, int] = (10, 10), verdicts: Any = None) -> Judged:
    return Judged(number, "a", "b", outcome, VERDICTS[outcome] if verdicts is None else verdicts, lengths)


def report(*outcomes: str) -> ContestReport:
    (found,) = contest_reports([judged(number, outcome) for number, outcome in enumerate(outcomes)])
    return found


def test_shares_are_of_what_could_be_read() -> None:
    found = report("win", "win", "win", "tie", "lose", "unparsable")
    assert (found.judged, found.unparsable) == (5, 1)
    assert [share.value for share in (found.win, found.tie, found.lose)] == [0.6, 0.2, 0.2]
    assert found.score.value == pytest.approx(0.7)
    assert found.lead.value == pytest.approx(0.4)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(["win", "tie", "lose"]), min_size=2, max_size=40))
def test_intervals_and_test_are_scipys(outcomes: list[str]) -> None:
    found = report(*outcomes)
    wins, losses = outcomes.count("win"), outcomes.count("lose")
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert found.p_value == pytest.approx(expected)
    score = np.array([{"win": 1, "tie": 0.5, "lose": 0}[outcome] for outcome in outcomes], dtype=float)
    alone = scipy.stats.bootstrap(
        (score,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0), vectorized=True
    ).confidence_interval
    # Another run of resampling, so up to its own error.
    assert found.score.low == pytest.approx(alone.low, abs=0.05)
    assert found.score.high == pytest.approx(alone.high, abs=0.05)


def test_all_figures_are_of_the_same_resamples() -> None:
    """With no ties, wins and losses are each other's rest in every resample."""
    found = report(*["win"] * 7, *["lose"] * 13)
    assert found.win.low == pytest.approx(1 - (found.lose.high or 0))
    assert found.lead.low == pytest.approx(2 * (found.win.low or 0) - 1)


def test_position_bias_is_told_by_the_place_that_was_named() -> None:
    kinds = [("A", "B"), ("C", "C"), ("A", "A"), ("A", "A"), ("B", "B"), ("A", "C"), (None, "A"), ()]
    matches = [judged(n, "tie" if None not in kind else "unparsable", verdicts=kind) for n, kind in enumerate(kinds)]
    (found,) = contest_reports(matches)
    bias = found.bias
    assert (bias.asked, bias.agreed, bias.first, bias.second, bias.other) == (6, 2, 2, 1, 1)


def test_length_is_set_apart() -> None:
    """The longer answer always wins; a is the longer one in nine of twelve matches."""
    matches = [judged(n, "win", (100, 50)) for n in range(9)]
    matches += [judged(n, "lose", (50, 100)) for n in range(9, 11)]
    matches += [judged(11, "tie", (100, 95))]
    (found,) = contest_reports(matches)
    assert {name: (share.n, share.value) for name, share in found.by_length.items()} == {
        "shorter": (2, 0.0),
        "alike": (1, 0.5),
        "longer": (9, 1.0),
    }
    assert found.score.value == pytest.approx(9.5 / 12)
    assert found.controlled == pytest.approx(0.5)
    assert (found.longer_won.n, found.longer_won.value) == (11, 1.0)


def test_contests_are_told_apart_and_stay_in_order() -> None:
    matches = [Judged(n, first, "c", "win", ("A", "B"), (1, 1)) for n, first in enumerate("bab")]
    assert [(one.first, one.judged) for one in contest_reports(matches)] == [("b", 2), ("a", 1)]


@pytest.mark.parametrize("outcomes", [["unparsable"], ["win"], ["tie", "tie"]])
def test_a_contest_of_next_to_nothing_is_told_as_such(outcomes: list[str]) -> None:
    found = report(*outcomes)
    assert found.p_value == 1.0
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(contest_table([found]))
    assert "a" in console.export_text()
    assert to_json([found])["contests"][0]["judged"] == len(outcomes) - outcomes.count("unparsable")


def rendered(*reports: ContestReport) -> list[str]:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(contest_table(reports))
    return captured.get().splitlines()


def test_no_figure_and_no_name_of_the_table_is_broken() -> None:
    """The widest figures there are, and names that leave room for none of them."""
    long = ["smollm2-135m-instruct-linear-alignment-ratio-2.5", "A", "smollm2-135m-instruct-plain"]
    outcomes: list[Any] = ["win"] * 995 + ["lose"] * 5
    reports = [
        *contest_reports([Judged(n, long[0], long[2], one, ("A", "B"), (9, 9)) for n, one in enumerate(outcomes)]),
        *contest_reports([Judged(n, long[0], "A", "win", ("A", "B"), (n, 9)) for n in range(1000)]),
    ]
    shown = rendered(*reports)
    assert max(map(len, shown)) <= 80
    assert "…" not in "".join(shown)
    rows = [line.split() for line in shown if line.split()[:1] in (["B"], ["vs"])]
    assert rows[0][:5] == ["B", "1000", "99.5", "0.0", "0.5"]
    assert rows[1][:3] == ["vs", "C", "99–100"]
    assert rows[2][:2] == ["B", "1000"]
    assert rows[3][:3] == ["vs", "A", "100–100"]
    assert [line.split() for line in shown[-2:]] == [["B", long[0]], ["C", long[2]]]


def test_short_names_stand_in_the_table() -> None:
    (found,) = contest_reports([Judged(n, "aligned", "base", "win", ("A", "B"), (1, 1)) for n in range(9)])
    shown = rendered(found)
    assert any(line.split()[:2] == ["aligned", "9"] for line in shown)
    assert any(line.split()[:2] == ["vs", "base"] for line in shown)
