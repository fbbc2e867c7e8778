"""The knee: what noise does not find, what degeneration does, prompt by prompt, and when there is too little to say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.sweep.curves import by_curve
from lalign.sweep.knee import knee, knees, least_prompts, shortages
from lalign.sweep.metrics import Measure, PointSummary
from lalign.sweep.paired import PARTS, sign_flip, worsening

PROMPTS = 12
RATIOS = (0, 1, 2, 3, 4, 5)


def point(
    ratio: float, repeated: float = 0.1, distinct: float = 0.8, *, p: float = 2.0, lines: Iterable[int] = range(PROMPTS)
) -> PointSummary:
    """A point at which all prompts have these shares."""
    return of(Alignment(ratio=ratio, p=p), dict.fromkeys(lines, (repeated, distinct)))


def of(alignment: Recipe, shares: dict[int, tuple[float, float]]) -> PointSummary:
    flat = Measure(0.0, 0.0, 0.0, 0.0)
    return PointSummary(alignment, len(shares), 0, flat, flat, 0.0, flat, flat, flat, flat, flat, shares)


def looped(ratio: float, prompts: int, level: float = 0.5) -> PointSummary:
    """The first prompts repeat themselves, the others are as they were."""
    shares = {line: (level, 0.8 - level / 2) if line < prompts else (0.1, 0.8) for line in range(PROMPTS)}
    return of(Alignment(ratio=ratio), shares)


def knee_of(points: Sequence[PointSummary]) -> float | None:
    found = knee(points)
    return None if found is None else found.alignment.strength


@pytest.mark.parametrize(
    ("points", "ratio"),
    [
        pytest.param([point(0), point(1), point(2, 0.2, 0.7), point(3, 0.3, 0.6)], 1, id="both measures worsen"),
        pytest.param([point(0), point(1, 0.5), point(2)], 2, id="repetition alone is no degeneration"),
        pytest.param([point(0), point(1, 0.1, 0.5), point(2)], 2, id="fewer distinct bigrams alone neither"),
        pytest.param([point(0), point(1, 0.119, 0.78), point(2, 0.3, 0.6)], 1, id="a change within the floor is none"),
        pytest.param([point(0), point(1, 0.3, 0.6), point(2)], 0, id="what recovers later has still degenerated"),
        pytest.param([point(0), point(2, 0.02, 0.95), point(4)], 4, id="less repetition than the base is no fault"),
        pytest.param([point(3, 0.5, 0.5), point(1), point(0)], 1, id="in any order"),
        pytest.param([point(1), point(2), point(3, 0.5, 0.5)], 2, id="without ratio 0 the smallest ratio is the base"),
        pytest.param(
            [point(0), point(1, 0.9, 0.1, lines=[]), point(2)], 2, id="a point with no responses says nothing"
        ),
        pytest.param([point(0), looped(1, 3), point(2)], 2, id="three prompts of twelve may be chance"),
        pytest.param([point(0), looped(1, 6), point(2)], 0, id="six are not, where the others stay as they are"),
    ],
)
def test_the_knee_is_the_last_point_before_responses_degenerate(points: list[PointSummary], ratio: float) -> None:
    assert knee_of(points) == ratio


@pytest.mark.parametrize("points", [[], [point(0)], [point(0), point(1, lines=[])]])
def test_one_point_has_no_knee(points: list[PointSummary]) -> None:
    assert knee(points) is None
    assert shortages(points) == {}


def test_each_p_has_a_knee_of_its_own() -> None:
    inf = math.inf
    points = [point(0), point(1, 0.5, 0.5), point(0, p=inf), point(1, p=inf), point(0, p=1.5)]
    assert {p: found.alignment.ratio for p, found in knees(points).items()} == {"p = 2": 0.0, "p = inf": 1.0}
    assert {p: len(group) for p, group in by_curve(points).items()} == {"p = 1.5": 1, "p = 2": 2, "p = inf": 2}


def test_steps_in_nats_are_ordered_by_their_nats() -> None:
    def at(nats: float, repeated: float) -> PointSummary:
        shares = dict.fromkeys(range(PROMPTS), (repeated, 1 - repeated))
        return of(Alignment(scale="kl", kl=nats), shares)

    assert knee_of([at(1, 0.5), at(0.1, 0.1), at(0.3, 0.1)]) == 0.3


# Prompts are compared with themselves.


def test_a_prompt_is_compared_with_itself_and_with_nothing_where_it_has_failed() -> None:
    base = of(Alignment(ratio=0), {1: (0.1, 0.9), 2: (0.5, 0.5), 4: (0.0, 1.0)})
    other = of(Alignment(ratio=1), {4: (0.25, 0.75), 3: (0.9, 0.1), 2: (0.5, 0.25)})
    assert worsening(base, other).tolist() == [[0.0, 0.25], [0.25, 0.25]]
    assert worsening(base, of(Alignment(ratio=1), {3: (0.9, 0.1)})).shape == (2, 0)


def test_prompts_that_always_repeat_themselves_hide_nothing_and_feign_nothing() -> None:
    """The worst prompts fail at a point; of the others each is a little worse than itself."""
    before = {line: (0.08 * line, 1 - 0.05 * line) for line in range(12)}
    after = {line: (repeated + 0.05, distinct - 0.05) for line, (repeated, distinct) in before.items() if line < 8}
    assert knee_of([of(Alignment(ratio=0), before), of(Alignment(ratio=1), after)]) == 0
    same = {line: before[line] for line in range(4, 12)}
    assert knee_of([of(Alignment(ratio=0), before), of(Alignment(ratio=1), same)]) == 1


@pytest.mark.parametrize("points", [2, 3, 6, 11, 51, 1000])
def test_the_least_prompts_are_those_with_which_all_worse_off_is_found(points: int) -> None:
    least = least_prompts(points)
    for prompts, wanted in ((least, 0), (least - 1, None)):
        lines = range(prompts)
        swept = [point(0, lines=lines), *(point(ratio, 0.5, 0.5, lines=lines) for ratio in range(1, points))]
        assert knee_of(swept) == wanted
        assert shortages(swept) == ({} if wanted == 0 else {"p = 2": least})


def test_the_numbers_of_the_rule() -> None:
    assert [least_prompts(points) for points in (2, 6, 51)] == [5, 7, 10]


def test_failures_may_leave_too_few_prompts_on_the_way_and_not_beyond_the_knee() -> None:
    few = point(2, lines=range(4))
    assert knee_of([point(0), point(1), few]) is None
    assert knee_of([point(0), point(1, 0.5, 0.5), few]) == 0


# By chance.


def responses(
    generator: np.random.Generator, habits: NDArray[np.float64], loops: float
) -> dict[int, tuple[float, float]]:
    """Shares much as the embedded model's: most prompts repeat little, some a lot, and a share `loops` gets stuck."""
    repeated = generator.beta(0.5 + 2 * habits, 3)
    repeated = np.where(generator.random(len(habits)) < loops, generator.uniform(0.5, 0.9, len(habits)), repeated)
    distinct = np.clip(0.95 - 0.6 * repeated + generator.normal(0, 0.05, len(habits)), 0, 1)
    return dict(enumerate(zip(repeated.tolist(), distinct.tolist(), strict=True)))


