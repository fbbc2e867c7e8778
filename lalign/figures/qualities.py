"""How good the points of a sweep are, from what `lalign eval`, `score` and `judge` have found of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lalign.errors import InputError, LalignError
from lalign.evaluation.significance import intervals
from lalign.figures.pareto import Level, Quality
from lalign.figures.written import evaluation, point_of, recipe_from
from lalign.judging.judged import Judged, read_judged
from lalign.method.recipe import Recipe
from lalign.rewards.answers import read_answers
from lalign.rewards.best import reward_of

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def of_rewards(paths: Sequence[Path], points: Iterable[Recipe]) -> Quality:
    """The mean reward of each point, by the settings that the scored answers were made with.

    Raises `InputError` where none is of these points.
    """
    by_settings = _by_settings(points)
    found: dict[Recipe, list[float]] = {}
    for path in paths:
        for answer in read_answers(path):
            if answer.failed or (reward := reward_of(answer)) is None:
                continue
            if (point := by_settings.get(_settings(point_of(answer)))) is not None:
                found.setdefault(point, []).append(reward)
    levels = {point: _level(np.array(rewards)) for point, rewards in found.items()}
    return _known(Quality("Reward", "mean reward", levels), paths)


def of_evaluation(path: Path, points: Iterable[Recipe]) -> Quality:
    """The accuracy of each point. Raises `InputError` where none is of these points."""
    by_settings, found = _by_settings(points), evaluation(path)
    levels = {}
    try:
        for entry in found["ratios"]:
            point = by_settings.get(_settings(recipe_from(entry)))
            if point is not None:
                value, low, high = (entry["total"][name] for name in ("accuracy", "low", "high"))
                levels[point] = Level(
                    100 * value, 100 * (value if low is None else low), 100 * (value if high is None else high)
                )
    except (KeyError, TypeError, LalignError) as error:
        raise InputError(f"{path}: ratios: is not as lalign eval writes it ({error})") from None
    return _known(Quality("Accuracy", "% right", levels, 100 * found["chance"]), [path])


def of_judged(path: Path, points: Iterable[Recipe]) -> Quality:
    """The score of each point against the contestant that all others met: wins and half the ties.

    A contestant is the point whose ratio is the one number in its name (`ratio-2`, `r1.5`), which the points of one
    curve alone can be told apart by. Raises `InputError` where they cannot, and where no contestant met all others.
    """
    points, judged = list(points), [match for match in read_judged(path) if match.outcome != "unparsable"]
    if len({point.curve for point in points}) > 1:
        raise InputError(f"{path}: names alone do not tell the points of several curves apart; give a sweep of one")
    pairs = {frozenset((match.first, match.second)) for match in judged}
    common = sorted(frozenset.intersection(*pairs)) if pairs else []
    by_name = {name: point for name in {*frozenset().union(*pairs)} if (point := _named(name, points)) is not None}
    # Of two contestants either met all others: that without a ratio, or the smaller, is what the other is held against.
    common.sort(key=lambda name: by_name[name].strength if name in by_name else -1.0)
    if not common:
        raise InputError(f"{path}: no contestant has met all others, so that there is no scale for all")
    against = common[0]
    levels = {
        point: _level(100 * np.array(scores))
        for name, point in by_name.items()
        if name != against and (scores := _scores(judged, name))
    }
    return _known(Quality(f"Score against {against}", "% wins + ½ ties", levels, 50.0), [path])


def _scores(judged: Iterable[Judged], name: str) -> list[float]:
    """Of each match of a contestant, for its side: 1 for a win, 0.5 for a tie."""
    own = [match for match in judged if name in (match.first, match.second)]
    firsts = [{"win": 1.0, "tie": 0.5, "lose": 0.0}[match.outcome] for match in own]
    return [first if match.first == name else 1 - first for match, first in zip(own, firsts, strict=True)]


def _named(name: str, points: Iterable[Recipe]) -> Recipe | None:
    """The point whose ratio a name holds, where it holds but one number."""
    numbers = _NUMBER.findall(name)
    matching = [point for point in points if len(numbers) == 1 and point.strength == float(numbers[0])]
    return matching[0] if len(matching) == 1 else None


def _level(values: NDArray[np.float64]) -> Level:
    mean = float(values.mean())
    low, high = intervals(values[None], seed=0)[0] if np.ptp(values) else (mean, mean)
    return Level(mean, mean if low is None else low, mean if high is None else high)


def _settings(recipe: Recipe) -> tuple[tuple[str, object], ...]:
    """What records say of a recipe, to be compared by."""
    return tuple(sorted(recipe.to_dict().items()))


def _by_settings(points: Iterable[Recipe]) -> Mapping[tuple[tuple[str, object], ...], Recipe]:
    return {_settings(point): point for point in points}


def _known(quality: Quality, paths: Sequence[Path]) -> Quality:
    if not quality.levels:
        shown = ", ".join(map(str, paths))
        raise InputError(f"{shown}: tells of no point of this sweep; ratios and all other settings must be the same")
    return quality
