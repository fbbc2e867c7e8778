"""The trust-region update: exact, safe at the edges, and what the paper and the authors' program say it is."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
import torch
from conftest import align
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from lalign.engine.batch import Batch, Group
from lalign.engine.decoding import choose
from lalign.engine.interface import Point, Request, Sequence
from lalign.method import update
from lalign.method.budget import KL_TOLERANCE
from lalign.method.gauge import peaked
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.method.recipes import recipe_of
from lalign.method.update import (
    NUCLEUS_CANDIDATES,
    combine,
    nucleus,
    restrict_to_nucleus,
    trust_region_step,
)
from lalign.options import Sampling

fuzz = settings(max_examples=max(25, int(os.environ.get("LALIGN_FUZZ_EXAMPLES", "2000")) // 80))
SCALES = ("relative", "absolute", "norm")
NORMS = [1, 1.2, 1.5, 2, 3, 8, math.inf]
INF = math.inf
# Equation 10 has no value at p = 1.
SHAPES = [(p, scale) for p in NORMS for scale in SCALES if p > 1 or scale != "absolute"]
EDGE_SHAPES = SHAPES + [(p, scale) for p in (1.0001, 1e6, 1e30) for scale in SCALES]
Vector = NDArray[np.float64]

# Logits as multiples of 1/64: exact in float32, with ties and zeros among them.
shifts = arrays(np.float64, st.integers(2, 40), elements=st.integers(-3200, 3200).map(lambda number: number / 64))
ratios = st.integers(1, 1280).map(lambda number: number / 64)
seeds = st.integers(0, 2**32 - 1)


def row(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32).reshape(1, -1)


def step_of(d: Vector, ratio: float, p: float, scale: Any = "relative") -> Vector:
    return trust_region_step(row(d), torch.tensor([ratio]), p, scale)[0].double().numpy()


def randoms(seed: int, rows: int, vocab: int, spread: float = 4.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def kl(logits: Tensor, base: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(base)) in float64."""
    one, other = logits.double().log_softmax(-1), base.double().log_softmax(-1)
    return torch.where(one > -INF, one.exp() * (one - other), 0.0).sum(-1)


# The step is the exact maximiser.


@pytest.mark.parametrize(("p", "scale"), SHAPES)
@fuzz
@given(d=shifts, ratio=ratios, seed=seeds)
def test_no_other_step_of_the_same_norm_gains_more(p: float, scale: str, d: Vector, ratio: float, seed: int) -> None:
    assume(d.any())
    step = step_of(d, ratio, p, scale)
    random = np.random.default_rng(seed)
    far = random.standard_normal((100, d.size))
    near = step + 0.1 * np.abs(step).max() * random.standard_normal((100, d.size))
    others = np.concatenate([far, near])
    radius = np.linalg.norm(step, p)
    others *= radius / np.linalg.norm(others, p, axis=1, keepdims=True)
    assert (others @ d).max() <= (step @ d) * (1 + 1e-4)


@pytest.mark.parametrize("p", NORMS)
@fuzz
@given(d=shifts, ratio=ratios)
def test_the_gain_is_all_that_hoelder_allows(p: float, d: Vector, ratio: float) -> None:
    assume(d.any())
    step = step_of(d, ratio, p)
    q = 1 if p == INF else INF if p == 1 else p / (p - 1)
    assert step @ d == pytest.approx(np.linalg.norm(d, q) * np.linalg.norm(step, p), rel=1e-4)


@pytest.mark.parametrize("p", [*NORMS, 1.0001, 1e6])
@fuzz
@given(d=shifts, ratio=ratios)
def test_relative_steps_are_ratio_times_as_long_as_the_shift(p: float, d: Vector, ratio: float) -> None:
    assert np.linalg.norm(step_of(d, ratio, p)) == pytest.approx(ratio * np.linalg.norm(d), rel=1e-4)


@fuzz
@given(seed=seeds, ratio=ratios)
def test_p_2_relative_is_a_straight_line_through_the_twins(seed: int, ratio: float) -> None:
    base, principled = randoms(seed, 3, 50), randoms(seed + 1, 3, 50)
    aligned = align(base, principled, torch.full((3,), ratio), Alignment())
    expected = (base.double() + ratio * (principled.double() - base.double())).log_softmax(-1)
    # Rounding of float32 grows with the length of the step.
    torch.testing.assert_close(aligned.logits.log_softmax(-1).double(), expected, rtol=1e-5, atol=1e-5 * (1 + ratio))


