"""What `lalign bench` tells: medians with their spread, and ratios of equal work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

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

Runs = Mapping[tuple[int, str], Sequence[Measurement]]
# Ways of equal arithmetic part at near ties of float32; a speed is quoted where at least this share stayed equal.
EQUAL_SHARE = 0.9
MEGABYTE = 1 << 20


def report(rows: Sequence[Contender], runs: Runs, repeats: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything measured, as `lalign bench` prints it: JSON values, times in seconds and memory in bytes."""
    twins = {contender.name: contender.same_as for contender in rows}
    return {
        "model": {key: facts[key] for key in ("model", "device", "dtype", "parameters")},
        "machine": asdict(facts["machine"]),
        "repeats": repeats,
        "runs": [_row(key, runs, twins[key[1]], facts) for key in runs],
        "ratios": {str(size): _ratios(size, runs) for size in dict.fromkeys(size for size, _ in runs)},
    }


def _row(key: tuple[int, str], runs: Runs, twin: str | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    batch_size, name = key
    machine: Machine = facts["machine"]
    one = runs[key][0]
    rows = one.step_rows / one.steps if one.steps else 0.0
    floor = machine.floor_seconds(facts["parameters"], facts["itemsize"], rows)
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
    row |= {"rows_per_step": rows, "floor_seconds": floor, "step_over_floor": row["step_seconds"]["median"] / floor}
    if twin is not None and (batch_size, twin) in runs:
        row |= {"same_as": twin, "same_responses": _same(runs, key, (batch_size, twin)), "responses": len(one.streams)}
    return row


def _ratios(size: int, runs: Runs) -> dict[str, Any]:
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
        "aligned / stock guidance_scale, equal tokens, tokens/s": ratio(WITHOUT_SUPPORT, GUIDED, speed, equal=True),
        "aligned / stock guidance_scale singly, equal tokens, tokens/s": ratio(
            WITHOUT_SUPPORT, GUIDED_SINGLY, speed, equal=True
        ),
        "aligned / stock generate unaligned, tokens/s": ratio(ALIGNED, STOCK, speed),
        "base / stock generate, equal tokens, tokens/s": ratio(BASE, STOCK, speed, equal=True),
        "step of pairs / step of plain rows": ratio(ALIGNED, BASE, lambda run: run.step_seconds),
        "time with statistics / without": ratio(ALIGNED, WITHOUT_STATISTICS, lambda run: run.seconds),
        "peak memory / stock generate": ratio(ALIGNED, STOCK, lambda run: run.peak_memory),
    }
    return {name: value for name, value in found.items() if value is not None}


def _same(runs: Runs, one: tuple[int, str], other: tuple[int, str]) -> int:
    """How many responses came out token for token the same."""
    pairs = zip(runs[one][0].streams, runs[other][0].streams, strict=True)
    return sum(mine == theirs for mine, theirs in pairs)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """The report for people: one table of runs, one of ratios. Medians, with the spread in brackets."""
    runs = Table(title=f"{found['model']['model']}, {found['model']['device']}, {found['model']['dtype']}")
    for name in ("batch", "", "tokens/s", "first token", "prefill", "decode", "step", "memory MB"):
        runs.add_column(name, justify="left" if name == "" else "right", overflow="fold")
    for row in found["runs"]:
        same = f" ({row['same_responses']}/{row['responses']} = {row['same_as']})" if "same_as" in row else ""
        runs.add_row(
            str(row["batch_size"]),
            Text(f"{row['contender']}{same}"),
            _spread(row["tokens_per_second"], "{:.1f}"),
            f"{row['first_token_seconds']['median']:.2f} s",
            f"{row['prefill_seconds']['median']:.1f} s",
            f"{row['decode_seconds']['median']:.1f} s",
            f"{1000 * row['step_seconds']['median']:.0f} ms",
            f"{row['peak_memory']['median'] / MEGABYTE:.0f}",
        )
    ratios = Table(title="Ratios, within each round")
    ratios.add_column("batch", justify="right")
    ratios.add_column("")
    ratios.add_column("ratio", justify="right")
    for size, by_name in found["ratios"].items():
        for name, value in by_name.items():
            ratios.add_row(size, name, _spread(value, "{:.2f}"))
    return [runs, ratios]


def _spread(value: Mapping[str, float], form: str) -> str:
    low, median, high = (form.format(value[key]) for key in ("low", "median", "high"))
    return f"{median} [{low}-{high}]"
