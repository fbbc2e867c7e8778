"""Drawing a token: exact, reproducible on any machine and in any batch, and warped as transformers warps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from transformers import TemperatureLogitsWarper

from lalign.engine.randomness import uniforms
from lalign.engine.sampling import draw, greedy, warpers
from lalign.options import Sampling

INF = math.inf
ALMOST_ONE = 1 - 2**-53  # the largest number that `uniforms` can give


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def randoms(seed: int, rows: int, vocab: int, spread: float = 2.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


# Draw.


def test_greedy_takes_the_likeliest_and_the_first_of_equals() -> None:
    assert greedy(torch.tensor([[0.0, 1, 3], [2, -INF, 2]])).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("number", "token"),
    [(0.0, 0), (0.2499, 0), (0.2501, 1), (0.4999, 1), (0.5001, 2), (0.75, 2), (ALMOST_ONE, 2)],
)
def test_a_number_picks_the_token_in_whose_interval_it_lies(number: float, token: int) -> None:
    probabilities = torch.tensor([[0.25, 0.25, 0.5]])
    assert draw(probabilities.log(), numbers(number)).tolist() == [token]


def test_the_middle_of_every_tokens_interval_picks_that_token() -> None:
    logits = randoms(1, 1, 3000)
    probabilities = logits[0].double().softmax(-1)
    middles = probabilities.cumsum(-1) - probabilities / 2
    assert draw(logits.expand(3000, -1), middles).tolist() == list(range(3000))


@settings(max_examples=100)
@given(
    possible=st.lists(st.booleans(), min_size=1, max_size=40).filter(any),
    number=st.floats(0, ALMOST_ONE) | st.sampled_from([0.0, ALMOST_ONE]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_impossible_token_is_ever_drawn(possible: list[bool], number: float, seed: int) -> None:
    logits = randoms(seed, 1, len(possible), 10.0)
    logits[0, ~torch.tensor(possible)] = -INF
    probabilities = logits.softmax(-1)
    assert probabilities[0, draw(logits, numbers(number))] > 0


def test_logits_that_are_no_numbers_still_give_a_token_of_the_vocabulary() -> None:
    assert draw(torch.full((2, 4), math.nan), numbers(0.0, 0.9)).max() < 4


def test_tokens_too_rare_for_a_float32_sum_are_drawn_as_often_as_they_should_be() -> None:
    """Tokens of 1e-8 each, beyond half of the mass, where steps of float32 are 6e-8: ten numbers to a token."""
    probabilities = torch.full((2000,), 1e-8, dtype=torch.float64)
    probabilities[0], probabilities[-1] = 0.5, 0.5 - 1998e-8
    within = 0.5 + 1e-6 + 1e-9 * torch.arange(500, dtype=torch.float64)
    counts = draw(probabilities.log().float().expand(500, -1), within).bincount()
    counts = counts[counts > 0]
    assert len(counts) in (50, 51)
    assert ((counts[1:-1] - 10).abs() <= 1).all()


def test_frequencies_are_the_probabilities() -> None:
    logits, draws = torch.tensor([[0.0, 1, -1, 2, -INF, 0.5, -2]]), 20_000
    tokens = draw(logits.expand(draws, -1), torch.tensor(uniforms((7,), draws), dtype=torch.float64))
    counts, probabilities = tokens.bincount(minlength=7).numpy(), logits[0].double().softmax(-1).numpy()
    assert counts[4] == 0
    keeps = probabilities > 0
    assert chisquare(counts[keeps], probabilities[keeps] * draws).pvalue > 0.01


def test_a_rows_token_does_not_depend_on_the_rows_beside_it() -> None:
    logits, chances = randoms(2, 16, 2000), torch.tensor(uniforms((3,), 16), dtype=torch.float64)
    together = draw(logits, chances)
    assert [draw(logits[k : k + 1], chances[k : k + 1]).item() for k in range(16)] == together.tolist()
    assert draw(logits.flip(0), chances.flip(0)).tolist() == together.flip(0).tolist()


# Random numbers.


def test_numbers_are_the_same_on_every_machine() -> None:
    assert uniforms((0, 1), 3) == [0.8897387912781343, 0.5571380502062263, 0.8009080868919721]
    assert uniforms((2**63 - 1,), 2) == [0.1754661243027813, 0.4699286514015091]


def test_more_numbers_of_a_seed_begin_with_the_fewer() -> None:
    assert uniforms((5, 9), 1000)[:10] == uniforms((5, 9), 10)


def test_numbers_lie_in_the_unit_interval_and_fill_it() -> None:
    values = np.array(uniforms((11,), 20_000))
    assert values.min() >= 0
    assert values.max() < 1
    assert chisquare(np.histogram(values, bins=20, range=(0, 1))[0]).pvalue > 0.01


def test_records_of_a_run_and_runs_of_a_record_have_streams_of_their_own() -> None:
    firsts = {uniforms((run, record), 1)[0] for run in range(20) for record in range(1, 21)}
    assert len(firsts) == 400


# Warpers.


def test_nothing_is_done_to_greedy_logits() -> None:
    assert not warpers(Sampling(temperature=0, top_k=5, top_p=0.5, min_p=0.1))


def test_what_is_off_is_left_out() -> None:
    assert not warpers(Sampling(temperature=1))
    assert [type(warper) for warper in warpers(Sampling(temperature=2))] == [TemperatureLogitsWarper]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"top_k": 7},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"repetition_penalty": 1.5},
        {"temperature": 3.0, "top_p": 0.5},  # these give other tokens in another order
        {"repetition_penalty": 3.0, "top_k": 2},
        {"temperature": 0.4, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.8},
        {"temperature": 5, "top_k": 3, "top_p": 1, "min_p": 0, "repetition_penalty": 1},
    ],
)
def test_scores_are_those_of_generate(options: dict[str, Any], tiny_model: Callable[..., Any]) -> None:
    prompt = torch.arange(5, 205).unsqueeze(0)
    given: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, **options}
    torch.manual_seed(0)
    output = tiny_model("llama").generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        max_new_tokens=4,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
        **{name: float(value) if name == "temperature" else value for name, value in given.items()},
    )
    ours = warpers(Sampling(**{"temperature": 1.0, **options}))
    for step, (logits, scores) in enumerate(zip(output.logits, output.scores, strict=True)):
        context = output.sequences[:, : prompt.shape[1] + step]
        assert torch.equal(ours(context, logits), scores)


def test_the_repetition_penalty_holds_for_greedy_too() -> None:
    ours = warpers(Sampling(temperature=0, repetition_penalty=2.0))
    scores = ours(torch.tensor([[0, 2, 2]]), torch.tensor([[3.0, 2.0, -1.0]]))
    assert scores.tolist() == [[1.5, 2.0, -2.0]]