@pytest.mark.parametrize("p", [1.2, 1.5, 2, 3, 8, INF])
@fuzz
@given(d=shifts, ratio=ratios)
def test_the_absolute_scale_is_equation_10(p: float, d: Vector, ratio: float) -> None:
    assume(d.any())
    expected = ratio * np.sign(d) * (np.abs(d) / np.sqrt((d**2).sum())) ** (1 / (p - 1))
    np.testing.assert_allclose(step_of(d, ratio, p, "absolute"), expected, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("p", NORMS)
@fuzz
@given(d=shifts, ratio=ratios)
def test_the_norm_scale_is_the_radius_of_the_ball(p: float, d: Vector, ratio: float) -> None:
    assume(d.any())
    assert np.linalg.norm(step_of(d, ratio, p, "norm"), p) == pytest.approx(ratio, rel=1e-4)


def test_p_1_puts_all_on_the_largest_entry() -> None:
    np.testing.assert_allclose(step_of(np.array([3.0, -5, 1]), 2, 1), [0, -2 * math.sqrt(35), 0], rtol=1e-6)


def test_p_1_shares_equally_between_ties_and_keeps_their_signs() -> None:
    step = step_of(np.array([4.0, -4, 1, 4]), 1.5, 1)
    assert step[0] == -step[1] == step[3]
    assert step[2] == 0
    assert np.linalg.norm(step) == pytest.approx(1.5 * 7)


def test_p_inf_moves_every_entry_that_differs_alike() -> None:
    np.testing.assert_allclose(step_of(np.array([3.0, -4, 0]), 1, INF), [5 / 2**0.5, -5 / 2**0.5, 0], rtol=1e-6)


def test_p_near_1_and_huge_p_go_over_into_their_limits() -> None:
    d = np.array([3.0, -5, 1, 4.9])
    np.testing.assert_allclose(step_of(d, 2, 1.0001), step_of(d, 2, 1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(step_of(d, 2, 1e9), step_of(d, 2, INF), rtol=1e-5)


# Edges: nothing overflows, nothing turns to nan.


EDGES = [
    pytest.param(Alignment(p=p, scale=scale, anchor=anchor, max_kl=max_kl), id=f"{p}-{scale}-{anchor}-{max_kl}")
    for p, scale in EDGE_SHAPES
    for anchor in ("base", "principle")
    for max_kl in (None, 0.1)
]


@pytest.mark.parametrize("options", EDGES)
def test_logits_up_to_10000_stay_finite(options: Alignment) -> None:
    base, principled = randoms(1, 4, 64, 1e3).clamp(-1e4, 1e4), randoms(2, 4, 64, 1e3).clamp(-1e4, 1e4)
    base[0, :2], principled[0, :2] = torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4])
    aligned = align(base, principled, torch.tensor([0.0, 0.5, 3, 100]), options)
    assert all(tensor.isfinite().all() for tensor in aligned[:4])


@pytest.mark.parametrize("options", EDGES)
def test_minus_infinity_takes_no_step_and_never_makes_a_nan(options: Alignment) -> None:
    base, principled = randoms(3, 1, 9), randoms(4, 1, 9)
    base[0, :6] = principled[0, 3:] = -INF  # 0-2 in the base twin alone, 3-5 in both, 6-8 in the principled one alone
    aligned = align(base, principled, torch.tensor([3.0]), options)
    assert not aligned.logits.isnan().any()
    assert not aligned.step.any()
    anchor = base if options.anchor == "base" or options.max_kl else principled
    assert torch.equal(aligned.logits, peaked(anchor))


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("anchor", ["base", "principle"])
def test_finite_entries_beside_minus_infinity_step_as_if_alone(p: float, anchor: Any) -> None:
    base, principled, ratio = randoms(5, 2, 12), randoms(6, 2, 12), torch.tensor([2.0, 0.5])
    options = Alignment(p=p, anchor=anchor)
    alone = align(base[:, 3:], principled[:, 3:], ratio, options)
    base[:, :2] = principled[:, 1:3] = -INF
    beside = align(base, principled, ratio, options)
    torch.testing.assert_close(peaked(beside.logits[:, 3:]), peaked(alone.logits))
    assert torch.equal(beside.step[:, :3], torch.zeros(2, 3))


@pytest.mark.parametrize(("p", "scale"), EDGE_SHAPES)
def test_no_shift_means_no_step(p: float, scale: Any) -> None:
    base = randoms(7, 2, 30)
    aligned = align(base, base.clone(), torch.tensor([3.0, 50.0]), Alignment(p=p, scale=scale))
    assert torch.equal(aligned.logits, peaked(base))


@pytest.mark.parametrize("filler", [-INF, -1e4])
@pytest.mark.parametrize("p", NORMS)
def test_padded_vocabulary_takes_no_step(p: float, filler: float) -> None:
    base, principled = randoms(8, 2, 40), randoms(9, 2, 40)
    base[:, 32:] = principled[:, 32:] = filler
    aligned = align(base, principled, torch.tensor([1.5, 3.0]), Alignment(p=p))
    assert torch.equal(aligned.logits[:, 32:], peaked(base)[:, 32:])
    assert not aligned.step[:, 32:].any()


def test_rows_do_not_depend_on_each_other() -> None:
    base, spread = randoms(10, 6, 500), torch.tensor([0.1, 0.5, 1, 2, 4, 8]).unsqueeze(-1)
    principled, ratio = base + randoms(11, 6, 500, 1.0) * spread, torch.tensor([0.0, 0.5, 1, 2, 3, 5])
    options = Alignment(p=3, max_kl=0.05)
    together = align(base, principled, ratio, options)
    for number in range(6):
        one = slice(number, number + 1)
        alone = align(base[one], principled[one], ratio[one], options)
        assert all(torch.equal(mine, its[one]) for mine, its in zip(alone[:4], together[:4], strict=True))


# Anchors, several principles, recipes.


def test_ratio_0_is_the_anchor() -> None:
    base, principled, ratio = randoms(12, 2, 30), randoms(13, 2, 30), torch.zeros(2)
    assert torch.equal(align(base, principled, ratio, Alignment(p=3)).logits, peaked(base))
    assert torch.equal(align(base, principled, ratio, Alignment(p=3, anchor="principle")).logits, peaked(principled))


def test_ratio_1_is_the_principled_twin_to_the_bit() -> None:
    base, principled = randoms(12, 3, 30), randoms(13, 3, 30)
    logits = align(base, principled, torch.tensor([1.0, 2.0, 1.0]), Alignment()).logits
    assert torch.equal(logits[::2], peaked(principled)[::2])


def test_ratio_r_on_the_principle_is_r_plus_1_on_the_base() -> None:
    base, principled, ratio = randoms(14, 2, 30), randoms(15, 2, 30), torch.tensor([0.5, 2.0])
    on_principle = align(base, principled, ratio, Alignment(anchor="principle"))
    on_base = align(base, principled, ratio + 1, Alignment())
    torch.testing.assert_close(on_principle.logits.log_softmax(-1), on_base.logits.log_softmax(-1))


def test_one_principle_of_weight_1_is_left_as_it_is() -> None:
    base, principled = randoms(16, 2, 30), randoms(17, 2, 30)
    assert combine(base, [principled], (1.0,)) is principled


def test_principles_add_up_by_their_weights() -> None:
    base, twins, weights = randoms(18, 3, 30), [randoms(19 + k, 3, 30) for k in range(3)], (0.5, -1.0, 2.0)
    expected = base.double() + sum(
        weight * (twin.double() - base.double()) for twin, weight in zip(twins, weights, strict=True)
    )
    before = base.clone()
    torch.testing.assert_close(combine(base, twins, weights), expected.float(), rtol=1e-5, atol=1e-5)
    assert torch.equal(base, before)


def test_minus_infinity_in_one_principle_leaves_the_others_say() -> None:
    base, first, second = row([1, 2, -INF]), row([-INF, 3, -INF]), row([4, 5, 6])
    assert torch.equal(combine(base, [first, second], (1.0, 2.0)), row([7, 9, -INF]))


def reference(base: Vector, principled: Vector, recipe: str, ratio: float) -> Vector:
    """Aligned log-probabilities by Eq. 10 and 12 (p = 2), and by the released program, -inf outside the support."""
    if recipe == "paper":
        d = softmax(principled) - softmax(base)
        aligned: Vector = log_softmax(base + ratio * d / np.sqrt((d * d).sum()))
        return aligned
    exponentials = np.exp((principled - principled.max()) / 0.5)
    nucleus, mass = [], 0.0
    for token in np.argsort(-principled):
        if mass < 0.8:
            nucleus.append(token)
        mass += exponentials[token] / exponentials.sum()
    aligned = np.full_like(base, -INF)
    aligned[nucleus] = (principled + ratio * (principled - base))[nucleus]
    restricted: Vector = log_softmax(aligned)
    return restricted


def answers(base: Tensor, principled: Tensor, options: Recipe, sampling: Sampling, runs: int = 1) -> list[int]:
    """The tokens that `runs` sequences of different seeds take after the same pair of logits."""
    sequences = [
        Sequence(Request(None, [0], ([1],), (1.0,), ()), Point(options, sampling, seed=(seed,))) for seed in range(runs)
    ]
    batch = Batch([Group([0, 1], sequences)], torch.device("cpu"))
    tokens: list[int] = choose(torch.cat([base, principled]), batch, with_statistics=True).tokens.tolist()
    return tokens


@pytest.mark.parametrize("ratio", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_recipes_are_what_the_formulas_say(recipe: str, ratio: float) -> None:
    options = recipe_of(recipe, ratio=ratio)
    for seed in range(20):
        base, principled = randoms(seed, 1, 200, 2.0), randoms(seed + 100, 1, 200, 2.0)
        expected = reference(base[0].double().numpy(), principled[0].double().numpy(), recipe, ratio)
        logits = align(base, principled, torch.tensor([ratio]), options).logits
        if options.support == "principle":
            logits = restrict_to_nucleus(logits, principled, options.support_top_p, options.support_temperature)
        np.testing.assert_allclose(logits[0].log_softmax(-1).numpy(), expected, rtol=1e-4, atol=1e-4)
        assert answers(base, principled, options, Sampling()) == [expected.argmax()]


def test_the_released_program_samples_from_the_restricted_distribution_at_temperature_a_half() -> None:
    base, principled, draws = randoms(40, 1, 50, 1.0), randoms(41, 1, 50, 1.0), 4000
    tokens = answers(base, principled, recipe_of("released"), Sampling(temperature=0.5), draws)
    expected = torch.tensor(reference(base[0].double().numpy(), principled[0].double().numpy(), "released", 2.0))
    probabilities = (expected / 0.5).softmax(-1)
    seen = torch.tensor(tokens).bincount(minlength=50) / draws
    assert not seen[probabilities == 0].any()
    assert (seen - probabilities).abs().max() < 4 * 0.5 / draws**0.5  # four standard errors, at their largest


def test_at_ratio_0_the_released_program_keeps_its_support_and_ours_is_the_base_model_alone() -> None:
    base, principled = row([5.0, 1, 1, 0]), row([-20.0, 3, 1, 0])
    assert answers(base, principled, recipe_of("released", ratio=0.0), Sampling()) == [1]
    assert answers(base, principled, recipe_of("lalign", ratio=0.0), Sampling()) == [0]
    assert answers(base, principled, recipe_of("lalign", ratio=0.1), Sampling()) == [1]


# Support.


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.8, 0.999, 1.0])
@pytest.mark.parametrize("vocab", [1, 5, NUCLEUS_CANDIDATES[0], 3000])
def test_the_nucleus_is_that_of_a_plain_sort_in_float64(vocab: int, top_p: float, spread: float) -> None:
    principled, logits = randoms(50, 4, vocab, spread), randoms(51, 4, vocab)
    if spread == 20.0:  # one row of many, so that rows of both lengths meet in a call
        principled[0] = 0.0
    restricted = restrict_to_nucleus(logits, principled, top_p, temperature=0.5)
    kept = (restricted > -INF).numpy()
    probabilities = (principled.double() / 0.5).softmax(-1).numpy()
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    sorted_probabilities = np.take_along_axis(probabilities, order, -1)
    before = np.cumsum(sorted_probabilities, -1) - sorted_probabilities
    kept_sorted = np.take_along_axis(kept, order, -1)
    borderline = np.abs(before - top_p) < 1e-5  # float32 may decide these either way
    last = (before < top_p).sum(-1, keepdims=True) - 1
    ties = sorted_probabilities == np.take_along_axis(sorted_probabilities, last, -1)
    assert (kept_sorted == (before < top_p))[~borderline & ~ties].all()
    assert (np.abs(kept.sum(-1) - last[:, 0] - 1) <= borderline.sum(-1)).all()
    assert kept.any(-1).all()
    assert torch.equal(restricted[torch.tensor(kept)], logits[torch.tensor(kept)])


