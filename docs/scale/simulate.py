"""A job of a million records on 1, 8 and 64 workers, simulated over recorded times (docs/scale.md).

python docs/scale/simulate.py              prints the tables and draws docs/scale/scale.png
python docs/scale/simulate.py --check      compares with the runs of docs/scale/check.py

Reads trace.json (record.py), serial.json (serial.py) and checks.json (check.py) beside it. A worker is an engine whose
slots are given on as they fall free: an admission costs its prefill, a step what steps with as many pairs took, and a
record what reading and writing it takes in the worker's process. All seconds are of one thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RECORDS = 1_000_000
BATCH_SIZE = 16
WORKERS = (1, 2, 4, 8, 16, 32, 64)
# Pairs a block of Ray has rows for: lalign.ray.job.BLOCK.
BLOCK = 8
# Reading, tokenising, ordering and writing a record, as tests/bench/benchmark_million.py has measured it.
HOST_SECONDS = 0.0003


@dataclass(frozen=True)
class Costs:
    """Seconds: of a prompt's prefill, of a step with a number of pairs, of a record beside the engine, of a start."""

    prefill: float
    step: Callable[[int], float]
    host: float
    start: float


def costs(trace: dict[str, Any]) -> Costs:
    """Medians of the recorded steps by number of pairs, straight lines between; the mean prefill of a prompt."""
    steps: dict[int, list[float]] = {}
    for job in trace["jobs"]:
        for pairs, seconds in job["steps"]:
            steps.setdefault(pairs, []).append(seconds)
    known = sorted(steps)
    table = np.interp(range(max(known) + 1), known, [np.median(steps[pairs]) for pairs in known]).tolist()
    prefills = [pair for job in trace["jobs"] for pair in job["prefills"]]
    prefill = sum(seconds for _, seconds in prefills) / sum(count for count, _ in prefills)
    return Costs(prefill, table.__getitem__, HOST_SECONDS, trace["start_seconds"])


def busy(lengths: Sequence[int], batch_size: int, cost: Costs) -> float:
    """Seconds in which one engine answers records in turn, with responses of these lengths, until it runs empty."""
    seconds = cost.prefill * len(lengths)
    flying: list[int] = []
    now = 0
    for length in lengths:
        # The prefill gives the first token.
        heappush(flying, now + length - 1)
        while flying and (len(flying) == batch_size or flying[0] == now):
            seconds += (flying[0] - now) * cost.step(len(flying))
            now = heappop(flying)
    while flying:
        seconds += (flying[0] - now) * cost.step(len(flying))
        now = heappop(flying)
    return seconds


def in_blocks(seconds: Sequence[float], speeds: Sequence[float]) -> list[float]:
    """When each worker ends, where each block goes to the worker that is free first; `speeds` are relative."""
    free = [(0.0, worker) for worker in range(len(speeds))]
    heapify(free)
    for block in seconds:
        at, worker = heappop(free)
        heappush(free, (at + block / speeds[worker], worker))
    ends = [0.0] * len(speeds)
    for at, worker in free:
        ends[worker] = at
    return ends


def speeds(workers: int, spread: float) -> list[float]:
    """Of machines that are not alike: a standard deviation of `spread`, and a mean of 1."""
    drawn = np.clip(np.random.default_rng(0).normal(1, spread, workers), 0.5, 1.5)
    return [float(speed) for speed in drawn / drawn.mean()]


class Simulation:
    """A job of `RECORDS`, whose lengths are drawn from those recorded."""

    def __init__(self, trace: dict[str, Any], serial: dict[str, float]) -> None:
        self.cost = costs(trace)
        self.serial = serial
        drawn = np.random.default_rng(1).choice(trace["jobs"][0]["lengths"], RECORDS)
        self.lengths = [int(length) for length in drawn]
        rows = BLOCK * BATCH_SIZE
        self.blocks = [busy(self.lengths[at : at + rows], BATCH_SIZE, self.cost) for at in range(0, RECORDS, rows)]
        self.shards = {n: [busy(self.lengths[k::n], BATCH_SIZE, self.cost) for k in range(n)] for n in WORKERS}

    def by_shards(self, workers: int, faster: float = 1, spread: float = 0) -> dict[str, float]:
        """Seconds of a job of shards, of which the engine is `faster` than recorded."""
        host = self.cost.host * RECORDS / workers + self.serial["read"] * RECORDS
        factors = speeds(workers, spread)
        answering = [
            seconds / faster / factor + host for seconds, factor in zip(self.shards[workers], factors, strict=True)
        ]
        merge = self.serial["merge"] * RECORDS if workers > 1 else 0
        return self._parts(answering, self.cost.start, merge)

    def on_ray(self, workers: int, faster: float = 1, spread: float = 0) -> dict[str, float]:
        """The same on Ray; reading is one task, which keeps ahead of the workers or holds them up."""
        blocks = [seconds / faster + self.cost.host * BLOCK * BATCH_SIZE for seconds in self.blocks]
        ends = in_blocks(blocks, speeds(workers, spread))
        held_up = max(0.0, self.serial["ray_read"] * RECORDS - max(ends))
        before = self.serial["ray_survey"] * RECORDS + self.cost.start  # an engine tells the settings first
        return self._parts(ends, self.cost.start + before, self.serial["merge"] * RECORDS + held_up)

    def _parts(self, answering: Sequence[float], start: float, serial: float) -> dict[str, float]:
        mean = sum(answering) / len(answering)
        return {
            "start": start,
            "mean": mean,
            "slowest": max(answering) - mean,
            "serial": serial,
            "total": start + max(answering) + serial,
        }


