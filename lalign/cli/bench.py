"""`lalign bench`: what alignment costs."""

from __future__ import annotations

from pathlib import Path

import orjson
import typer

from lalign.cli import invocation
from lalign.cli.app import app
from lalign.cli.arguments import (
    AlignmentArguments,
    BenchArguments,
    DebugFlag,
    InputFile,
    ModelArguments,
    SamplingArguments,
    grouped,
)
from lalign.cli.terminal import Progress, say, show
from lalign.errors import OptionError
from lalign.sweep.ranges import parse_range


@app.command(no_args_is_help=False)
@grouped
def bench(
    source: InputFile = None,
    *,
    measured: BenchArguments,
    alignment: AlignmentArguments,
    sampling: SamplingArguments,
    model: ModelArguments,
    debug: DebugFlag = False,
) -> int:
    """Measure what alignment costs here: speed and memory, against the base model, other programs and other engines.

    lalign bench in.jsonl --principle hh.txt --peers > bench.json
    """
    from lalign.bench.bench import BenchOptions, measure, rows_of
    from lalign.bench.side import Work
    from lalign.bench.tables import tables

    pythons = invocation.pairs("peer_python", measured.peer_python or [])
    options = BenchOptions(
        _batch_sizes(measured.batch_sizes),
        invocation.at_least_one("repeats", measured.repeats) or 1,
        measured.peers,
        measured.singly,
        model.engine,
        invocation.engine_options(model.engine_option or []),
        {engine: str(Path(python).expanduser()) for engine, python in pythons.items()},
        tuple(name.strip() for name in measured.contenders.split(",")) if measured.contenders else (),
    )
    loaded = invocation.model_options(model)
    wanted = invocation.settings(alignment, sampling)
    if not wanted.principles.texts:
        raise OptionError("principle", "is needed")
    records = invocation.records(invocation.path(source), invocation.at_least_one("limit", measured.limit))
    work = Work(records, wanted, invocation.system(alignment))
    rows_of(work, options)
    with Progress(None, quiet=False, source="bench") as bar:
        found = measure(loaded, work, options, bar.note)
    for engine, why in found["left_out"].items():
        say(f"{engine} is left out: {why}")
    for table in tables(found):
        show(table)
    typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    return 0


def _batch_sizes(given: str) -> tuple[int, ...]:
    """The batch sizes of a benchmark. Raises `OptionError`."""
    sizes = parse_range(given, "batch_sizes")
    if any(size < 1 or size != int(size) for size in sizes):
        raise OptionError("batch_sizes", f"must be whole numbers of at least 1, not {given!r}")
    return tuple(int(size) for size in sizes)