def test_a_flat_distribution_keeps_its_share_of_tokens_beyond_the_candidates() -> None:
    kept = restrict_to_nucleus(torch.zeros(1, 1000), torch.zeros(1, 1000), 0.7995, 0.5) > -INF
    assert kept.sum() == 800 > NUCLEUS_CANDIDATES[0]


@pytest.mark.parametrize("top_p", [0.3, 0.8, 0.99, 1.0])
def test_rows_whose_nucleus_takes_more_candidates_have_that_of_a_whole_sort(
    top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that need the first candidates, the next, and all of the vocabulary, side by side."""
    principled = randoms(52, 7, 9000, 1.0) * torch.tensor([9.0, 1.0, 0.01, 0.5, 0.3, 20.0, 0.1]).unsqueeze(-1)
    found = nucleus(principled, top_p, 0.5)
    monkeypatch.setattr(update, "NUCLEUS_CANDIDATES", ())
    assert torch.equal(found, nucleus(principled, top_p, 0.5))
    sizes = found.sum(-1)
    assert top_p != 0.8 or (sizes.min() < NUCLEUS_CANDIDATES[0] < sizes.median() < NUCLEUS_CANDIDATES[1] < sizes.max())


def test_a_sure_model_keeps_its_one_token_whatever_the_aligned_logits() -> None:
    restricted = restrict_to_nucleus(row([9, 8, -7]), row([0, 0, 50]), 0.8, 0.5)
    assert torch.equal(restricted, row([-INF, -INF, -7]))


def test_the_nucleus_survives_minus_infinity() -> None:
    restricted = restrict_to_nucleus(row([1, 2, 3]), row([-INF, 0, -INF]), 1.0, 0.5)
    assert torch.equal(restricted, row([-INF, 2, -INF]))


# Trust region in nats.


@fuzz
@given(
    seed=seeds,
    max_kl=st.floats(1e-3, 20),
    ratio=ratios,
    p=st.sampled_from(NORMS),
    anchor=st.sampled_from(["base", "principle"]),
    spread=st.floats(0.01, 5),
)
def test_max_kl_is_kept_and_used_up(
    seed: int, max_kl: float, ratio: float, p: float, anchor: Any, spread: float
) -> None:
    base = randoms(seed, 4, 300)
    principled, ratios = base + randoms(seed + 1, 4, 300, spread), torch.full((4,), ratio)
    free = align(base, principled, ratios, Alignment(p=p, anchor=anchor))
    bound = align(base, principled, ratios, Alignment(p=p, anchor=anchor, max_kl=max_kl))
    allowed, reached = kl(free.logits, base), kl(bound.logits, base)
    rounding = 1e-4 * max_kl + 1e-6
    assert (reached <= max_kl + rounding).all()
    exceeds = allowed > max_kl + rounding
    assert (reached[exceeds] >= max_kl - 1.2 * KL_TOLERANCE - rounding).all()
    within = allowed < max_kl - rounding
    assert torch.equal(bound.logits[within], free.logits[within])
    assert (bound.ratio <= ratio).all()
    assert (bound.ratio[within] == ratio).all()
    assert (bound.step.norm(dim=-1) <= free.step.norm(dim=-1)).all()


def test_the_step_in_force_is_the_one_that_was_taken() -> None:
    base, principled = randoms(60, 4, 300), randoms(61, 4, 300)
    bound = align(base, principled, torch.full((4,), 3.0), Alignment(max_kl=0.5))
    assert ((bound.ratio > 0) & (bound.ratio < 3)).all()
    torch.testing.assert_close(bound.logits.log_softmax(-1), (base + bound.step).log_softmax(-1))
    torch.testing.assert_close(bound.step, bound.ratio.unsqueeze(-1) * bound.shift)


@pytest.mark.parametrize("anchor", ["base", "principle"])
def test_max_kl_holds_where_a_twin_rules_out_what_the_base_likes(anchor: Any) -> None:
    base, principled = row([10, 1, 0, -INF]), row([-INF, 1, 0, 10])
    bound = align(base, principled, torch.tensor([1.0]), Alignment(anchor=anchor, max_kl=0.1))
    assert kl(bound.logits, base).item() <= 0.1
