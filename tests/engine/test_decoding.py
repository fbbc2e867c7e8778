"""One step from logits to tokens, a few sequences at a time, against all of them at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalign.engine import decoding
from lalign.engine.batch import Batch, Group
from lalign.engine.decoding import Step, choose
from lalign.engine.interface import Point, Request, Sequence
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.method.recipes import recipe_of
from lalign.options import Sampling

CPU = torch.device("cpu")
VOCABULARY = 1000
RECIPES: tuple[Recipe, ...] = (
    Alignment(ratio=2),
    Alignment(ratio=0),
    Alignment(ratio=3, anchor="principle", support="none"),
    Alignment(ratio=2, max_kl=0.2),
    Alignment(ratio=2, p=3.0),
    recipe_of("adacad"),
    recipe_of("opad"),
)


def batch_of(count: int, some: tuple[Recipe, ...], sampling: Sampling, logprobs: int = 0) -> Batch:
    groups = []
    for number in range(count):
        point = Point(some[number % len(some)], sampling, seed=(number,), logprobs=logprobs)
        request = Request(number, [1], ([2],), (1.0,), (point,))
        groups.append(Group([2 * number, 2 * number + 1], [Sequence(request, point)]))
    return Batch(groups, CPU)


def logits_of(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    base = 3 * torch.randn(count, VOCABULARY, generator=generator)
    return torch.stack([base, base + 0.5 * torch.randn(count, VOCABULARY, generator=generator)], 1).flatten(0, 1)


def chosen(
    monkeypatch: pytest.MonkeyPatch, batch: Batch, logits: torch.Tensor, at_a_time: int
) -> tuple[Step, list[Any]]:
    monkeypatch.setattr(decoding, "ELEMENTS_AT_A_TIME", at_a_time * VOCABULARY)
    step = choose(logits, batch, True)
    return step, [sequence.state for sequence in batch.sequences]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.2)])
@pytest.mark.parametrize("some", [RECIPES[:1], RECIPES[1:2], RECIPES[3:4], RECIPES[5:6], RECIPES[6:], RECIPES])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 23])
def test_pieces_give_what_all_at_once_give(
    monkeypatch: pytest.MonkeyPatch, count: int, some: tuple[Recipe, ...], sampling: Sampling
) -> None:
    logits = logits_of(count)
    whole, kept = chosen(monkeypatch, batch_of(count, some, sampling, logprobs=2), logits, 1000)
    pieces, parts = chosen(monkeypatch, batch_of(count, some, sampling, logprobs=2), logits, 1)
    assert torch.equal(pieces.tokens, whole.tokens)
    assert torch.equal(pieces.sound, whole.sound)
    assert pieces.statistics is not None
    assert whole.statistics is not None
    torch.testing.assert_close(pieces.statistics, whole.statistics, atol=1e-5, rtol=1e-5, equal_nan=True)
    for one, other in zip(parts, kept, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_row_that_is_not_finite_is_told_in_its_piece_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = logits_of(7)
    logits[8, 3] = torch.nan
    step, _ = chosen(monkeypatch, batch_of(7, RECIPES[:1], Sampling()), logits, 1)
    assert step.sound.tolist() == [number != 4 for number in range(7)]


@given(count=st.integers(1, 70), most=st.integers(3, 9))
def test_pieces_are_of_about_one_size_and_hold_each_sequence_once(count: int, most: int) -> None:
    (partition,) = batch_of(count, RECIPES[:1], Sampling()).partitions
    pieces = list(partition.pieces(most))
    sizes = [len(piece.sequences) for piece in pieces]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(count, 2)
    assert [sequence for piece in pieces for sequence in piece.sequences] == partition.sequences
    assert torch.equal(torch.cat([piece.members for piece in pieces]), partition.members)
    assert torch.equal(torch.cat([piece.rows for piece in pieces], dim=1), partition.rows)
    assert torch.equal(torch.cat([piece.ratio for piece in pieces]), partition.ratio)
