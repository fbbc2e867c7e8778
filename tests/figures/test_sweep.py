"""A sweep's records are those of separate runs, and what it gathers is what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import page_data

from lalign.aligner import Aligner
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import OptionError
from lalign.figures.sweep import Sweep
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel, ModelOptions, load
from lalign.options import Execution, Sampling
from lalign.records.parsing import Record, parse_fields
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.results import Failure, Result

PRINCIPLES = make_principles(["Answer in one word, and be kind."])
POINTS = tuple(Alignment(ratio=ratio, p=p) for p in (2, 1.5) for ratio in (0, 1, 2, 3))


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> LoadedModel:
    return load(ModelOptions(name=str(tiny_folder)))


def records(count: int) -> list[Record | Failure]:
    return [
        parse_fields({"prompt": f"Name {number} of them." + " Now." * number}, number) for number in range(1, count)
    ]


def run(loaded: LoadedModel, alignments: tuple[Alignment, ...], sampling: Sampling) -> list[Result]:
    settings = Settings(PRINCIPLES, alignments, sampling, sweep=len(alignments) > 1)
    ticks = Aligner(TorchBackend(loaded)).ticks(records(7), settings, system=None, execution=Execution(batch_size=3))
    return [outcome for tick in ticks for outcome in tick if isinstance(outcome, Result)]


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, temperature=1, seed=7)])
def test_a_sweep_says_what_separate_runs_say(tiny: LoadedModel, sampling: Sampling) -> None:
    swept = run(tiny, POINTS, sampling)
    apart = [run(tiny, (point,), sampling) for point in POINTS]
    assert [(result.line, result.alignment) for result in swept] == [
        (line, point) for line in range(1, 7) for point in POINTS
    ]
    assert [result.token_ids for result in swept] == [
        result.token_ids for line in zip(*apart, strict=True) for result in line
    ]


@pytest.mark.real
def test_the_real_model_says_the_same_in_a_sweep(smol: LoadedModel) -> None:
    points = POINTS[:4]
    sampling = Sampling(max_new_tokens=16)
    swept = run(smol, points, sampling)
    apart = [run(smol, (point,), sampling) for point in points]
    assert [result.token_ids for result in swept] == [
        result.token_ids for line in zip(*apart, strict=True) for result in line
    ]


def test_a_record_of_its_own_ratio_is_swept_all_the_same(tiny: LoadedModel) -> None:
    settings = Settings(PRINCIPLES, POINTS[:2], Sampling(max_new_tokens=2), sweep=True)
    prompts = [{"prompt": "Name one.", "ratio": 4, "max_new_tokens": 3}]
    ticks = Aligner(TorchBackend(tiny)).ticks(prompts, settings, system=None, execution=Execution())
    outcomes = [outcome for tick in ticks for outcome in tick if isinstance(outcome, Result)]
    assert [outcome.alignment.ratio for outcome in outcomes] == [0, 1]
    assert {len(outcome.token_ids) for outcome in outcomes} <= {1, 2, 3}


def test_the_page_shows_the_prompts_that_were_heard(tiny: LoadedModel, tmp_path: Path) -> None:
    page = tmp_path / "sweep.html"
    sweep = Sweep(POINTS, page)
    for record in records(7):
        assert isinstance(record, Record)
        sweep.on_records([record])
    sweep.on_outcomes(run(tiny, POINTS, Sampling(max_new_tokens=4)))
    assert sweep.table().row_count == len(POINTS)
    sweep.draw("a sweep")
    assert "Name 3 of them. Now. Now. Now." in [sheet["prompt"] for sheet in page_data(page)["prompts"]]


def test_a_plot_of_an_unknown_kind_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match=r"plot: must name a \.pdf, \.png, \.svg or \.html file"):
        Sweep(POINTS, Path("sweep.eps"))
