"""The paper's Table 1 on this machine and model: what alignment costs, measured in one run (design section 8)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lalign.backends import ENGINES, is_installed
from lalign.bench.contenders import Contender, chosen, contenders
from lalign.bench.measuring import Measurement
from lalign.bench.report import report
from lalign.bench.side import Facts, Side, Task, Work
from lalign.errors import LalignError, OptionError
from lalign.models.loading import ModelOptions


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured, and by what.

    batch_sizes: smallest first, since the memory of a process does not shrink. repeats: interleaved rounds. peers:
    whether other programs and engines too; singly: guidance one prompt at a time as well. engine, engine_options: what
    runs lalign. pythons: interpreters by engine, where it is not this one. only: names of contenders, all if empty.
    """

    batch_sizes: tuple[int, ...]
    repeats: int
    peers: bool
    singly: bool = False
    engine: str = "torch"
    engine_options: Mapping[str, str] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for engine, python in self.pythons.items():
            if engine not in ENGINES or not Path(python).is_file():
                raise OptionError(
                    "peer_python", f"must be one of {', '.join(ENGINES)}, =, and a Python, not {engine}={python}"
                )

    @property
    def engines(self) -> tuple[str, ...]:
        """Those that run beside lalign's: the ones that are here, or in an environment that is named."""
        return tuple(one for one in ENGINES if self.peers and (one in self.pythons or is_installed(one)))


def rows_of(work: Work, options: BenchOptions) -> tuple[Contender, ...]:
    """The contenders that are to run. Raises `OptionError`."""
    rows = contenders(work.settings.alignments[0], options.engine, options.engines, options.singly)
    return chosen(rows, options.only)


def measure(
    model: ModelOptions,
    work: Work,
    options: BenchOptions,
    watch: Callable[[str], None] = lambda done: None,
) -> dict[str, Any]:
    """Run everything, interleaved (A B C A B C), and give the report that `lalign bench` prints as JSON.

    Every contender has a process of its own, with a model of its own, and all are there at once. `watch` hears what
    begins. An engine other than `options.engine` which does not take the model is left out, as is a contender that
    fails later, and the report says why. Raises `LalignError` of the others.
    """
    options = replace(options, batch_sizes=tuple(sorted(options.batch_sizes)))
    rows, left_out = rows_of(work, options), {}
    sides: dict[str, Side] = {}
    with ExitStack() as stack:
        for contender in rows:
            if contender.engine in left_out:
                continue
            watch(f"start, {contender.name}")
            leader = next(iter(sides.values())).facts if sides else None
            try:
                side = Side(
                    options.pythons.get(contender.engine, sys.executable),
                    _task(contender, model, work, options, leader),
                )
            except LalignError as error:
                if contender.engine == options.engine or leader is None:
                    raise
                left_out[contender.engine] = str(error)
                continue
            stack.callback(side.close)
            sides[contender.name] = side
        rows = tuple(row for row in rows if row.name in sides)
        runs = _run(rows, sides, options, left_out, watch)
        facts = {name: side.facts for name, side in sides.items()}
        watch("the machine")
        machine = next(iter(sides.values())).machine()
    return report(rows, runs, options.repeats, facts, machine) | {"left_out": left_out}


def _run(
    rows: Sequence[Contender],
    sides: Mapping[str, Side],
    options: BenchOptions,
    left_out: dict[str, str],
    watch: Callable[[str], None],
) -> dict[tuple[int, str], list[Measurement]]:
    """What was measured of each batch size and contender, behind a short run of each that does not count.

    One that fails goes into `left_out` with the reason, and keeps the batch sizes that it is done with. Raises
    `LalignError` of the first, which all others are compared with.
    """
    runs: dict[tuple[int, str], list[Measurement]] = {}

    def attempt(contender: Contender, batch_size: int, limit: int | None = None) -> None:
        if contender.name in left_out:
            return
        try:
            measured = sides[contender.name].run(batch_size, limit)
        except LalignError as error:
            if contender is rows[0]:
                raise
            left_out[contender.name] = str(error)
            runs.pop((batch_size, contender.name), None)
            return
        if limit is None:
            runs.setdefault((batch_size, contender.name), []).append(measured)

    for contender in rows:
        watch(f"warm-up, {contender.name}")
        attempt(contender, options.batch_sizes[0], limit=2)
    for batch_size, repeat, contender in _schedule(rows, options):
        watch(f"batch {batch_size}, run {repeat + 1} of {options.repeats}, {contender.name}")
        attempt(contender, batch_size)
    return runs


def _task(contender: Contender, model: ModelOptions, work: Work, options: BenchOptions, leader: Facts | None) -> Task:
    """The first makes the prompts, and must be lalign's own, which `rows_of` begins with."""
    if contender.engine != "torch":  # whose device and dtype are no business of others
        model = replace(model, device="auto", dtype="auto", device_map=None)
    own = dict(options.engine_options) if contender.engine == options.engine and not contender.peer else {}
    if leader is None and contender.peer:
        raise OptionError("contenders", "must have one of lalign's own among them")
    return Task(contender, model, own, work, leader.prompts if leader else None, leads=leader is None)


def _schedule(rows: Sequence[Contender], options: BenchOptions) -> Iterator[tuple[int, int, Contender]]:
    """Round after round; what goes one prompt at a time runs in the rounds of batch size 1, or else of the first."""
    single = 1 if 1 in options.batch_sizes else options.batch_sizes[0]
    for batch_size in options.batch_sizes:
        for repeat in range(options.repeats):
            for contender in rows:
                # At batch size 1 the batched and the single way of guidance are the same.
                is_double = single == 1 and contender.guidance is not None
                if not contender.singly or (batch_size == single and not is_double):
                    yield batch_size, repeat, contender
