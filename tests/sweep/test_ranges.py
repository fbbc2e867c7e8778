"""Ranges on the command line: what they stand for, exactly, and what each bad one is told."""

from __future__ import annotations

import math
import os
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.method.recipes import RECIPES
from lalign.sweep.ranges import MOST_POINTS, parse_range, sweep_points

FUZZ_EXAMPLES = max(50, int(os.environ.get("LALIGN_FUZZ_EXAMPLES", "2000")) // 10)
hundredths = st.integers(-5_000, 5_000).map(lambda value: Decimal(value) / 100)
steps = st.integers(1, 500).map(lambda value: Decimal(value) / 100)


def points_or_error(text: str) -> tuple[float, ...] | OptionError:
    try:
        return parse_range(text, "ratios")
    except OptionError as error:
        return error


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("0,1,2.5", (0, 1, 2.5)),
        ("0:5", (0, 1, 2, 3, 4, 5)),
        ("0:2:0.5", (0, 0.5, 1, 1.5, 2)),
        ("0:1:0.1", (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)),
        ("0:5:2", (0, 2, 4)),
        ("3:3", (3,)),
        ("0.5,0:2,10", (0.5, 0, 1, 2, 10)),
        ("2,0:3,2.0,2e0", (2, 0, 1, 3)),
        (" 1 , 2 : 3 ", (1, 2, 3)),
        ("-1:1", (-1, 0, 1)),
        ("1.,.5,+2", (1, 0.5, 2)),
        ("0:999", tuple(range(1_000))),
        ("0:999,0:999", tuple(range(1_000))),
    ],
)
def test_a_text_stands_for_its_points(text: str, points: tuple[float, ...]) -> None:
    assert parse_range(text, "ratios") == points


@given(first=hundredths, step=steps, count=st.integers(1, 200), over=st.floats(0, 0.99))
def test_points_are_what_their_literals_give(first: Decimal, step: Decimal, count: int, over: float) -> None:
    last = first + (count - 1) * step
    literals = tuple(float(str(first + index * step)) for index in range(count))
    assert parse_range(f"{first}:{last}:{step}", "ratios") == literals
    assert parse_range(f"{first}:{last + step * Decimal(str(over))}:{step}", "ratios") == literals


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_a_list_keeps_every_float_once_in_order(values: list[float]) -> None:
    assert parse_range(",".join(map(repr, values)), "ratios") == tuple(dict.fromkeys(values))


@given(st.text(alphabet="0123456789.,:+-einfa_ \u0663", max_size=30))
@settings(max_examples=FUZZ_EXAMPLES)
@example("1e999999999")
@example("9" * 5_000)
@example("0:1:1e-999")
def test_any_text_gives_finite_points_or_one_clear_line(text: str) -> None:
    outcome = points_or_error(text)
    if isinstance(outcome, OptionError):
        assert outcome.option == "ratios"
        assert "\n" not in str(outcome)
        assert len(str(outcome)) < 160
    else:
        assert 1 <= len(outcome) <= MOST_POINTS
        assert len(set(outcome)) == len(outcome)
        assert all(map(math.isfinite, outcome))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("5:0", "'5:0': the range ends below where it begins"),
        ("0:5:0", "'0:5:0': the step of a range must be above 0"),
        ("5:0:-1", "'5:0:-1': the step of a range must be above 0"),
        ("nan", "'nan' is not a finite number"),
        ("inf", "'inf' is not a finite number"),
        ("0:inf", "'inf' in '0:inf' is not a finite number"),
        ("0:nan:1", "'nan' in '0:nan:1' is not a finite number"),
        ("1e400", "'1e400' is too large a number"),
        ("", "is empty, or has an empty item between its commas"),
        ("1,,2", "is empty, or has an empty item between its commas"),
        ("1:", "'' in '1:' is not a finite number"),
        ("0:1:2:3", "'0:1:2:3': a range is first:last or first:last:step"),
        ("two", "'two' is not a finite number"),
        ("1_000", "'1_000' is not a finite number"),
        ("\x1b[31m", "'\\x1b[31m' is not a finite number"),
        ("0:1000", "'0:1000': 1,001 points; at most 1,000 are allowed"),
        ("0:1:1e-300", "'0:1:1e-300': over a thousand million points; at most 1,000 are allowed"),
        ("0:999,1000.5", "'0:999,1000.5': 1,001 points; at most 1,000 are allowed"),
    ],
)
def test_bad_ranges_are_told_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(OptionError) as failure:
        parse_range(text, "ratios")
    assert (failure.value.option, failure.value.problem) == ("ratios", problem)


def test_infinity_is_an_item_only_where_allowed() -> None:
    assert parse_range("1,2:3,inf", "ps", infinite=True) == (1, 2, 3, math.inf)
    for text in ("1:inf", "-inf", "nan"):
        with pytest.raises(OptionError, match="not a finite number"):
            parse_range(text, "ps", infinite=True)


def test_a_sweep_runs_through_the_ratios_of_each_p_in_turn() -> None:
    base = Alignment(support="none")
    points = sweep_points([base], (0.0, 3.0), (2.0, math.inf))
    assert [(point.norm, point.ratio) for point in points] == [(2, 0), (2, 3), (math.inf, 0), (math.inf, 3)]
    assert {point.support for point in points} == {"none"}


def test_what_is_not_swept_stays_as_it_is() -> None:
    base = Alignment(ratio=1.5, p=4.0)
    assert [point.norm for point in sweep_points([base], (0.0, 1.0), ())] == [4, 4]
    assert [point.ratio for point in sweep_points([base], (), (1.0, 2.0))] == [1.5, 1.5]


@pytest.mark.parametrize(
    ("ratios", "ps", "message"),
    [
        ((-1.0,), (2.0,), "ratios: must be a number of at least 0, not -1.0"),
        ((0.0,), (0.5,), "ps: must be a number of at least 1"),
        (tuple(map(float, range(501))), (1.0, 2.0), "ratios: 501 ratios of 2 curves: 1,002 points"),
    ],
)
def test_points_out_of_range_are_refused(ratios: tuple[float, ...], ps: tuple[float, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sweep_points([Alignment()], ratios, ps)


def test_recipes_go_one_after_another_each_with_the_ps_that_it_takes() -> None:
    points = sweep_points([RECIPES["lalign"], RECIPES["opad"]], (0.0, 2.0), (2.0, math.inf))
    assert [point.point for point in points] == [
        *({"recipe": "lalign", "ratio": ratio, "p": p} for p in (2.0, math.inf) for ratio in (0.0, 2.0)),
        {"recipe": "opad", "ratio": 0.0},
        {"recipe": "opad", "ratio": 2.0},
    ]
    assert [point.ratio for point in sweep_points([RECIPES["cad"], RECIPES["amulet"]], (), ())] == [
        1.0,
        RECIPES["amulet"].ratio,
    ]


def test_values_of_p_are_refused_where_no_recipe_takes_them() -> None:
    with pytest.raises(OptionError, match=r"^ps: p is no option of opad, cad$"):
        sweep_points([RECIPES["opad"], RECIPES["cad"]], (1.0,), (2.0,))
