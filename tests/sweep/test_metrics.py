"""Figures of a sweep against values worked out by hand, the knee on constructed cases, and the table as it is read."""

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
from lalign.sweep.knee import KNEE_MARK, knee, knees
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


def point(
    ratio: float,
    repeated: float = 0.1,
    distinct: float = 0.8,
    *,
    p: float = 2.0,
    error: float = 0.0,
    responses: int = 8,
) -> PointSummary:
    """A point with these means, standard error `error` in both, and nothing else of note."""
    flat = Measure(0.0, 0.0, 0.0, 0.0)
    return PointSummary(
        alignment=Alignment(ratio=ratio, p=p),
        responses=responses,
        failures=0,
        length=flat,
        kl=flat,
        kl_max=0.0,
        flipped=flat,
        distinct_2=Measure(distinct, 0.0, 0.0, 0.0),
        repeated_4gram=Measure(repeated, 0.0, 0.0, 0.0),
        logprob_base=flat,
        logprob_principle=flat,
        distinct_2_error=error,
        repeated_4gram_error=error,
    )


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
    assert summary.distinct_2_error == pytest.approx(0.375)
    assert summary.repeated_4gram_error == pytest.approx(0.25)
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


def test_a_result_the_metrics_cannot_use_is_an_error() -> None:
    with pytest.raises(KeyError):
        summary_of(result(BASE, [1], [0.0]))
    bare = Result(1, 1, "", "stop", Usage(1, 1, 1), ALIGNED, (1,))
    with pytest.raises(ValueError, match="summary"):
        summary_of(bare)


@pytest.mark.parametrize(
    ("points", "ratio"),
    [
        pytest.param([point(0), point(1), point(2, 0.13), point(3, 0.3)], 1, id="repetition rises by 0.03"),
        pytest.param([point(0), point(1, 0.119), point(2, 0.3)], 1, id="a rise within the floor is none"),
        pytest.param([point(0), point(1, 0.1, 0.77), point(2)], 0, id="distinct-2 falls, so the base is the last"),
        pytest.param([point(0, error=0.05), point(1, 0.19), point(2, 0.21)], 1, id="two standard errors of the base"),
        pytest.param([point(0, error=0.05), point(1, 0.1, 0.71), point(2, 0.1, 0.69)], 1, id="both ways"),
        pytest.param([point(0), point(1, error=1.0), point(2, 0.2)], 1, id="errors of other points do not count"),
        pytest.param([point(0), point(1), point(2, 0.5), point(3)], 1, id="what recovers later has still degenerated"),
        pytest.param([point(0), point(2, 0.02, 0.95), point(4)], 4, id="less repetition than the base is no fault"),
        pytest.param([point(3, 0.5), point(1), point(0)], 1, id="in any order"),
        pytest.param([point(1), point(2), point(3, 0.5)], 2, id="without ratio 0 the smallest ratio is the base"),
        pytest.param([point(0), point(1, 0.9, responses=0), point(2)], 2, id="a point with no responses says nothing"),
    ],
)
def test_the_knee_is_the_last_point_in_the_range_of_the_base(points: list[PointSummary], ratio: float) -> None:
    found = knee(points)
    assert found is not None
    assert found.alignment.ratio == ratio


@pytest.mark.parametrize("points", [[], [point(0)], [point(0), point(1, responses=0)]])
def test_one_point_has_no_knee(points: list[PointSummary]) -> None:
    assert knee(points) is None


def test_each_p_has_a_knee_of_its_own() -> None:
    points = [point(0), point(1, 0.5), point(0, p=math.inf), point(1, p=math.inf), point(0, p=1.5)]
    assert {curve: found.alignment.ratio for curve, found in knees(points).items()} == {"p = 2": 0.0, "p = inf": 1.0}
    assert [(curve, len(group)) for curve, group in by_curve(points).items()] == [
        ("p = 1.5", 1),
        ("p = 2", 2),
        ("p = inf", 2),
    ]


def of(recipe: Recipe, summary: PointSummary) -> PointSummary:
    """The figures of a point as those of another recipe at the same ratio."""
    return replace(summary, alignment=replace(recipe, ratio=summary.alignment.ratio))


def test_each_recipe_has_a_curve_and_a_knee_of_its_own() -> None:
    opad, lalign = RECIPES["opad"], RECIPES["lalign"]
    points = [of(opad, point(1, 0.5)), of(opad, point(0)), of(lalign, point(0)), of(lalign, point(1))]
    assert {curve: found.alignment.ratio for curve, found in knees(points).items()} == {"opad": 0, "lalign, p = 2": 1}
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
    assert "opad: no ratio tried leaves it" in " ".join(" ".join(lines).split())


def printed(summaries: Sequence[PointSummary]) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table(summaries))
    return capture.get().splitlines()


def large(ratio: float, **fields: Any) -> PointSummary:
    """The widest figures that a sweep may well have."""
    wide, share, log = Measure(4096.0, 0, 0, 0), Measure(1.0, 0, 0, 0), Measure(-12.34, 0, 0, 0)
    values = {"length": wide, "kl": Measure(10.123, 0, 0, 0), "kl_max": 100.25, "flipped": share, "distinct_2": share}
    values |= {"repeated_4gram": share, "logprob_base": log, "logprob_principle": log}
    return PointSummary(
        Alignment(ratio=ratio), 9, distinct_2_error=0, repeated_4gram_error=0, **{"failures": 0, **values, **fields}
    )


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


def test_the_legend_tells_the_knee_from_the_end_of_the_sweep() -> None:
    def text(*points: PointSummary) -> str:
        return " ".join(" ".join(printed(points)).split())

    assert "knee" not in text(point(0))
    found = text(point(0), point(1), point(2, 0.5))
    assert f"{KNEE_MARK} knee: the last point before dist-2 or rep-4 leaves the range" in found
    assert "no ratio tried" not in found
    assert "p = 2: no ratio tried leaves it" in text(point(0), point(1))
