"""Constants added to a row of logits change nothing, whatever the recipe; and the formulas, evaluated in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from lalign.method.gauge import preference
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.method.recipes import RECIPES

INF = math.inf
VOCAB = 12
fuzz = settings(max_examples=20)

CHOICES: list[tuple[Any, ...]] = list(
    product(
        (1, 1.5, 2, 3, INF),
        ("relative", "absolute", "norm", "kl"),
        ("base", "principle"),
        ("logits", "probabilities"),
        ("principle", "none"),
    )
)
SHAPES = [
    Alignment(p=p, scale=scale, anchor=anchor, direction=direction, support=support, ratio=2.5, kl=kl)
    for p, scale, anchor, direction, support in CHOICES
    for kl in [0.3 if scale == "kl" else None]
    if p > 1 or scale != "absolute"
]
BUDGETS: list[dict[str, Any]] = [{}, {"max_kl": 0.2}, {"kl_total": 0.5}, {"scale": "kl", "kl": 0.4}]
METHODS = [replace(recipe, **budget) for recipe in RECIPES.values() for budget in BUDGETS]

# Logits and constants as multiples of 1/64, which float32 adds without rounding.
rows = arrays(np.float64, (2, 2, VOCAB), elements=st.integers(-512, 512).map(lambda number: number / 64))
constants = arrays(np.float64, (2, 2, 1), elements=st.integers(-64_000, 64_000).map(lambda number: number / 64))


def told(recipe: Recipe, logits: NDArray[np.float64]) -> list[Tensor]:
    """All that two steps of a recipe give: probabilities, the support, what is measured, and what is carried on."""
    base, principled = torch.tensor(logits[0]).float(), torch.tensor(logits[1]).float()
    strength = torch.full((2,), float(recipe.ratio))
    first = recipe.step(base, principled, strength, recipe.opening([2, 5], torch.device("cpu")))
    second = recipe.step(base.flip(0), principled.flip(0), strength, first.state)
    found = []
    for aligned, mine, its in ((first, base, principled), (second, base.flip(0), principled.flip(0))):
        final = aligned.final()
        tokens = final.argmax(-1)
        found += [final.softmax(-1), tokens, recipe.statistics(mine, its, aligned, tokens)]
        found += [] if aligned.state is None else [aligned.state]
    return found


@pytest.mark.parametrize("recipe", [*SHAPES, *METHODS], ids=repr)
@fuzz
@given(logits=rows, added=constants)
def test_constants_change_no_probability_no_token_and_no_statistic(
    recipe: Recipe, logits: NDArray[np.float64], added: NDArray[np.float64]
) -> None:
    for one, other in zip(told(recipe, logits), told(recipe, logits + added), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def exact(recipe: Alignment, base: NDArray[np.float64], principled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Aligned probabilities of one row, by the formulas of docs/method.md in float64."""
    logprobs = log_softmax(base), log_softmax(principled)
    d = logprobs[1] - logprobs[0] if recipe.direction == "logits" else np.exp(logprobs[1]) - np.exp(logprobs[0])
    power = 0 if recipe.p == INF else 1 / (recipe.p - 1)
    v = np.sign(d) * np.abs(d) ** power if d.any() else d
    if recipe.scale == "absolute":
        s = recipe.ratio * v / np.linalg.norm(d) ** power if d.any() else d
    else:
        length = recipe.ratio * (np.linalg.norm(d) if recipe.scale == "relative" else 1)
        s = length * v / (np.linalg.norm(v, 2 if recipe.scale == "relative" else recipe.p) or 1)
    aligned: NDArray[np.float64] = softmax(logprobs[0 if recipe.anchor == "base" else 1] + s)
    return aligned


@pytest.mark.parametrize(
    "recipe", [shape for shape in SHAPES if shape.scale != "kl" and shape.p > 1 and shape.support == "none"], ids=repr
)
@fuzz
@given(seed=st.integers(0, 2**32 - 1))
def test_the_update_is_its_formula_in_float64(recipe: Alignment, seed: int) -> None:
    random = np.random.default_rng(seed)
    base, principled = random.normal(0, 3, (2, 40))
    strength = torch.tensor([float(recipe.ratio)])
    aligned = recipe.step(torch.tensor(base[None]).float(), torch.tensor(principled[None]).float(), strength)
    np.testing.assert_allclose(aligned.logits[0].softmax(-1), exact(recipe, base, principled), atol=1e-5)


def test_the_direction_is_a_difference_of_log_probabilities_or_of_probabilities() -> None:
    base, principled = (torch.randn(3, 30, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    expected = principled.log_softmax(-1) - base.log_softmax(-1)
    torch.testing.assert_close(preference(base, principled), expected)
    probabilities = preference(base, principled, "probabilities")
    torch.testing.assert_close(probabilities, principled.softmax(-1) - base.softmax(-1))
    torch.testing.assert_close(probabilities.sum(-1), torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("direction", ["logits", "probabilities"])
def test_the_preference_is_zero_where_a_twin_has_no_logit(direction: Any) -> None:
    base = torch.tensor([[1, -INF, -INF, 2, 0, -300]])
    principled = torch.tensor([[3, 1, -INF, -INF, 0, -310]])
    shift = preference(base, principled, direction)
    both = [0, 4]  # the last has no probability worth the name in either
    torch.testing.assert_close(shift[:, both], preference(base[:, both], principled[:, both], direction))
    assert not shift[:, [1, 2, 3, 5]].any()
