"""What `lalign bench` runs, and what it makes of the measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lalign.bench.bench import BenchOptions, Work, _schedule, run_lalign
from lalign.bench.contenders import (
    ALIGNED,
    BASE,
    GUIDED,
    GUIDED_SINGLY,
    STOCK,
    WITHOUT_STATISTICS,
    Contender,
    contenders,
)
from lalign.bench.measuring import Machine, Measurement, Spread
from lalign.bench.peers import run_stock
from lalign.bench.report import report, tables
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel, ModelOptions, load
from lalign.options import Sampling
from lalign.records.parsing import Record, parse_fields
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings

FACTS = {
    "model": "tiny",
    "device": "cpu",
    "dtype": "torch.float32",
    "parameters": 1000,
    "itemsize": 4,
    "machine": Machine(read_bandwidth=1e6, product_rate=1e6),
}


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
    rows = contenders(Alignment(ratio=2), peers=True, singly=True)
    order = [(size, repeat, row.name) for size, repeat, row in _schedule(rows, BenchOptions((4, 16), 2, True, True))]
    names = [row.name for row in rows]
    assert order[: len(names)] == [(4, 0, name) for name in names]
    assert [entry for entry in order if entry[2] == GUIDED_SINGLY] == [(4, 0, GUIDED_SINGLY), (4, 1, GUIDED_SINGLY)]


def test_at_batch_size_1_nothing_is_run_singly_twice() -> None:
    rows = contenders(Alignment(ratio=2), peers=True, singly=True)
    sizes = BenchOptions((1, 4), 1, True, True)
    assert GUIDED_SINGLY not in [row.name for _, _, row in _schedule(rows, sizes)]


def test_medians_come_with_their_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_ratios_are_taken_within_rounds() -> None:
    rows = contenders(Alignment(ratio=2), peers=True, singly=False)
    runs = {
        (4, ALIGNED): [measurement(1.0), measurement(10.0)],
        (4, STOCK): [measurement(2.0), measurement(20.0)],
        (4, BASE): [measurement(1.0), measurement(1.0)],
    }
    ratios = report(rows, runs, 2, FACTS)["ratios"]["4"]
    assert ratios["aligned / stock generate unaligned, tokens/s"] == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_a_speed_is_not_quoted_where_the_tokens_differ() -> None:
    rows = contenders(Alignment(ratio=2), peers=True, singly=False)
    runs = {
        (4, "aligned, no support"): [measurement(1.0)],
        (4, GUIDED): [measurement(2.0, ((1, 2), (4,)))],
    }
    found = report(rows, runs, 1, FACTS)
    assert not found["ratios"]["4"]
    assert found["runs"][1]["same_responses"] == 1


def test_the_floor_is_the_longer_of_reading_and_multiplying() -> None:
    machine = Machine(read_bandwidth=1e6, product_rate=1e6)
    assert machine.floor_seconds(1000, 4, rows=1) == pytest.approx(4e-3)
    assert machine.floor_seconds(1000, 4, rows=32) == pytest.approx(64e-3)


def test_tables_show_every_run_and_ratio() -> None:
    rows = contenders(Alignment(ratio=2), peers=False, singly=False)
    runs = {(4, row.name): [measurement(1.0)] for row in rows}
    shown = tables(report(rows, runs, 1, FACTS))
    assert [table.row_count for table in shown] == [len(rows), 2]


def test_lalign_and_stock_give_the_same_tokens(tiny: LoadedModel, work: Work) -> None:
    from lalign.bench.bench import _requests

    mine = run_lalign(tiny, work, work.records, Contender(BASE, alignment=Alignment(ratio=0)), 2)
    stock = run_stock(tiny.model, _requests(tiny, work, work.records), 2, None, 6)
    assert mine.streams == stock.streams
    assert mine.tokens == stock.tokens == sum(map(len, mine.streams))
    guided = run_stock(tiny.model, _requests(tiny, work, work.records), 2, 2.0, 6)
    aligned = Contender("aligned", alignment=Alignment(ratio=2, support="none"))
    assert run_lalign(tiny, work, work.records, aligned, 2).streams == guided.streams


def test_phases_add_up_and_memory_is_that_of_the_process(tiny: LoadedModel, work: Work) -> None:
    found = run_lalign(tiny, work, work.records, Contender(WITHOUT_STATISTICS, alignment=Alignment(ratio=2)), 2)
    assert 0 < found.first_token_seconds <= found.seconds
    assert found.prefill_seconds + found.decode_seconds <= found.seconds
    assert found.peak_memory >= found.mean_memory > 1 << 20
    assert replace(found, steps=0).step_seconds == 0
