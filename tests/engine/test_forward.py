"""Prompts run together, from shared prefixes, against each prompt run alone from its first token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import SLIDING_WINDOW, VOCABULARY, TinyModel
from hypothesis import given, settings
from hypothesis import strategies as st

from lalign.engine.cache import KVStore, Prefix
from lalign.engine.forward import PADDING_SHARE, TOKENS_PER_PASS, Forward, passes
from lalign.engine.rows import rest_length
from lalign.engine.shared_attention import NAME

# Those whose attention is full, and of transformers' registry.
SHARING = ["llama", "qwen2", "gpt2"]
KINDS = ["llama", "gpt2", "qwen2", "gemma3", "mistral"]
CPU = torch.device("cpu")
PREFIX = [(7 * place + 3) % VOCABULARY for place in range(3 * SLIDING_WINDOW)]
OTHER_PREFIX = [11, *PREFIX[1:10], 12, 13, 14]

tokens = st.integers(0, VOCABULARY - 1)


def alone(model: Any, row: list[int]) -> torch.Tensor:
    """The plain way: no cache, no padding, no company."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([row]), use_cache=False).logits[0, -1]
    return logits


def run(forward: Forward, rows: list[list[int]], prefixes: list[Prefix]) -> tuple[torch.Tensor, KVStore]:
    """Logits of prompts run together `[rows, vocab]`, and the store that holds them."""
    store = KVStore(forward.num_layers)
    logits, opened = forward.prompts(rows, prefixes, store)
    store.admit(opened)
    return logits, store


def assert_as_alone(model: Any, rows: list[list[int]], prefix_ids: list[list[int]]) -> None:
    """The logits of all rows, and after it those of two more steps on top of what was stored."""
    with torch.inference_mode():
        forward = Forward(model)
        if model.config._attn_implementation == NAME:
            forward.share_if_it_can()
        prefixes = [forward.prefix(ids) for ids in prefix_ids]
        logits, store = run(forward, rows, prefixes)
        for step in range(3):
            plain = torch.stack([alone(model, row) for row in rows])
            torch.testing.assert_close(logits, plain, atol=1e-4, rtol=1e-4)
            fresh = [[(31 * step + 5 * number) % VOCABULARY] for number in range(len(rows))]
            rows = [row + given for row, given in zip(rows, fresh, strict=True)]
            logits = forward(torch.tensor(fresh), store)


@pytest.fixture(scope="module", params=[*KINDS, *(f"{kind}, shared" for kind in SHARING)])
def model(request: pytest.FixtureRequest, tiny_model: TinyModel) -> Any:
    """Of each kind one whose rows begin with a copy of a prefix; where they can, another whose rows stand behind it."""
    kind, _, shared = request.param.partition(", ")
    model = tiny_model(kind)
    if shared:
        Forward(model).share_if_it_can()
        assert model.config._attn_implementation == NAME
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_which_kinds_stand_behind_a_prefix(tiny_model: TinyModel, kind: str) -> None:
    model = tiny_model(kind)
    forward = Forward(model)
    forward.share_if_it_can()
    assert forward.shares is (kind in SHARING)
    assert model.config._attn_implementation == (NAME if kind in SHARING else "sdpa")


def test_a_prefix_that_rows_stand_behind_is_kept_once(tiny_model: TinyModel) -> None:
    forward = Forward(tiny_model("llama"))
    forward.share_if_it_can()
    _, store = run(forward, [[*PREFIX, 40], [*PREFIX, 41, 42, 43]], [forward.prefix(PREFIX)])
    assert store.width == 3


