"""Figures of a sweep against values worked out by hand, and the table as it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lalign.method.aligned import STATISTICS
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.method.recipes import RECIPES
from lalign.method.statistics import columns, summarise
from lalign.results import Failure, Result, Usage
from lalign.sweep.curves import by_curve
from lalign.sweep.knee import KNEE_MARK
from lalign.sweep.metrics import Measure, PointSummary, SweepMetrics, distinct_share
from lalign.sweep.table import table

BASE, ALIGNED = Alignment(ratio=0.0), Alignment(ratio=2.0)


def result(alignment: Alignment, ids: Sequence[int], kl: Sequence[float], flips: Sequence[int] = ()) -> Result:
    """A response with these token ids, KL of each token, and places of flipped tokens; log p is -KL and -KL / 2."""
    steps = np.zeros((len(ids), len(STATISTICS)), dtype=np.float32)
    steps[:, STATISTICS.index("kl_aligned_base")] = kl
    steps[:, STATISTICS.index("logprob_base")] = -np.asarray(kl)
    steps[:, STATISTICS.index("logprob_principle")] = -np.asarray(kl) / 2
    steps[list(flips), STATISTICS.index("flipped")] = 1
    usage = Usage(1, 1, len(ids))
    return Result(1, 1, "", "length", usage, alignment, tuple(ids), summarise(columns(list(steps))))


def nearly(*values: float) -> Any:
    return pytest.approx(values, rel=1e-6)


def summary_of(*outcomes: Result | Failure, alignment: Alignment = ALIGNED) -> PointSummary:
    metrics = SweepMetrics([alignment])
    for outcome in outcomes:
        metrics.add(outcome)
    return metrics.summaries()[0]


@pytest.mark.parametrize(
    ("ids", "n", "share"),
    [
        ([1, 2, 1, 2, 1], 2, 2 / 4),
        ([1, 2, 3, 4], 2, 1.0),
        ([7, 7, 7, 7, 7], 2, 1 / 4),
        ([1, 2, 3, 4, 1, 2, 3, 4, 1], 4, 4 / 6),
        ([1, 2, 3], 4, 1.0),
        ([1], 2, 1.0),
    ],
)
def test_distinct_share_is_that_of_different_n_grams(ids: list[int], n: int, share: float) -> None:
    assert distinct_share(ids, n) == share


def test_a_point_has_the_figures_worked_out_by_hand() -> None:
    short = result(ALIGNED, [5], [0.5], flips=[0])
    looped = result(ALIGNED, [7, 7, 7, 7, 7], [0.25, 0.0, 0.0, 0.0, 0.0])
    summary = summary_of(short, looped)
    assert (summary.alignment, summary.responses, summary.failures) == (ALIGNED, 2, 0)
    assert summary.length == Measure(mean=3, low=2, median=3, high=4)
    # 0.75 nats over 6 tokens; the responses' own means are 0.5 and 0.05.
    assert astuple(summary.kl) == nearly(0.125, 0.1625, 0.275, 0.3875)
    assert summary.kl_max == 0.5
    assert astuple(summary.flipped) == nearly(1 / 6, 0.25, 0.5, 0.75)
    # 1 (no bigram at all) and 1 of 4; 0 (no 4-gram at all) and 1 of 2 repeated.
    assert summary.distinct_2 == Measure(0.625, 0.4375, 0.625, 0.8125)
    assert summary.repeated_4gram == Measure(0.25, 0.125, 0.25, 0.375)
    assert summary.shares == {1: (0.25, 0.625)}
    assert summary.logprob_base.mean == pytest.approx(-0.125)
    assert summary.logprob_principle.mean == pytest.approx(-0.0625)


@given(st.lists(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=9), min_size=1, max_size=9), st.randoms())
def test_per_token_means_are_those_of_all_tokens_in_any_order(divergences: list[list[float]], random: Any) -> None:
    results = [result(ALIGNED, range(len(kl)), kl, flips=range(len(kl) // 2)) for kl in divergences]
    random.shuffle(results)
    summary = summary_of(*results)
    tokens = [value for kl in divergences for value in kl]
    assert summary.kl.mean == pytest.approx(np.mean(tokens), abs=1e-6)
    assert summary.kl_max == max(tokens)
    assert summary.flipped.mean == pytest.approx(sum(len(kl) // 2 for kl in divergences) / len(tokens))
    assert summary.logprob_base.mean == pytest.approx(-np.mean(tokens), abs=1e-6)


def test_failures_count_at_their_point_or_at_all() -> None:
    metrics = SweepMetrics([BASE, ALIGNED])
    metrics.add(
        Failure(1, 1, "not_finite", "the model's logits are not finite", {"recipe": "lalign", "ratio": 2.0, "p": 2.0})
    )
    metrics.add(Failure(2, 2, "invalid_json", "the line is no JSON"))
    metrics.add(result(BASE, [1, 2], [0.0, 0.0]))
    base, aligned = metrics.summaries()
    assert (base.responses, base.failures) == (1, 1)
    assert (aligned.responses, aligned.failures) == (0, 2)
    assert math.isnan(aligned.kl.mean)
    assert math.isnan(aligned.kl_max)


def test_shares_go_by_line_and_several_responses_of_a_line_have_their_mean() -> None:
    looped, other = result(ALIGNED, [7, 7, 7, 7, 7], [0.0] * 5), result(ALIGNED, [1, 2, 3, 4, 5], [0.0] * 5)
    summary = summary_of(replace(looped, line=9), replace(other, line=2), replace(other, line=9))
    assert summary.shares == {2: (0.0, 1.0), 9: (0.25, 0.625)}
    assert summary_of().shares == {}


def test_a_result_the_metrics_cannot_use_is_an_error() -> None:
    with pytest.raises(KeyError):
        summary_of(result(BASE, [1], [0.0]))
    bare = Result(1, 1, "", "stop", Usage(1, 1, 1), ALIGNED, (1,))
    with pytest.raises(ValueError, match="summary"):
        summary_of(bare)


def of(recipe: Recipe, summary: PointSummary) -> PointSummary:
    """The figures of a point as those of another recipe at the same ratio."""
    return replace(summary, alignment=replace(recipe, ratio=summary.alignment.ratio))


def test_each_recipe_has_a_curve_of_its_own() -> None:
    opad, lalign = RECIPES["opad"], RECIPES["lalign"]
    points = [of(opad, large(1)), of(opad, large(0)), of(lalign, large(0)), of(lalign, large(1))]
    assert [*by_curve(points)] == ["opad", "lalign, p = 2"]
    assert [*by_curve(points[:2])] == ["opad"]


def test_the_table_of_several_recipes_fits_a_terminal_too() -> None:
    points = [
        replace(large(0.25, failures=1000), alignment=replace(RECIPES["context-steering"], ratio=0.25)),
        large(0.75, failures=1000),
    ]
    lines = printed(points)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    figures = ["4096.0", "10.123", "100.25", "100.0", "100.0", "100.0", "1000"]
    assert [line.split() for line in lines[2:4]] == [
        ["context-steering", "0.25", *figures],
        ["lalign", "2", "0.75", *figures],
    ]


def test_one_recipe_without_p_has_no_column_of_it() -> None:
    lines = printed([of(RECIPES["opad"], large(0)), of(RECIPES["opad"], large(1))])
    assert lines[0].split()[:2] == ["ratio", "length"]


def printed(summaries: Sequence[PointSummary]) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table(summaries))
    return capture.get().splitlines()


def large(ratio: float, **fields: Any) -> PointSummary:
    """The widest figures that a sweep may well have."""
    wide, share, log = Measure(4096.0, 0, 0, 0), Measure(1.0, 0, 0, 0), Measure(-12.34, 0, 0, 0)
    values: dict[str, Any] = {
        "length": wide,
        "kl": Measure(10.123, 0, 0, 0),
        "kl_max": 100.25,
        "flipped": share,
        "distinct_2": share,
    }
    values |= {"repeated_4gram": share, "logprob_base": log, "logprob_principle": log}
    values["shares"] = dict.fromkeys(range(9), (0.1, 0.8))
    return PointSummary(Alignment(ratio=ratio), 9, **{"failures": 0, **values, **fields})


def test_the_table_fits_a_terminal_with_a_row_a_point() -> None:
    lines = printed([large(0.25, failures=1000), large(0.75, failures=1000)])
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    rows = [line.split() for line in lines[2:4]]
    figures = ["4096.0", "10.123", "100.25", "100.0", "100.0", "100.0", "-12.34", "-12.34", "1000"]
    assert rows == [["2", "0.25", *figures], ["2", "0.75", *figures, KNEE_MARK]]
    assert lines[1].split() == ["tokens", "nats", "nats", "%", "%", "%", "nats", "nats"]


def test_failures_have_a_column_only_where_there_are_any() -> None:
    assert "failed" not in printed([large(0), large(1)])[0]
    assert "failed" in printed([large(0), large(1, failures=1)])[0]


def test_the_legend_tells_the_knee_from_the_end_of_the_sweep_and_from_too_few_prompts() -> None:
    def text(*points: PointSummary) -> str:
        return " ".join(" ".join(printed(points)).split())

    looped = dict.fromkeys(range(9), (0.5, 0.5))
    assert "knee" not in text(large(0))
    found = text(large(0), large(1), large(2, shares=looped))
    assert f"{KNEE_MARK} knee: the last point before dist-2 and rep-4 are worse" in found
    assert "may lie higher" not in found
    assert "p = 2: not so at any ratio tried; the knee may lie higher" in text(large(0), large(1))
    few = text(large(0), large(1), large(2, shares=dict.fromkeys(range(5), (0.5, 0.5))))
    assert "p = 2: too few prompts for a knee; 6 answered at every ratio are needed." in few
    assert KNEE_MARK not in few
    assert max(map(len, printed([large(0), large(1, shares={})]))) <= 80
