"""What `lalign bench` tells: medians with their spread, and ratios of equal work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lalign.bench.contenders import (
    ALIGNED,
    BASE,
    GUIDED,
    GUIDED_SINGLY,
    STOCK,
    WITHOUT_STATISTICS,
    WITHOUT_SUPPORT,
    Contender,
)
from lalign.bench.measuring import Machine, Measurement, Spread
from lalign.bench.side import Facts

Runs = Mapping[tuple[int, str], Sequence[Measurement]]
# Ways of equal arithmetic part at near ties of float32; a speed is quoted where at least this share stayed equal.
EQUAL_SHARE = 0.9


def report(
    rows: Sequence[Contender], runs: Runs, repeats: int, facts: Mapping[str, Facts], machine: Machine | None
) -> dict[str, Any]:
    """Everything measured, as `lalign bench` prints it: JSON values, times in seconds and memory in bytes.

    facts: of each contender. machine: what that of the first can do at best; None where that was not to be measured.
    """
    by_name = {contender.name: contender for contender in rows}
    first = next(iter(facts.values()))
    return {
        "model": {"model": first.model}
        | {key: getattr(first.weights, key) for key in ("device", "dtype", "parameters")},
        "machine": asdict(machine) if machine else None,
        "repeats": repeats,
        "contenders": {row.name: {"engine": row.engine, "meaning": row.meaning} for row in rows},
        "runs": [_row(key, runs, by_name[key[1]], facts) | _floor(key, runs, facts, machine) for key in runs],
        "ratios": {str(size): _ratios(size, rows, runs) for size in dict.fromkeys(size for size, _ in runs)},
    }


def _row(key: tuple[int, str], runs: Runs, contender: Contender, facts: Mapping[str, Facts]) -> dict[str, Any]:
    batch_size, name = key
    one, own = runs[key][0], facts[name]
    row: dict[str, Any] = {"batch_size": batch_size, "contender": name, "tokens": one.tokens}
    values: dict[str, Callable[[Measurement], float]] = {
        "tokens_per_second": lambda run: run.tokens_per_second,
        "seconds": lambda run: run.seconds,
        "first_token_seconds": lambda run: run.first_token_seconds,
        "prefill_seconds": lambda run: run.prefill_seconds,
        "decode_seconds": lambda run: run.decode_seconds,
        "step_seconds": lambda run: run.step_seconds,
        "mean_memory": lambda run: run.mean_memory,
        "peak_memory": lambda run: run.peak_memory,
        "device_memory": lambda run: run.device_memory,
    }
    row |= {label: asdict(Spread.of([value(run) for run in runs[key]])) for label, value in values.items()}
    row |= {"load_memory": own.load_memory, "rows_per_step": _rows_per_step(one)}
    twin = contender.same_as
    if twin is not None and (batch_size, twin) in runs:
        row |= {"same_as": twin, "same_responses": _same(runs, key, (batch_size, twin)), "responses": len(one.streams)}
    return row


def _rows_per_step(run: Measurement) -> float:
    return run.step_rows / run.steps if run.steps else 0.0


def _floor(key: tuple[int, str], runs: Runs, facts: Mapping[str, Facts], machine: Machine | None) -> dict[str, float]:
    """The least time of a step, and how many times that one took.

    Nothing for weights of another type than the machine was measured in, or on another kind of device.
    """
    first, own = next(iter(facts.values())).weights, facts[key[1]].weights
    kinds = [((weights.device or "").partition(":")[0], weights.dtype) for weights in (first, own)]
    if machine is None or own.parameters is None or own.size is None or kinds[0] != kinds[1]:
        return {}
    floor = machine.floor_seconds(own.parameters, own.size, _rows_per_step(runs[key][0]))
    taken = Spread.of([run.step_seconds for run in runs[key]]).median
    return {"floor_seconds": floor, "step_over_floor": taken / floor}


def _ratios(size: int, rows: Sequence[Contender], runs: Runs) -> dict[str, Any]:
    """Ratios within each round, so that what slowed the machine for a while slowed both; medians and spread."""

    def ratio(top: str, bottom: str, value: Callable[[Measurement], float], equal: bool = False) -> Any:
        keys = (size, top), (size, bottom)
        if not all(key in runs for key in keys):
            return None
        if equal and _same(runs, *keys) < EQUAL_SHARE * len(runs[keys[0]][0].streams):
            return None
        pairs = zip(runs[keys[0]], runs[keys[1]], strict=True)
        return asdict(Spread.of([value(above) / value(below) for above, below in pairs]))

    def speed(run: Measurement) -> float:
        return run.tokens_per_second

    found = {
        f"{WITHOUT_SUPPORT} / {GUIDED}, tokens/s, equal tokens": ratio(WITHOUT_SUPPORT, GUIDED, speed, equal=True),
        f"{WITHOUT_SUPPORT} / {GUIDED_SINGLY}, tokens/s, equal tokens": ratio(
            WITHOUT_SUPPORT, GUIDED_SINGLY, speed, equal=True
        ),
        f"{ALIGNED} / {STOCK}, tokens/s": ratio(ALIGNED, STOCK, speed),
        f"{BASE} / {STOCK}, tokens/s, equal tokens": ratio(BASE, STOCK, speed, equal=True),
        f"{ALIGNED} / {BASE}, time of a step": ratio(ALIGNED, BASE, lambda run: run.step_seconds),
        f"{ALIGNED} / {WITHOUT_STATISTICS}, time": ratio(ALIGNED, WITHOUT_STATISTICS, lambda run: run.seconds),
        f"{ALIGNED} / {STOCK}, peak memory": ratio(ALIGNED, STOCK, lambda run: run.peak_memory),
    }
    others = dict.fromkeys(row.engine for row in rows if row.name.startswith(f"{row.engine}-"))
    for engine in others:
        for top, bottom in ((ALIGNED, f"{engine}-{ALIGNED}"), (f"{engine}-{ALIGNED}", f"{engine}-{STOCK}")):
            found[f"{top} / {bottom}, tokens/s"] = ratio(top, bottom, speed)
    return {name: value for name, value in found.items() if value is not None}


def _same(runs: Runs, one: tuple[int, str], other: tuple[int, str]) -> int:
    """How many responses came out token for token the same."""
    pairs = zip(runs[one][0].streams, runs[other][0].streams, strict=False)
    return sum(mine == theirs for mine, theirs in pairs)
