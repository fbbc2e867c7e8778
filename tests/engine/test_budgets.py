"""Budgets in nats: met at every step, kept over a response, whatever batch it shares and whatever is in the way."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from conftest import Lalign, TinyModel
from test_engine import STOP_IDS, answers, engine_for, failing, logits_after, request

from lalign.engine.interface import Request
from lalign.method.aligned import STATISTICS
from lalign.method.linear_alignment import Alignment
from lalign.method.opad import Opad
from lalign.method.recipe import Recipe

KL = STATISTICS.index("kl_aligned_base")
EACH, TOTAL = 0.3, 2.0
RECIPES: list[Recipe] = [
    Alignment(scale="kl", kl=EACH),
    Alignment(scale="kl", kl=EACH, p=1.5),
    Alignment(ratio=3, kl_total=TOTAL),
    Opad(kl_total=TOTAL),
    Opad(scale="kl", kl=EACH),
    Alignment(scale="kl", kl=1.0, kl_total=TOTAL),
]


def job() -> list[Request]:
    """All budgets as points of one request, which part; and alone, at several lengths."""
    together: list[Any] = [request(0, 9, *RECIPES, new=8)]  # type: ignore[arg-type]
    return together + [request(number, 2 + 3 * number, recipe, new=8) for number, recipe in enumerate(RECIPES, 1)]  # type: ignore[arg-type]


def plain(model: Any, asked: Request, recipe: Recipe) -> list[int]:
    """Greedy tokens of a plain loop: both twins run whole at every step, one response at a time."""
    most = asked.points[0].sampling.max_new_tokens
    state = recipe.opening([most], torch.device("cpu"))
    tokens: list[int] = []
    while not tokens or (tokens[-1] not in STOP_IDS and len(tokens) < most):
        base, principled = (
            logits_after(model, ids + tokens).float()[None] for ids in (asked.base, asked.principled[0])
        )
        aligned = recipe.step(base, principled, torch.tensor([float(recipe.ratio)]), state)
        state = aligned.state
        tokens.append(int(aligned.final().argmax()))
    return tokens


@pytest.fixture(scope="module")
def llama(tiny_model: TinyModel) -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def wanted(llama: Any) -> dict[tuple[int, int], list[int]]:
    return {(one.key, point.place): plain(llama, one, point.alignment) for one in job() for point in one.points}


def tokens(found: dict[tuple[int, int], Any]) -> dict[tuple[int, int], list[int]]:
    return {name: answer.tokens for name, answer in found.items()}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_tokens_are_those_of_the_plain_loop(
    llama: Any, wanted: dict[tuple[int, int], list[int]], batch_size: int
) -> None:
    assert tokens(answers(engine_for(llama, job(), batch_size), job())) == wanted


@pytest.mark.parametrize("batch_size", [1, 8])
def test_each_step_has_its_nats_and_no_response_more_than_its_own(llama: Any, batch_size: int) -> None:
    found = answers(engine_for(llama, job(), batch_size, "steps"), job())
    for asked in job():
        for point in asked.points:
            recipe, spent = point.alignment, np.asarray(found[asked.key, point.place].steps)[:, KL]
            if recipe.kl is not None and recipe.kl_total is None:
                assert abs(spent - recipe.kl).max() < 1e-3, recipe
            if recipe.kl_total is not None:
                assert spent.sum() <= recipe.kl_total + 1e-5, recipe


@pytest.mark.parametrize("seed", range(4))
def test_what_is_put_back_begins_with_its_whole_budget(
    llama: Any, wanted: dict[tuple[int, int], list[int]], seed: int
) -> None:
    passes = set(random.Random(seed).sample(range(12), 2))
    engine = engine_for(llama, job(), 8)
    with failing(llama, lambda number, _: number in passes):
        found = answers(engine, job())
    assert engine.counters.batch_halvings > 0
    lost = {name for name, answer in found.items() if answer.reason == "out_of_memory"}
    assert {name: found[name].tokens for name in found.keys() - lost} == {
        name: wanted[name] for name in wanted.keys() - lost
    }


def records(data: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in data.splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(f'{{"prompt": "{number}?"}}\n' for number in range(1, 6)))
    return file


@pytest.mark.usefixtures("prompts")
class TestCommandLine:
    def test_every_step_has_the_nats_asked_for(self, lalign: Lalign) -> None:
        finished = lalign.generate("in.jsonl", "--kl", 0.3)
        assert finished.status == 0, finished.err
        for record in records(finished.out):
            assert record["steps"]["kl_aligned_base"] == pytest.approx([0.3] * len(record["steps"]["tokens"]), abs=1e-3)

    def test_a_sweep_goes_along_nats(self, lalign: Lalign) -> None:
        finished = lalign("sweep", *lalign.tiny, "in.jsonl", "--kls", "0.1,0.3")
        assert finished.status == 0, finished.err
        found = [
            (one["alignment"]["kl"], one["alignment"]["summary"]["kl_aligned_base_mean"])
            for one in records(finished.out)
        ]
        assert [asked for asked, _ in found] == [0.1, 0.3] * 5
        assert [had for _, had in found] == pytest.approx([asked for asked, _ in found], abs=1e-3)

    @pytest.mark.parametrize("recipe", ["lalign", "opad"])
    def test_a_response_spends_no_more_than_its_budget(self, lalign: Lalign, recipe: str) -> None:
        finished = lalign.generate("in.jsonl", "--recipe", recipe, "--ratio", 4, "--kl-total", 0.8)
        assert finished.status == 0, finished.err
        spent = [record["alignment"]["summary"]["kl_aligned_base_sum"] for record in records(finished.out)]
        assert all(0 < nats <= 0.8 + 1e-5 for nats in spent)

    @pytest.mark.parametrize("budget", [("--kl", 0.3), ("--kl-total", 2), ("--recipe", "opad", "--kl-total", 2)])
    def test_a_job_that_was_cut_short_goes_on_as_if_it_had_not(
        self, lalign: Lalign, tmp_path: Path, budget: tuple[object, ...]
    ) -> None:
        for name in ("whole.jsonl", "cut.jsonl"):
            assert lalign.generate("in.jsonl", *budget, "--stats", "none", "-o", name).status == 0
        whole = (tmp_path / "whole.jsonl").read_bytes()
        lines = whole.splitlines(keepends=True)
        (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:30])
        assert lalign.generate("in.jsonl", *budget, "--stats", "none", "-o", "cut.jsonl", "--resume").status == 0
        assert (tmp_path / "cut.jsonl").read_bytes() == whole
