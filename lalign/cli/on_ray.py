"""`lalign generate --ray`: a job whose work is done by the actors of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from lalign.cli import invocation
from lalign.cli.app import FAILED
from lalign.cli.arguments import AlignmentArguments, ClusterArguments, ModelArguments, OutputArguments, RunArguments
from lalign.cli.dry_run import dry_run
from lalign.cli.terminal import Progress, say, show, summary
from lalign.errors import OptionError

if TYPE_CHECKING:
    from lalign.options import Execution
    from lalign.ray.counts import Counts
    from lalign.records.requests import Settings

# What a job needs the order of the input for, or a file of its own.
_NOT_WITH_RAY = ("overwrite", "retry_errors", "force", "limit", "shard", "strict")


def refuse_without_ray(cluster: ClusterArguments) -> None:
    """Raises `OptionError` for options of a cluster that nobody has asked for."""
    for option in ("workers", "gpus_per_worker"):
        if getattr(cluster, option) is not None:
            raise OptionError(option, "only goes with --ray")


def carry_out_on_ray(
    sources: Sequence[Path] | None,
    settings: Settings,
    execution: Execution,
    alignment: AlignmentArguments,
    output: OutputArguments,
    model: ModelArguments,
    running: RunArguments,
    cluster: ClusterArguments,
) -> int:
    """Run a job on a cluster, from its checks to its summary; returns the exit status."""
    reads, writes = _paths(sources, output, settings)
    reading, system = invocation.reading(output, settings, alignment)
    from lalign.ray import Cluster, run

    where = Cluster(
        cluster.ray or "local",
        1 if cluster.workers is None else cluster.workers,
        0 if cluster.gpus_per_worker is None else cluster.gpus_per_worker,
    )
    if (count := invocation.at_least_one("dry_run", output.dry_run)) is not None:
        from lalign.ray.files import as_input, input_paths

        return dry_run(as_input(input_paths(reads)[0], reading), settings, system, model, count)
    began = time.monotonic()
    with Progress(None, quiet=running.quiet, source=str(reads), unit="lines") as bar:
        counts = run(
            reads,
            writes,
            invocation.model_options(model, compile=running.compile),
            settings,
            where,
            engine=model.engine,
            engine_options=invocation.engine_options(model.engine_option or []),
            reading=reading,
            system=system,
            execution=execution,
            keep=output.keep,
            resume=output.resume,
            watch=bar.reach,
        )
    for notice in counts.notices.lines(str(reads)):
        say(notice)
    return _told(counts, running, time.monotonic() - began, writes)


def _paths(sources: Sequence[Path] | None, output: OutputArguments, settings: Settings) -> tuple[Path, Path]:
    """What is read, and where to. Raises `OptionError` for options that do not go with a cluster."""
    given = {option.name: getattr(output, option.name) for option in fields(output)}
    for option in _NOT_WITH_RAY:
        if given[option]:
            raise OptionError(option, "does not go with --ray")
    if output.output_format != "jsonl":
        raise OptionError("output_format", "does not go with --ray")
    if settings.logprobs and output.stats == "none":
        raise OptionError("logprobs", "with --ray needs --stats summary or steps")
    paths, writes = [invocation.path(path) for path in sources or []], invocation.path(output.output)
    if len(paths) != 1 or (reads := paths[0]) is None or writes is None:
        raise OptionError("ray", "needs one file or folder to read, and a folder (-o) to write")
    return reads, writes


def _told(counts: Counts, running: RunArguments, seconds: float, writes: Path) -> int:
    """Say what a job has come to; returns its exit status."""
    from lalign.jobs.tally import Tally

    if counts.failures:
        say(f"{counts.failures} records failed; each has an error record in the output")
    tally = Tally(records=counts.records, failures=counts.failures, tokens=counts.tokens, skipped=counts.stood)
    if not running.quiet:
        show(summary(tally, seconds, str(writes)))
    return FAILED if counts.failures or counts.stood_failures else 0