def sweep_of(seed: int, prompts: int, from_ratio: float) -> list[PointSummary]:
    """Responses drawn anew at each ratio; from one ratio on three in four of them loop."""
    generator = np.random.default_rng(seed)
    habits = generator.random(prompts)
    return [of(Alignment(ratio=ratio), responses(generator, habits, 0.75 * (ratio >= from_ratio))) for ratio in RATIOS]


@pytest.mark.parametrize("prompts", [12, 30])
def test_noise_keeps_the_largest_ratio(prompts: int) -> None:
    found = [knee_of(sweep_of(seed, prompts, math.inf)) for seed in range(200)]
    assert found.count(RATIOS[-1]) >= 0.95 * len(found)


def test_degeneration_is_found_with_30_prompts() -> None:
    found = [knee_of(sweep_of(seed, 30, 3)) for seed in range(100)]
    assert found.count(2) >= 0.9 * len(found)


# The test itself.


@given(st.lists(st.integers(1, PARTS - 1), max_size=9, unique=True), st.lists(st.booleans(), min_size=10, max_size=10))
def test_the_chance_is_the_share_of_flips_that_reach_as_far(cuts: list[int], signs: list[bool]) -> None:
    bounds = [0, *sorted(cuts), PARTS]
    parts = [after - before for before, after in itertools.pairwise(bounds)]
    differences = [part if up else -part for part, up in zip(parts, signs, strict=False)]
    flips = [sum(flip) for flip in itertools.product(*((part, -part) for part in parts))]
    wanted = sum(total >= sum(differences) for total in flips) / len(flips)
    assert sign_flip(np.array(differences) / 7) == pytest.approx(wanted, abs=1e-12)


def test_equal_answers_say_nothing() -> None:
    assert sign_flip(np.zeros(5)) == 1.0
    assert sign_flip(np.array([0.0, 0.25, 0.0, 0.25])) == 0.25
