"""Recipes through the seam: recorded rows give the logits of the formulas, to the bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lalign.errors import OptionError
from lalign.method import replay
from lalign.method.linear_alignment import Alignment
from lalign.method.recipes import RECIPES
from lalign.method.update import restrict_to_nucleus

STEPS, VOCAB = 5, 90


def rows(seed: int) -> Tensor:
    return torch.randn(STEPS, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


BASE, PRINCIPLED = rows(0), rows(1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_and_an_instance_are_the_same(name: str) -> None:
    assert torch.equal(replay(name, BASE, PRINCIPLED), replay(RECIPES[name], BASE, PRINCIPLED))


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_those_of_the_recipe_one_by_one(name: str) -> None:
    recipe, state = RECIPES[name], None
    for step, final in enumerate(replay(name, BASE, PRINCIPLED)):
        one = slice(step, step + 1)
        aligned = recipe.step(BASE[one], PRINCIPLED[one], torch.tensor([recipe.ratio]), state)
        state = aligned.state
        assert torch.equal(aligned.final()[0], final)


def test_options_go_by_name() -> None:
    found = replay("lalign", BASE, PRINCIPLED, ratio=1.5)
    wanted = restrict_to_nucleus(BASE + 1.5 * (PRINCIPLED - BASE), PRINCIPLED, 0.8, 0.5)
    torch.testing.assert_close(found.log_softmax(-1), wanted.log_softmax(-1))
    assert torch.equal(found == -math.inf, wanted == -math.inf)


def test_tokens_may_be_given_and_change_nothing() -> None:
    tokens = torch.arange(STEPS)
    assert torch.equal(replay("lalign", BASE, PRINCIPLED, tokens), replay("lalign", BASE, PRINCIPLED))


def test_half_precision_is_taken_as_float32() -> None:
    half = BASE.bfloat16(), PRINCIPLED.bfloat16()
    assert torch.equal(replay("lalign", *half), replay("lalign", *(row.float() for row in half)))
    assert replay("lalign", *half).dtype == torch.float32


def test_no_steps_give_none() -> None:
    assert replay("lalign", BASE[:0], PRINCIPLED[:0]).shape == (0, VOCAB)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        replay("lalign", BASE, PRINCIPLED[:, 1:])
    with pytest.raises(ValueError, match="tokens must be"):
        replay("lalign", BASE, PRINCIPLED, torch.arange(STEPS + 1))
    with pytest.raises(OptionError, match=r"^recipe: must be one of"):
        replay("none such", BASE, PRINCIPLED)
    with pytest.raises(OptionError, match=r"^colour: is no option"):
        replay(Alignment(), BASE, PRINCIPLED, colour="blue")
    with pytest.raises(OptionError, match=r"^ratio: must be"):
        replay("lalign", BASE, PRINCIPLED, ratio=-1)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("anchor", ["base", "principle"])
def test_it_is_the_formula(ratio: float, anchor: str) -> None:
    found = replay("lalign", BASE, PRINCIPLED, ratio=ratio, anchor=anchor, support="none")
    expected = (BASE if anchor == "base" else PRINCIPLED) + ratio * (PRINCIPLED - BASE)
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), rtol=1e-5, atol=1e-5)
