"""The likeliest tokens of each distribution: what sorting probabilities in float64 finds."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lalign.method.aligned import DISTRIBUTIONS, likeliest_width
from lalign.method.likeliest import likeliest


def plain(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities `[rows, vocab]`."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 4),
    vocab=st.integers(1, 12),
    count=st.integers(1, 15),
    forbidden=st.integers(0, 11),
    scale=st.sampled_from([0.1, 3.0, 20.0]),
)
def test_it_finds_what_sorting_finds(
    seed: int, rows: int, vocab: int, count: int, forbidden: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = tuple(torch.randn(rows, vocab, generator=generator) * scale for _ in DISTRIBUTIONS)
    tokens = torch.randint(vocab, (rows,), generator=generator)
    others = torch.arange(vocab) != tokens[:, None]
    logits[0].masked_fill_(others & (torch.arange(vocab) < forbidden), -torch.inf)
    found = likeliest(logits, tokens, count).numpy()
    assert found.shape == (rows, likeliest_width(count))
    for part, given_logits in zip(np.split(found, len(DISTRIBUTIONS), axis=1), logits, strict=True):
        wanted = plain(given_logits.double().numpy())
        np.testing.assert_allclose(part[:, 0], wanted[np.arange(rows), tokens], atol=1e-5)
        ids, logprobs = part[:, 1 : 1 + count].astype(int), part[:, 1 + count :]
        ordered = np.full((rows, count), -np.inf)
        ordered[:, :vocab] = -np.sort(-wanted)[:, :count]
        np.testing.assert_allclose(logprobs, ordered, atol=1e-5)
        there = np.isfinite(logprobs)
        np.testing.assert_allclose(np.take_along_axis(wanted, ids, -1)[there], logprobs[there], atol=1e-5)
        assert all(len({*row[keep]}) == keep.sum() for row, keep in zip(ids, there, strict=True))


def test_nothing_is_as_wide_as_nothing() -> None:
    assert likeliest_width(0) == 0