@pytest.mark.parametrize(
    ("rows", "prefixes"),
    [
        pytest.param([[5, 6, 7]], [], id="one row"),
        pytest.param([[5], PREFIX, [9, 8, 7, 6]], [], id="mixed lengths"),
        pytest.param([[*PREFIX, 40], [*PREFIX, 41, 42, 43]], [PREFIX], id="a whole prefix"),
        pytest.param([[*PREFIX[:10], 40, 41], [*PREFIX, 42]], [PREFIX], id="part of a prefix"),
        pytest.param([[1, 2, 3, 4, 5], [*PREFIX, 42]], [PREFIX], id="none of a prefix"),
        pytest.param([PREFIX, PREFIX[:5]], [PREFIX], id="nothing but the prefix, or less"),
        pytest.param([[8, 9], [*PREFIX, 50], PREFIX[::-1]], [PREFIX], id="rows shorter than what the longest has left"),
        pytest.param(
            [[*PREFIX, 1], [*OTHER_PREFIX, 2, 3], [*OTHER_PREFIX[:6], 4], [0]],
            [PREFIX, OTHER_PREFIX],
            id="two prefixes",
        ),
        pytest.param([[*PREFIX, 1, 2]] * 3, [PREFIX[:4], PREFIX], id="the longer of two that fit"),
    ],
)
def test_logits_are_those_of_each_row_alone(model: Any, rows: list[list[int]], prefixes: list[list[int]]) -> None:
    assert_as_alone(model, rows, prefixes)


@settings(max_examples=10)
@given(data=st.data())
def test_logits_are_those_of_each_row_alone_whatever_they_share(model: Any, data: st.DataObject) -> None:
    prefixes = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=30), max_size=2))
    rests = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=20), min_size=1, max_size=4))
    cuts = [data.draw(st.tuples(st.sampled_from(prefixes or [[]]), st.integers(0, 30))) for _ in rests]
    rows = [prefix[:cut] + rest for (prefix, cut), rest in zip(cuts, rests, strict=True)]
    assert_as_alone(model, rows, prefixes)


def test_a_prefix_is_used_again_and_again_unharmed(model: Any) -> None:
    forward = Forward(model)
    row = [*PREFIX, 60, 61]
    with torch.inference_mode():
        prefix = forward.prefix(PREFIX)
        first, _ = run(forward, [row, [1, 2]], [prefix])
        second, _ = run(forward, [row, [1, 2]], [prefix])
    assert torch.equal(first, second)


def test_only_what_a_prefix_does_not_hold_is_run(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    widths: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    forward = Forward(model)
    with torch.inference_mode():
        prefix = forward.prefix(PREFIX)
        _, store = run(forward, [[*PREFIX, 1, 2], [*PREFIX, 3]], [prefix])
    assert widths == [len(PREFIX), 2]
    assert store.width == len(PREFIX) + 2


def test_logits_are_computed_for_the_last_position_alone(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    shapes: list[torch.Size] = []
    model.lm_head.register_forward_hook(lambda _, args, output: shapes.append(output.shape))
    with torch.inference_mode():
        run(Forward(model), [PREFIX, PREFIX[3:]], [])
    assert shapes == [(2, 1, VOCABULARY)]


@pytest.mark.parametrize(
    ("row", "rest"),
    [
        ([*PREFIX, 1, 2], 2),
        (PREFIX, 1),  # the last token is always run: its logits are what is wanted
        ([*PREFIX[:9], 299], 1),
        ([299, *PREFIX], len(PREFIX) + 1),
        ([5], 1),
    ],
)
def test_what_is_left_to_run_of_a_prompt(row: list[int], rest: int) -> None:
    prefixes = [Prefix(ids, KVStore(0)) for ids in (PREFIX[:4], PREFIX)]
    assert rest_length(row, prefixes) == rest_length(row, prefixes[::-1]) == rest
    whole = [len(row) - len(ids) for ids in (PREFIX[:4], PREFIX) if row[:-1][: len(ids)] == ids]
    assert rest_length(row, prefixes, whole=True) == min(whole, default=len(row))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 900)), max_size=40))
def test_passes_take_every_prompt_once_with_little_padding(rests: list[tuple[int, int]]) -> None:
    chunks = list(passes(rests, CPU))
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(rests)))
    for chunk in chunks:
        assert chunk
        used = sum(rows * length for rows, length in (rests[index] for index in chunk))
        total = sum(rests[index][0] for index in chunk) * max(rests[index][1] for index in chunk)
        if len(chunk) > 1:
            assert total <= TOKENS_PER_PASS["cpu"]
            assert total - used <= PADDING_SHARE * total


def test_prompts_alike_run_in_one_pass() -> None:
    assert list(passes([(2, 20)] * 10, CPU)) == [list(range(10))]
