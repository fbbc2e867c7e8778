"""What `lalign bench` runs, and what it makes of the measurements."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lalign.aligner import Aligner
from lalign.bench import bench, serving
from lalign.bench.bench import BenchOptions, _schedule, measure
from lalign.bench.contenders import (
    ALIGNED,
    BASE,
    GUIDED,
    GUIDED_SINGLY,
    STOCK,
    WITHOUT_STATISTICS,
    WITHOUT_SUPPORT,
    Contender,
    chosen,
    contenders,
)
from lalign.bench.measuring import Machine, Measurement, Spread
from lalign.bench.report import report
from lalign.bench.running import run_lalign
from lalign.bench.serving import prompts
from lalign.bench.side import Facts, Side, Task, Work
from lalign.bench.stock_transformers import run_stock
from lalign.bench.tables import markdown, tables
from lalign.engine.interface import Weights
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import LalignError, OptionError
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel, ModelOptions, load
from lalign.options import Sampling
from lalign.records.parsing import Record, parse_fields
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings

ALL = contenders(Alignment(ratio=2), "torch", ("torch", "llamacpp", "vllm"), singly=True)
MACHINE = Machine(read_bandwidth=1e6, product_rate=1e6)
FACTS = {row.name: Facts("tiny", Weights("cpu", "torch.float32", 1000, 4000), 150) for row in ALL}


def measurement(seconds: float, streams: tuple[tuple[int, ...], ...] = ((1, 2), (3,))) -> Measurement:
    return Measurement(seconds, 10, 0.1, 0.5, 1.0, 4, 8, 100, 200, 0, streams)


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> LoadedModel:
    return load(ModelOptions(name=str(tiny_folder), compile=True))


@pytest.fixture(scope="module")
def work() -> Work:
    fields = [{"prompt": f"Name {number} of them." + " Please." * number} for number in range(3)]
    records = [parse_fields(given, line) for line, given in enumerate(fields, 1)]
    settings = Settings(make_principles(["Be kind."]), sampling=Sampling(max_new_tokens=6))
    return Work(tuple(record for record in records if isinstance(record, Record)), settings, None)


def test_rounds_are_interleaved_and_single_prompts_go_with_the_first_batch_size() -> None:
    rows = contenders(Alignment(ratio=2), "torch", ("torch",), singly=True)
    order = [(size, repeat, row.name) for size, repeat, row in _schedule(rows, BenchOptions((4, 16), 2, True, True))]
    names = [row.name for row in rows]
    assert order[: len(names)] == [(4, 0, name) for name in names]
    assert [entry for entry in order if entry[2] == GUIDED_SINGLY] == [(4, 0, GUIDED_SINGLY), (4, 1, GUIDED_SINGLY)]


def test_at_batch_size_1_nothing_is_run_singly_twice() -> None:
    order = [(size, row.name) for size, _, row in _schedule(ALL, BenchOptions((1, 4), 1, True, True))]
    assert GUIDED_SINGLY not in {name for _, name in order}
    assert [entry for entry in order if entry[1] == "llamacpp-stock"] == [(1, "llamacpp-stock")]


def test_every_engine_runs_aligned_and_by_itself() -> None:
    names = [row.name for row in contenders(Alignment(ratio=2), "vllm", ("torch", "llamacpp", "vllm"))]
    assert names == [
        *(BASE, "principle", ALIGNED, WITHOUT_STATISTICS, WITHOUT_SUPPORT, STOCK, GUIDED),
        *("torch-base", "torch-aligned", "llamacpp-base", "llamacpp-aligned", "llamacpp-stock", "vllm-stock"),
    ]


def test_contenders_are_chosen_by_name() -> None:
    assert [row.name for row in chosen(ALL, ["stock", "aligned"])] == [ALIGNED, STOCK]
    with pytest.raises(OptionError, match="there is no 'fastest' here, but base, principle"):
        chosen(ALL, ["fastest"])


@pytest.mark.parametrize("pythons", [{"vllm": "/nowhere/python"}, {"vllm": ""}, {"sglang": sys.executable}])
def test_a_python_that_is_not_there_or_for_nothing_is_refused(pythons: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="peer_python"):
        BenchOptions((1,), 1, True, pythons=pythons)


def test_medians_come_with_their_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_ratios_are_taken_within_rounds() -> None:
    runs = {
        (4, ALIGNED): [measurement(1.0), measurement(10.0)],
        (4, STOCK): [measurement(2.0), measurement(20.0)],
        (4, BASE): [measurement(1.0), measurement(1.0)],
    }
    ratios = report(ALL, runs, 2, FACTS, MACHINE)["ratios"]["4"]
    assert ratios["aligned / stock, tokens/s"] == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_a_speed_is_not_quoted_where_the_tokens_differ() -> None:
    runs = {
        (4, WITHOUT_SUPPORT): [measurement(1.0)],
        (4, GUIDED): [measurement(2.0, ((1, 2), (4,)))],
    }
    found = report(ALL, runs, 1, FACTS, MACHINE)
    assert not found["ratios"]["4"]
    assert found["runs"][1]["same_responses"] == 1


def test_the_floor_is_the_longer_of_reading_and_multiplying() -> None:
    machine = Machine(read_bandwidth=1e6, product_rate=1e6)
    assert machine.floor_seconds(1000, 4000, rows=1) == pytest.approx(4e-3)
    assert machine.floor_seconds(1000, 4000, rows=32) == pytest.approx(64e-3)


@pytest.mark.parametrize(
    ("weights", "has_floor"),
    [
        (Weights("cpu", "torch.float32", 500, 2000), True),
        (Weights("cpu", "torch.bfloat16", 500, 1000), False),
        (Weights("cuda:0", "torch.float32", 500, 2000), False),
        (Weights("cpu", "torch.float32 awq", 500), False),
        (Weights(), False),
    ],
)
def test_a_floor_is_told_of_weights_like_those_that_the_machine_was_measured_for(
    weights: Weights, has_floor: bool
) -> None:
    facts = FACTS | {STOCK: Facts("tiny", weights)}
    runs = {(4, name): [measurement(1.0)] for name in (BASE, STOCK)}
    base, stock = report(ALL, runs, 1, facts, MACHINE)["runs"]
    assert base["floor_seconds"] == pytest.approx(4e-3)
    assert base["step_over_floor"] == pytest.approx(0.25 / 4e-3)
    assert ("floor_seconds" in stock) == has_floor
    unmeasured = report(ALL, runs, 1, facts, None)
    assert unmeasured["machine"] is None
    assert not any("floor_seconds" in row for row in unmeasured["runs"])


def test_a_machine_is_measured_on_the_device_that_is_known_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, torch.dtype]] = []

    def measured(device: torch.device, dtype: torch.dtype) -> Machine:
        asked.append((str(device), dtype))
        if device.type == "cuda":
            raise torch.OutOfMemoryError("no room")
        return MACHINE

    monkeypatch.setattr(serving, "measure_machine", measured)
    known = [Weights(), Weights("cuda:0", "torch.bfloat16"), Weights("cpu", "Q4_1")]
    assert [serving._machine(weights) for weights in known] == [None, None, MACHINE]
    assert asked == [("cuda:0", torch.bfloat16), ("cpu", torch.float32)]


def test_what_an_engine_does_not_tell_is_null() -> None:
    found = report(ALL, {(4, BASE): [measurement(1.0)]}, 1, {BASE: Facts("tiny", Weights())}, None)
    assert found["model"] == {"model": "tiny", "device": None, "dtype": None, "parameters": None}
    assert markdown(found)
    assert tables(found)[0].title == "tiny"


@pytest.mark.parametrize("width", [80, 100])
def test_no_figure_and_no_name_of_a_table_is_broken(width: int) -> None:
    """The longest there may be: every contender, thousands of tokens a second, minutes, gigabytes."""
    one = Measurement(1.0, 1234, 123.456, 1234.5, 1.0, 1, 8, 100, 123_456 << 20, 0, ((1,),) * 128)
    other = replace(one, seconds=0.9)
    found = report(ALL, {(128, row.name): [one, other] for row in ALL}, 2, FACTS, MACHINE)
    console = Console(width=width)
    with console.capture() as captured:
        for table in tables(found):
            console.print(table)
    shown = captured.get()
    assert "…" not in shown
    for row in ALL:
        (line,) = [line for line in shown.splitlines() if f" {row.name} " in line and "1303" in line]
        assert "1303 [1234-1371]" in line
        assert " 123 " in line
        assert " 123456 " in line
        assert row.same_as is None or "128/128" in line
    assert all(len(line) <= width for line in shown.splitlines())


def test_tables_as_markdown_have_every_row() -> None:
    runs = {(4, row.name): [measurement(1.0)] for row in ALL}
    lines = markdown(report(ALL, runs, 1, FACTS, MACHINE)).splitlines()
    for row in ALL:
        assert any(line.startswith(f"| 4 | {row.name} | 10.0 [10.0-10.0] | 0.10 | ") for line in lines)
        assert any(line.startswith(f"- `{row.name}`: ") for line in lines)


def test_where_no_ratio_can_be_told_there_is_no_table_of_them() -> None:
    alone = tuple(row for row in ALL if row.name == BASE)
    found = report(alone, {(4, BASE): [measurement(1.0)]}, 1, FACTS, MACHINE)
    assert len(tables(found)) == 2
    assert "ratio, within each round" not in markdown(found)


def test_lalign_and_stock_give_the_same_tokens(tiny: LoadedModel, work: Work) -> None:
    backend = TorchBackend(tiny)
    aligner, asked = Aligner(backend), prompts(backend, work)
    mine = run_lalign(aligner, work, Contender(BASE, "", alignment=Alignment(ratio=0)), 2)
    stock = run_stock(tiny.model, asked, 2, None)
    assert mine.streams == stock.streams
    assert mine.tokens == stock.tokens == sum(map(len, mine.streams))
    guided = run_stock(tiny.model, asked, 2, 2.0)
    aligned = Contender(ALIGNED, "", alignment=Alignment(ratio=2, support="none"))
    assert run_lalign(aligner, work, aligned, 2).streams == guided.streams
    assert run_stock(tiny.model, asked[2], 2, None).streams == stock.streams[:2]


def test_every_contender_has_a_process_of_its_own(tiny_folder: Path, work: Work) -> None:
    heard: list[str] = []
    only = (BASE, ALIGNED, STOCK)
    options = BenchOptions((2, 1), 1, True, only=only)
    found = measure(ModelOptions(name=str(tiny_folder)), work, options, heard.append)
    order = [(row["batch_size"], row["contender"]) for row in found["runs"]]
    assert order == [(size, name) for size in (1, 2) for name in only]
    assert heard[-1] == "the machine"
    assert heard[:6] == [f"{what}, {name}" for what in ("start", "warm-up") for name in only]
    assert found["machine"]["read_bandwidth"] > 0
    assert found["model"]["device"] == "cpu"
    assert found["model"]["dtype"] == "torch.float32"
    assert found["model"]["parameters"] == load(ModelOptions(name=str(tiny_folder))).parameters > 0
    assert found["left_out"] == {}
    for row in found["runs"]:
        assert row["load_memory"] > 1 << 20
        assert row["peak_memory"]["median"] > 1 << 20
    # The machine is measured in the first, by blocks of 270 MB, which must not pass for what answering takes.
    base, aligned = (next(row for row in found["runs"] if row["contender"] == name) for name in (BASE, ALIGNED))
    for figure in (base["load_memory"] - aligned["load_memory"], *_peaks(base, aligned)):
        assert abs(figure) < 100 << 20
    stock = [row for row in found["runs"] if row["contender"] == STOCK]
    assert [(row["same_responses"], row["responses"]) for row in stock] == [(3, 3), (3, 3)]


def _peaks(base: Mapping[str, Any], aligned: Mapping[str, Any]) -> list[int]:
    return [base["peak_memory"][key] - aligned["peak_memory"][key] for key in ("low", "high")]


class Mortal:
    """Stands for a process that ends at its run of that number, the short one counted; 0 for none."""

    def __init__(self, last: int = 0) -> None:
        self.runs, self.last = 0, last

    def run(self, batch_size: int, limit: int | None = None) -> Measurement:
        self.runs += 1
        if self.runs == self.last:
            raise LalignError("its process ended before its time")
        return measurement(float(batch_size))


@pytest.mark.parametrize(("last", "sizes"), [(1, []), (2, []), (3, []), (4, [1]), (5, [1]), (0, [1, 2])])
def test_one_whose_process_ends_takes_nothing_with_it(last: int, sizes: list[int]) -> None:
    rows = tuple(row for row in ALL if row.name in (BASE, ALIGNED, STOCK))
    sides: Any = {BASE: Mortal(), ALIGNED: Mortal(last), STOCK: Mortal()}
    left_out: dict[str, str] = {}
    runs = bench._run(rows, sides, BenchOptions((1, 2), 2, True), left_out, lambda _: None)
    assert {(size, name): len(some) for (size, name), some in runs.items()} == {
        **{(size, name): 2 for size in (1, 2) for name in (BASE, STOCK)},
        **{(size, ALIGNED): 2 for size in sizes},
    }
    assert left_out == ({ALIGNED: "its process ended before its time"} if last else {})
    report(rows, runs, 2, FACTS, MACHINE)


def test_without_the_first_there_is_nothing_to_compare_with() -> None:
    rows = tuple(row for row in ALL if row.name in (BASE, STOCK))
    sides: Any = {BASE: Mortal(3), STOCK: Mortal()}
    with pytest.raises(LalignError, match="before its time"):
        bench._run(rows, sides, BenchOptions((1, 2), 2, True), {}, lambda _: None)


def test_a_process_that_does_not_start_says_why_in_a_line(tmp_path: Path, work: Work) -> None:
    task = Task(Contender(BASE, ""), ModelOptions(name=str(tmp_path)), {}, work)
    with pytest.raises(LalignError) as caught:
        Side(sys.executable, task)
    assert str(caught.value).startswith(str(tmp_path))
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named lalign' >&2\n")
    python.chmod(0o755)
    problem = r"^base: its process ended before its time \(python: No module named lalign\)$"
    with pytest.raises(LalignError, match=problem):
        Side(str(python), task)


def test_phases_add_up_and_memory_is_that_of_the_process(tiny: LoadedModel, work: Work) -> None:
    contender = Contender(WITHOUT_STATISTICS, "", alignment=Alignment(ratio=2))
    found = run_lalign(Aligner(TorchBackend(tiny)), work, contender, 2)
    assert 0 < found.first_token_seconds <= found.seconds
    assert found.prefill_seconds + found.decode_seconds <= found.seconds
    assert found.peak_memory >= found.mean_memory > 1 << 20
    assert replace(found, steps=0).step_seconds == 0
