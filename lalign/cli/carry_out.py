"""Running a job from the command line: its checks, its progress, its summary, its exit status."""

from __future__ import annotations

import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lalign.cli import invocation
from lalign.cli.app import FAILED
from lalign.cli.arguments import AlignmentArguments, ModelArguments, OutputArguments, RunArguments
from lalign.cli.dry_run import dry_run
from lalign.cli.named_files import check_paths
from lalign.cli.terminal import Progress, say, show, summary
from lalign.errors import LalignError
from lalign.options import Execution
from lalign.results import Failure, Result

if TYPE_CHECKING:
    from lalign.aligner import Aligner
    from lalign.figures.sweep import Sweep
    from lalign.jobs.job import Job
    from lalign.records.parsing import Record
    from lalign.records.requests import Settings


def carry_out(
    sources: Sequence[Path] | None,
    settings: Settings,
    execution: Execution,
    alignment: AlignmentArguments,
    output: OutputArguments,
    model: ModelArguments,
    running: RunArguments,
    sweep: Sweep | None = None,
) -> int:
    """Run a job over the input, from the checks that need no model to the summary; returns the exit status."""
    from lalign.jobs.job import Job
    from lalign.jobs.output import open_output
    from lalign.jobs.reader import JobInput
    from lalign.jobs.shard import parse_shard
    from lalign.records.inputs import named

    paths = named(sources or [])
    reading, system = invocation.reading(output, settings, alignment)
    reads = JobInput(
        invocation.path(paths[0]) if paths else None,
        output.keep,
        invocation.at_least_one("limit", output.limit),
        output.strict,
        parse_shard(output.shard),
        tuple(paths[1:]),
        reading,
    )
    if reads.path is None and not running.quiet and sys.stdin is not None and sys.stdin.isatty():
        say("reading records from the terminal, a JSON object a line, up to Ctrl-D")
    if (count := invocation.at_least_one("dry_run", output.dry_run)) is not None:
        return dry_run(reads, settings, system, model, count)
    plot = sweep.plotted if sweep else None
    check_paths(paths, alignment, model, output, plot)
    opened = open_output(
        output.output,
        overwrite=output.overwrite and not (output.resume and plot),  # then it is for the plot alone
        resume=output.resume,
        retry_errors=output.retry_errors,
        force=output.force,
    )
    with opened:
        job = Job(
            reads,
            settings,
            opened,
            system=system,
            execution=execution,
            written=output.stats,  # type: ignore[arg-type]
            form=output.output_format,  # type: ignore[arg-type]
        )
        return _run(job, invocation.aligner(model, running), running, invocation.name(output.output), sweep)


def _run(job: Job, aligner: Aligner, running: RunArguments, where: str, sweep: Sweep | None) -> int:
    """Run a job that is ready, with its progress and summary; returns the exit status."""
    from lalign.figures.canvas import About
    from lalign.jobs.signals import Interruption
    from lalign.jobs.stream import ClosedPipe
    from lalign.records.conversations import prefilled

    began = time.monotonic()
    status = 0
    job.start(aligner)
    bar = Progress(job.remaining(), quiet=running.quiet, source=job.inputs.place, points=job.settings.points)
    with Interruption() as interruption, bar:

        def on_records(records: Sequence[Record]) -> None:
            if sweep is not None:
                begun = job.settings.prompting.prefill
                sweep.on_records([replace(one, messages=prefilled(one.messages, begun)) for one in records])

        def on_outcomes(written: Sequence[Result | Failure]) -> None:
            bar.update(written, job.tally)
            if sweep is not None:
                sweep.on_outcomes(written)

        try:
            job.run(aligner, interruption, on_records=on_records, on_outcomes=on_outcomes)
        except ClosedPipe:
            return 0
        except LalignError as error:
            if running.debug:
                traceback.print_exc()
            bar.write(str(error))
            status = FAILED
    if job.tally.duplicate is not None:
        say(job.tally.duplicate)
    if job.tally.has_changed_nothing and not running.quiet:
        say("nothing flipped: at no token did the step change which is likeliest; --ratio may be too small")
    for notice in (*job.inputs.notices(), *job.tally.notices.lines(job.source.name)):
        say(notice)
    if sweep is not None and job.tally.records:
        show(sweep.table())
        if not (interruption or status):  # else it would be a plot of half a job
            sweep.draw(f"lalign sweep of {job.source.name}", About(aligner.backend.name, job.settings.principles.texts))
    if not running.quiet:
        show(summary(job.tally, time.monotonic() - began, where))
    if (interruption or status) and (part := invocation.part(where)) is not None:
        say(f"{where} is made when the job is done; what is answered so far stands in {part}")
    if interruption:
        say(f"interrupted{_how_to_resume(where, plotted=sweep is not None and sweep.plotted is not None)}")
        return interruption.status
    return status or (FAILED if job.tally.failures or job.resumed.failures else 0)


def _how_to_resume(where: str, *, plotted: bool) -> str:
    if where == "stdout":
        return ""
    left_out = ("--resume",) if plotted else ("--overwrite", "--resume")
    words = [word for word in sys.argv[1:] if word not in left_out]
    return f"; resume with: lalign {shlex.join([*words, '--resume'])}"
