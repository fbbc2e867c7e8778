"""Steps measured in nats: what is asked for is met, is never passed, and depends on no other row."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lalign.errors import OptionError
from lalign.method import replay
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import LEAST_NATS, Recipe
from lalign.method.recipes import RECIPES, recipe_of

INF = math.inf
fuzz = settings(max_examples=30)
seeds = st.integers(0, 2**32 - 1)
NORMS = (1, 1.5, 2, 3, INF)
METHODS = [recipe for recipe in RECIPES.values() if recipe.ratio]


def randoms(seed: int, rows: int, vocab: int, spread: float = 3.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def kl(logits: Tensor, base: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(base)) in float64."""
    one, other = logits.double().log_softmax(-1), base.double().log_softmax(-1)
    return torch.where(one > -INF, one.exp() * (one - other), 0.0).sum(-1)


def reach(recipe: Recipe, base: Tensor, principled: Tensor) -> Tensor:
    """The most that a recipe's move can diverge: where all is with the tokens that gain most."""
    free = replace(recipe, scale="relative", kl=None, max_kl=None)
    aligned = free.step(base, principled, strengths(recipe, len(base)))
    move = ((aligned.logits - base) if aligned.move is None else aligned.move).double()
    top = move >= move.amax(-1, keepdim=True) - 1e-5
    return -base.double().log_softmax(-1).masked_fill(~top, -INF).logsumexp(-1)


def strengths(recipe: Recipe, rows: int) -> Tensor:
    return torch.full((rows,), float(recipe.ratio))


def at(recipe: Recipe, nats: float) -> Recipe:
    return replace(recipe, scale="kl", kl=nats, support="none")


def assert_met(recipe: Recipe, base: Tensor, principled: Tensor, nats: float) -> None:
    found = recipe.step(base, principled, strengths(recipe, len(base)))
    reached = kl(found.logits, base)
    assert (reached <= nats + 2e-5 * max(nats, 1)).all()
    least = (reach(recipe, base, principled) - 2 * min(1e-3, nats)).clamp_max(nats)
    assert (reached >= least - min(1e-3, nats / 10)).all()


@pytest.mark.parametrize("anchor", ["base", "principle"])
@pytest.mark.parametrize("direction", ["logits", "probabilities"])
@pytest.mark.parametrize("p", NORMS)
@fuzz
@given(seed=seeds, nats=st.sampled_from([1e-3, 0.1, 0.5, 1, 4]), spread=st.floats(0.1, 4))
def test_the_divergence_is_what_was_asked_for(
    p: float, direction: Any, anchor: Any, seed: int, nats: float, spread: float
) -> None:
    base = randoms(seed, 4, 300)
    principled = base + randoms(seed + 1, 4, 300, spread)
    assert_met(at(Alignment(p=p, direction=direction, anchor=anchor), nats), base, principled, nats)


@pytest.mark.parametrize("recipe", METHODS, ids=lambda recipe: recipe.recipe)
@fuzz
@given(seed=seeds, nats=st.sampled_from([0.01, 0.3, 2]))
def test_so_it_is_for_every_recipe(recipe: Recipe, seed: int, nats: float) -> None:
    base = randoms(seed, 3, 200)
    assert_met(at(recipe, nats), base, base + randoms(seed + 1, 3, 200, 1.0), nats)


@pytest.mark.parametrize("recipe", METHODS, ids=lambda recipe: recipe.recipe)
def test_a_bound_holds_for_every_recipe(recipe: Recipe) -> None:
    base = randoms(5, 3, 200)
    bound = replace(recipe, max_kl=0.1, support="none")
    logits = bound.step(base, base + randoms(6, 3, 200, 1.0), strengths(recipe, 3)).logits
    assert (kl(logits, base) <= 0.1).all()


def test_the_bound_holds_where_the_step_is_measured_in_nats_too() -> None:
    base, principled = randoms(7, 4, 300), randoms(8, 4, 300)
    bound = replace(at(Alignment(), 1.0), max_kl=0.25)
    assert_met(bound, base, principled, 0.25)


def test_more_nats_are_a_longer_step() -> None:
    base, principled = randoms(9, 4, 300), randoms(10, 4, 300)
    steps = [at(Alignment(p=3), nats).step(base, principled, torch.ones(4)) for nats in (0.01, 0.1, 1, 3)]
    for less, more in itertools.pairwise(steps):
        assert (less.ratio < more.ratio).all()
        assert (kl(less.logits, base) < kl(more.logits, base)).all()


@pytest.mark.parametrize("ratio", [1e-6, 1.0, 1e4])
def test_the_ratio_makes_no_difference_to_a_step_in_nats(ratio: float) -> None:
    base, principled = randoms(11, 3, 300), randoms(12, 3, 300)
    one = at(Alignment(p=3), 0.5).step(base, principled, torch.ones(3))
    other = at(Alignment(p=3), 0.5).step(base, principled, torch.full((3,), ratio))
    torch.testing.assert_close(kl(other.logits, base), kl(one.logits, base), rtol=2e-3, atol=0)
    torch.testing.assert_close(other.ratio, one.ratio, rtol=2e-3, atol=0)


