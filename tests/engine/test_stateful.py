"""Recipes that carry a state: through forks of a sweep, batches of any size, lack of memory and interrupted jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import TinyModel
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import STOP_IDS, answers, engine_for, failing, logits_after, request
from torch import Tensor

from lalign.engine.interface import Request
from lalign.method.aligned import STATISTICS, Aligned
from lalign.method.linear_alignment import Alignment
from lalign.method.opad import Opad
from lalign.method.recipe import Recipe


@dataclass(frozen=True)
class Echo(Recipe):
    """A toy: b + r(p - b) + half of what all steps before have moved; it counts its steps in a column of its own."""

    recipe: str = "echo"
    ratio: float = 1.5

    columns: ClassVar[tuple[str, ...]] = (*STATISTICS, "steps_before")

    def update(self, base: Tensor, principled: Tensor, strength: Tensor, state: Tensor | None) -> Aligned:
        before = torch.zeros(len(base), base.shape[-1] + 1) if state is None else state
        shift = principled - base
        step = strength.unsqueeze(-1) * shift + before[:, 1:] / 2
        return Aligned(base + step, shift, step, strength, state=torch.cat([before[:, :1] + 1, step], -1))

    def statistics(self, base: Tensor, principled: Tensor, aligned: Aligned, tokens: Tensor) -> Tensor:
        assert aligned.state is not None
        return torch.cat([super().statistics(base, principled, aligned, tokens), aligned.state[:, :1] - 1], -1)


def echo(base: Tensor, principled: Tensor, ratio: float, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """The logits of one step and what is carried on, in float64."""
    step = ratio * (principled - base) + (0 if before is None else before / 2)
    return base + step, step


def opad(base: Tensor, principled: Tensor, ratio: float, before: Tensor | None) -> tuple[Tensor, Tensor]:
    shift = principled.log_softmax(-1) - base.log_softmax(-1)
    return principled if before is None else principled + ratio * (shift + before), shift


KINDS: dict[type[Recipe], Callable[..., tuple[Tensor, Tensor]]] = {Echo: echo, Opad: opad}


def plain(model: Any, asked: Request, recipe: Recipe) -> list[int]:
    """Greedy tokens of a plain loop: both twins run whole at every step, one response at a time."""
    tokens: list[int] = []
    before = None
    while not tokens or (tokens[-1] not in STOP_IDS and len(tokens) < asked.points[0].sampling.max_new_tokens):
        base, principled = (logits_after(model, ids + tokens) for ids in (asked.base, asked.principled[0]))
        logits, before = KINDS[type(recipe)](base, principled, recipe.ratio, before)
        tokens.append(int(logits.argmax()))
    return tokens


def job() -> list[Request]:
    """Points that part at different steps, beside recipes that carry nothing."""
    recipes: list[list[Recipe]] = [
        [Echo(), Echo(ratio=0.3), Opad(), Alignment()],
        [Opad(ratio=0.5), Opad(ratio=2)],
        [Echo(ratio=2.5)],
        [Alignment(ratio=0), Opad(ratio=3), Echo()],
        [Opad(), Opad()],
    ]
    return [request(number, 3 + 5 * number, *points, new=6 + number) for number, points in enumerate(recipes)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def llama(tiny_model: TinyModel) -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def wanted(llama: Any) -> dict[tuple[int, int], list[int]]:
    return {
        (asked.key, point.place): plain(llama, asked, point.alignment)
        for asked in job()
        for point in asked.points
        if type(point.alignment) in KINDS
    }


def stateful(found: dict[tuple[int, int], Any], wanted: dict[tuple[int, int], list[int]]) -> dict[tuple[int, int], Any]:
    return {name: answer.tokens for name, answer in found.items() if name in wanted}


@pytest.mark.parametrize("statistics", ["none", "steps"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_tokens_are_those_of_the_plain_loop(
    llama: Any, wanted: dict[tuple[int, int], list[int]], batch_size: int, statistics: Any
) -> None:
    assert stateful(answers(engine_for(llama, job(), batch_size, statistics), job()), wanted) == wanted


def test_the_state_matters_and_the_points_part(llama: Any, wanted: dict[tuple[int, int], list[int]]) -> None:
    assert len({tuple(wanted[0, place]) for place in (0, 1, 2)}) == 3
    first = job()[0]
    without = answers(engine_for(llama, [first], 4), [replace(first, points=first.points[3:])])
    assert without[0, 3].tokens != wanted[0, 2]


def test_a_column_of_its_own_counts_the_steps_of_its_own_response(llama: Any) -> None:
    found = answers(engine_for(llama, job(), 3, "steps"), job())
    for asked in job():
        for point in asked.points:
            answer = found[asked.key, point.place]
            table = np.asarray(answer.steps)
            assert table.shape == (len(answer.tokens), len(point.alignment.columns))
            if isinstance(point.alignment, Echo):
                assert table[:, -1].tolist() == [*range(len(answer.tokens))]


@settings(max_examples=15, deadline=None)
@given(passes=st.sets(st.integers(0, 30), min_size=1, max_size=2), batch_size=st.sampled_from([6, 8]))
def test_what_is_put_back_begins_with_no_state(
    llama: Any, wanted: dict[tuple[int, int], list[int]], passes: set[int], batch_size: int
) -> None:
    engine = engine_for(llama, job(), batch_size)
    with failing(llama, lambda number, _: number in passes):
        found = answers(engine, job())
    lost = {name for name, answer in found.items() if answer.reason == "out_of_memory"}
    assert {name: tokens for name, tokens in stateful(found, wanted).items() if name not in lost} == {
        name: tokens for name, tokens in wanted.items() if name not in lost
    }


def test_several_unwanted_texts_count_by_their_largest(llama: Any) -> None:
    """What a recipe's `merge` gives need not be normalised, and reaches its `update` as it is."""
    from lalign.method.self_debias import SelfDebias

    asked = replace(request(0, 6, SelfDebias(), new=8, principles=2), weights=(1.0, 1.0))  # type: ignore[arg-type]
    tokens: list[int] = []
    while not tokens or (tokens[-1] not in STOP_IDS and len(tokens) < 8):
        base, *texts = (logits_after(llama, ids + tokens).softmax(-1) for ids in (asked.base, *asked.principled))
        excess = (torch.stack(texts).amax(0) - base).clamp_min(0)
        tokens.append(int((base * (-50 * excess).exp().clamp_min(0.01)).argmax()))
    assert answers(engine_for(llama, [asked], 2), [asked])[0, 0].tokens == tokens


def test_a_job_that_was_cut_short_goes_on_as_if_it_had_not(lalign: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "{number}?"}}\n' for number in range(1, 6)))
    arguments = ("sweep", *lalign.tiny, "in.jsonl", "--recipe", "opad", "--ratios", "0.5,2", "--stats", "none")
    assert lalign(*arguments, "-o", "whole.jsonl").status == 0
    assert lalign(*arguments, "-o", "cut.jsonl").status == 0
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:50])
    assert lalign(*arguments, "-o", "cut.jsonl", "--resume").status == 0
    assert (tmp_path / "cut.jsonl").read_bytes() == whole