def table(simulation: Simulation) -> None:
    for faster in (1, 100):
        for spread in (0, 0.1):
            alone = simulation.by_shards(1, faster)["total"]
            print(f"engine x{faster}, speeds of workers spread by {spread:.0%}")
            for name in ("by_shards", "on_ray"):
                for workers in (1, 8, 64):
                    parts = getattr(simulation, name)(workers, faster, spread)
                    told = "".join(f"{part} {seconds:>11,.0f} s  " for part, seconds in parts.items())
                    print(f"  {name:9} {workers:2}: {told}speed-up {alone / parts['total']:.2f}")


def check(trace: dict[str, Any], runs: Sequence[dict[str, Any]], batch_size: int, most: int) -> None:
    """Foretold and measured CPU seconds of each worker."""
    cost = costs(trace)
    lengths = [min(length, most) for length in trace["jobs"][0]["lengths"]]
    for run in runs:
        if run["way"] == "shards":
            shares = [[lengths[k :: run["workers"]]] for k in range(run["workers"])]
        else:  # in which order blocks were given out is not known, so each is of mean length
            mean = round(sum(lengths) / len(lengths))
            shares = [[[mean] * rows for rows in rows_of] for rows_of in run["blocks"]]
        foretold = [
            cost.start + sum(busy(block, batch_size, cost) + cost.host * len(block) for block in share)
            for share in shares
        ]
        for guess, found in zip(foretold, run["cpu_seconds"], strict=True):
            print(
                f"{run['way']:6} {run['workers']} workers: foretold {guess:.1f} s, measured {found:.1f} s of CPU, "
                f"off by {guess / found - 1:+.0%}; wall clock of the job {run['wall_seconds']:.0f} s"
            )


def draw(simulation: Simulation, output: Path) -> None:
    figure = import_module("matplotlib.figure").Figure(figsize=(7.2, 3.2), layout="constrained")
    for panel, faster in zip(figure.subplots(1, 2, sharey=True), (1, 100), strict=True):
        alone = simulation.by_shards(1, faster)["total"]
        for name, colour in (("by_shards", "#0072b2"), ("on_ray", "#d55e00")):
            for spread, style in ((0, "-"), (0.1, "--")):
                found = [
                    alone / getattr(simulation, name)(workers, faster, spread)["total"] / workers for workers in WORKERS
                ]
                label = f"{'shards' if name == 'by_shards' else 'Ray'}{', speeds ±10%' if spread else ''}"
                panel.plot(WORKERS, found, style, color=colour, marker="o", markersize=3, label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks(WORKERS, [str(workers) for workers in WORKERS])
        panel.set_ylim(0, 1.05)
        panel.grid(alpha=0.3)
        panel.set_xlabel("workers")
        panel.set_title("engine as recorded" if faster == 1 else f"engine {faster} times as fast (assumed)", size=9)
    figure.axes[0].set_ylabel("speed-up / workers")
    figure.axes[0].legend(fontsize=8, loc="lower left")
    figure.savefig(output, dpi=150)


def main(checking: bool) -> None:
    trace, serial = (json.loads((HERE / name).read_text()) for name in ("trace.json", "serial.json"))
    if checking:
        checks = json.loads((HERE / "checks.json").read_text())
        check(trace, checks, batch_size=4, most=12)
        return
    simulation = Simulation(trace, serial)
    print(f"prefill {simulation.cost.prefill:.3f} s a prompt; step of 1, 4, 16 pairs", end=" ")
    print(
        *(f"{simulation.cost.step(pairs):.3f}" for pairs in (1, 4, 16)),
        f"s; mean length {np.mean(simulation.lengths):.1f}",
    )
    table(simulation)
    draw(simulation, HERE / "scale.png")


if __name__ == "__main__":
    main("--check" in sys.argv)
