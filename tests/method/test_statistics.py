"""Statistics of a step against scipy in float64, and of a response against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import align
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from lalign.method.aligned import STATISTICS, Aligned
from lalign.method.linear_alignment import Alignment
from lalign.method.statistics import columns, step_statistics, summarise

INF = math.inf
DIVERGENCES = ("kl_aligned_base", "kl_principle_base")
# Of a hundredth of a nat in a sum over the vocabulary, float32 keeps four digits.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def randoms(seed: int, rows: int, vocab: int, spread: float = 4.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def measured(base: Tensor, principled: Tensor, aligned: Aligned, tokens: list[int], p: float = 2) -> dict[str, Any]:
    table = step_statistics(base, principled, aligned, torch.tensor(tokens), p)
    assert table.shape == (len(tokens), len(STATISTICS))
    return dict(zip(STATISTICS, table.double().numpy().T, strict=True))


def expected(base: Tensor, principled: Tensor, aligned: Aligned, tokens: list[int], p: float) -> dict[str, Any]:
    """All statistics from their definitions, with scipy in float64."""
    mu0, mu1, mu = (logits.double().numpy() for logits in (base, principled, aligned.logits))
    rows = range(len(tokens))
    return {
        "kl_aligned_base": entropy(softmax(mu, -1), softmax(mu0, -1), axis=-1),
        "kl_principle_base": entropy(softmax(mu1, -1), softmax(mu0, -1), axis=-1),
        "entropy_base": entropy(softmax(mu0, -1), axis=-1),
        "entropy_aligned": entropy(softmax(mu, -1), axis=-1),
        "shift_norm": np.linalg.norm(log_softmax(mu1, -1) - log_softmax(mu0, -1), axis=-1),
        "step_norm": np.linalg.norm(aligned.step.double().numpy(), p, axis=-1),
        "logprob_base": log_softmax(mu0, -1)[rows, tokens],
        "logprob_principle": log_softmax(mu1, -1)[rows, tokens],
        "logprob_aligned": log_softmax(mu, -1)[rows, tokens],
        "ratio": aligned.ratio.numpy(),
        "flipped": mu.argmax(-1) != mu0.argmax(-1),
    }


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(
    "options",
    [Alignment(), Alignment(p=1), Alignment(p=math.inf), Alignment(p=3, anchor="principle"), Alignment(max_kl=0.2)],
    ids=["p2", "p1", "pinf", "principle", "max_kl"],
)
def test_every_statistic_is_its_definition(name: str, options: Alignment) -> None:
    base, principled = randoms(1, 6, 1000), randoms(2, 6, 1000)
    principled[3:] = base[3:] + 0.1 * principled[3:]  # near twins, where divergences are small
    aligned = align(base, principled, torch.tensor([0.5, 1, 3, 0.5, 1, 3]), options)
    tokens = [0, 5, 999, 17, 3, 250]
    ours = measured(base, principled, aligned, tokens, options.p)[name]
    np.testing.assert_allclose(ours, expected(base, principled, aligned, tokens, options.p)[name], **CLOSE)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 30), distance=st.floats(0, 1e-2))
def test_no_divergence_is_negative_however_near_the_twins(seed: int, spread: float, distance: float) -> None:
    base = randoms(seed, 2, 300, spread)
    principled = base + randoms(seed + 1, 2, 300, distance)
    aligned = align(base, principled, torch.ones(2), Alignment())
    values = measured(base, principled, aligned, [0, 1])
    assert all((values[name] >= 0).all() for name in DIVERGENCES)


def test_at_ratio_0_nothing_has_happened() -> None:
    base, principled = randoms(3, 3, 200), randoms(4, 3, 200)
    values = measured(base, principled, align(base, principled, torch.zeros(3), Alignment()), [0, 1, 2])
    for name in ("kl_aligned_base", "step_norm", "ratio", "flipped"):
        assert not values[name].any()
    assert (values["entropy_aligned"] == values["entropy_base"]).all()
    assert (values["logprob_aligned"] == values["logprob_base"]).all()
    assert (values["kl_principle_base"] > 0).all()


def test_equal_twins_have_no_divergence() -> None:
    base = randoms(5, 2, 200)
    values = measured(base, base, align(base, base, torch.full((2,), 3.0), Alignment()), [0, 1])
    assert not any(values[name].any() for name in (*DIVERGENCES, "shift_norm", "step_norm", "flipped"))


def test_tokens_that_both_twins_rule_out_count_for_nothing() -> None:
    base, principled, ratio = randoms(6, 2, 30), randoms(7, 2, 30), torch.tensor([0.5, 3.0])
    tokens = [1, 2]
    without = measured(base, principled, align(base, principled, ratio, Alignment()), tokens)
    ruled_out = torch.full((2, 4), -INF)
    base, principled = torch.cat([base, ruled_out], -1), torch.cat([principled, ruled_out], -1)
    values = measured(base, principled, align(base, principled, ratio, Alignment()), tokens)
    for name in STATISTICS:
        np.testing.assert_allclose(values[name], without[name], **CLOSE)


def test_minus_infinity_on_one_side_gives_numbers() -> None:
    base = torch.tensor([[0.0, 0.0, -INF]])
    principled = torch.tensor([[0.0, -INF, 0.0]])
    values = measured(base, principled, align(base, principled, torch.tensor([1.5]), Alignment()), [1])
    assert all(np.isfinite(column).all() for column in values.values())
    assert values["kl_aligned_base"] == 0  # no step is taken where the shift is not finite
    assert values["kl_principle_base"] > 1e29  # which stands for infinity
    assert values["logprob_principle"] == pytest.approx(-1e30)
    assert values["logprob_base"] == pytest.approx(math.log(0.5))


def test_large_logits_give_numbers() -> None:
    base, principled = randoms(8, 3, 100, 5e3).clamp(-1e4, 1e4), randoms(9, 3, 100, 5e3).clamp(-1e4, 1e4)
    aligned = align(base, principled, torch.tensor([0.5, 3, 10]), Alignment())
    values = measured(base, principled, aligned, [0, 1, 2])
    assert all(np.isfinite(column).all() for column in values.values())
    log_base, log_aligned = (log_softmax(logits.double().numpy(), -1) for logits in (base, aligned.logits))
    kl = (np.exp(log_aligned) * (log_aligned - log_base)).sum(-1)  # scipy's `entropy` underflows to infinity here
    np.testing.assert_allclose(values["kl_aligned_base"], kl, rtol=1e-4)


# Of a whole response.


def steps() -> list[NDArray[np.float32]]:
    """Three steps; the value of statistic k at step t is k + t / 2, but for `flipped`."""
    table = np.arange(len(STATISTICS), dtype=np.float32) + np.arange(3, dtype=np.float32)[:, None] / 2
    table[:, STATISTICS.index("flipped")] = [1, 0, 1]
    return list(table)


def test_columns_hold_one_array_per_statistic() -> None:
    table = columns(steps())
    assert tuple(table) == STATISTICS
    assert table["kl_aligned_base"].tolist() == [0, 0.5, 1]
    assert table["ratio"].tolist() == [9, 9.5, 10]
    assert table["flipped"].dtype == bool
    assert table["flipped"].tolist() == [True, False, True]
    assert all(column.dtype == np.float32 for name, column in table.items() if name != "flipped")
    assert all(column.flags.c_contiguous for column in table.values())  # as the JSON writer needs them


def test_a_summary_has_means_maxima_and_sums() -> None:
    assert summarise(columns(steps())) == {
        "kl_aligned_base_mean": 0.5,
        "kl_aligned_base_max": 1,
        "kl_aligned_base_sum": 1.5,
        "kl_principle_base_mean": 1.5,
        "kl_principle_base_max": 2,
        "kl_principle_base_sum": 4.5,
        "flipped_share": pytest.approx(2 / 3),
        "logprob_base_mean": 6.5,
        "logprob_principle_mean": 7.5,
        "logprob_aligned_mean": 8.5,
    }


def test_a_summary_is_made_of_plain_floats() -> None:
    assert {type(value) for value in summarise(columns(steps())).values()} == {float}


def test_a_summary_adds_up_in_float64() -> None:
    one = np.full(len(STATISTICS), 0.1, dtype=np.float32)
    summary, value = summarise(columns([one] * 9_999)), float(np.float32(0.1))
    assert summary["kl_aligned_base_sum"] == pytest.approx(9_999 * value, rel=1e-12)
    assert summary["logprob_base_mean"] == pytest.approx(value, rel=1e-12)


def test_an_empty_response_has_empty_columns_and_no_summary() -> None:
    table = columns([])
    assert tuple(table) == STATISTICS
    assert all(column.shape == (0,) for column in table.values())
    assert summarise(table) == {}