def test_no_nats_are_the_base_model() -> None:
    assert Alignment(scale="kl", kl=0).is_base
    base, principled = randoms(13, 2, 50), randoms(14, 2, 50)
    aligned = Alignment(scale="kl", kl=0).step(base, principled, torch.ones(2))
    assert aligned.allowed is None
    assert torch.equal(aligned.logits.argmax(-1), base.argmax(-1))
    assert (kl(aligned.logits, base) < 1e-10).all()


def test_equal_twins_take_no_step() -> None:
    base = randoms(15, 2, 50)
    for recipe in METHODS:
        aligned = at(recipe, 1.0).step(base, base.clone(), strengths(recipe, 2))
        assert not aligned.logits.isnan().any()


@pytest.mark.parametrize("options", [{"scale": "kl", "kl": 0.5}, {"max_kl": 0.05}, {"kl_total": 0.3}])
def test_rows_do_not_depend_on_each_other(options: dict[str, Any]) -> None:
    base, spread = randoms(16, 6, 500), torch.tensor([0.0, 0.1, 0.5, 1, 2, 8]).unsqueeze(-1)
    principled = base + randoms(17, 6, 500, 1.0) * spread
    recipe = Alignment(p=3, ratio=2.0, support="none", **options)
    state = recipe.opening([4] * 6, torch.device("cpu"))
    together = recipe.step(base, principled, torch.full((6,), 2.0), state)
    for number in range(6):
        one = slice(number, number + 1)
        mine = recipe.opening([4], torch.device("cpu"))
        alone = recipe.step(base[one], principled[one], torch.tensor([2.0]), mine)
        for part, whole in zip(alone, together, strict=True):
            assert part is None or (whole is not None and torch.equal(part, whole[one]))


# The whole response.


@fuzz
@given(seed=seeds, total=st.floats(0.01, 20), ratio=st.floats(0.1, 10))
def test_a_response_never_spends_more_than_it_has(seed: int, total: float, ratio: float) -> None:
    base = randoms(seed, 12, 100)
    principled = base + randoms(seed + 1, 12, 100) * torch.rand(12, 1, generator=torch.Generator().manual_seed(seed))
    logits = replay("lalign", base, principled, ratio=ratio, support="none", kl_total=total)
    assert kl(logits, base).sum() <= total * (1 + 1e-6)


def test_what_a_step_leaves_goes_to_those_that_follow() -> None:
    base = randoms(18, 4, 100)
    near, far = base + randoms(19, 4, 100, 1e-4), base + randoms(19, 4, 100, 4.0)
    principled = torch.where(torch.tensor([False, False, True, True]).unsqueeze(-1), far, near)
    nats = kl(replay("lalign", base, principled, ratio=30, support="none", kl_total=1.0), base)
    assert (nats[:2] < 1e-3).all()
    assert nats[2:].tolist() == pytest.approx([0.5, 0.5], abs=2e-3)


def test_it_is_shared_out_where_every_step_would_take_more() -> None:
    base = randoms(20, 8, 100)
    nats = kl(replay("lalign", base, randoms(21, 8, 100), ratio=5, support="none", kl_total=2.0), base)
    assert nats.tolist() == pytest.approx([0.25] * 8, abs=2e-3)


def test_a_first_step_without_its_budget_is_refused() -> None:
    recipe = Alignment(kl_total=1.0)
    with pytest.raises(ValueError, match="opening"):
        recipe.step(randoms(22, 1, 9), randoms(23, 1, 9), torch.ones(1))


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "kl"}, "kl: is needed with scale kl"),
        ({"scale": "relative", "kl": 1}, "kl: goes with scale kl, not relative"),
        ({"kl": LEAST_NATS / 2}, f"kl: must be a number of at least {LEAST_NATS:g}, not {LEAST_NATS / 2}"),
        ({"kl": -1}, "kl: must be a number of at least 0.0001, not -1"),
        ({"kl": math.nan}, "kl: must be a number of at least 0.0001, not nan"),
        ({"max_kl": 1e-9}, "max_kl: must be a number of at least 0.0001, not 1e-09"),
        ({"kl_total": 0}, "kl_total: must be a number of at least 0.0001, not 0"),
    ],
)
@pytest.mark.parametrize("name", RECIPES)
def test_budgets_that_float32_cannot_hold_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        recipe_of(name, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", RECIPES)
def test_nats_alone_say_the_scale(name: str) -> None:
    assert recipe_of(name, kl=0.5) == recipe_of(name, kl=0.5, scale="kl")
    assert recipe_of(name, kl=0.5).point["kl"] == 0.5


@pytest.mark.real
@pytest.mark.parametrize("p", NORMS)
def test_the_divergence_is_met_on_rows_of_a_real_model(p: float, smol: Any, hh: str) -> None:
    def row(system: str) -> Tensor:
        ids = smol.tokenizer(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nWhy is the sky blue?")
        logits: Tensor = smol.model(torch.tensor([ids["input_ids"]])).logits[0, -6:].float()
        return logits

    with torch.inference_mode():
        base, principled = row("You are a helpful assistant."), row(hh)
    for nats in (0.1, 1.0):
        assert_met(at(Alignment(p=p), nats), base, principled, nats)
