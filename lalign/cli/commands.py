"""The command line: parses, calls, prints. All work is done by the library."""

from __future__ import annotations

import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import orjson
import typer

import lalign
from lalign.cli import invocation
from lalign.cli.arguments import (
    AlignmentArguments,
    BenchArguments,
    DebugFlag,
    EvalArguments,
    InputFile,
    ModelArguments,
    OutputArguments,
    RunArguments,
    SamplingArguments,
    SweepArguments,
    grouped,
)
from lalign.cli.terminal import Progress, say, show, summary
from lalign.errors import LalignError, OptionError
from lalign.options import Execution
from lalign.results import Failure, Result
from lalign.sweep.knee import KNEE_RULE
from lalign.sweep.ranges import parse_range, sweep_points

if TYPE_CHECKING:
    from lalign.aligner import Aligner
    from lalign.figures.sweep import Sweep
    from lalign.jobs.job import Job
    from lalign.records.parsing import Record
    from lalign.records.requests import Settings

USAGE = 2
FAILED = 1
# Click's ClickException, or that of the Click which newer Typers carry within them.
BadCommandLine: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Align a language model to a written principle while it decodes: no training. JSONL in, JSONL out.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lalign {lalign.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


@app.command(no_args_is_help=False)
@grouped
def generate(
    source: InputFile = None,
    *,
    alignment: AlignmentArguments,
    sampling: SamplingArguments,
    output: OutputArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    """Answer the records of IN.jsonl, aligned to a principle; one JSON line each, in their order.

    cat in.jsonl | lalign generate --principle hh.txt | jq -r .response
    """
    wanted = invocation.settings(alignment, sampling)
    execution = invocation.execution(running, output.stats)
    return _carry_out(source, wanted, execution, alignment, output, model, running)


@app.command(
    no_args_is_help=False,
    epilog=f"{KNEE_RULE} The table counts what this run has written, not what stood already.",
)
@grouped
def sweep(
    source: InputFile = None,
    *,
    points: SweepArguments,
    alignment: AlignmentArguments,
    sampling: SamplingArguments,
    output: OutputArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    """Answer the records at many ratios in one batch; a table on stderr says what each point does.

    lalign sweep in.jsonl --principle hh.txt --ratios 0:5 -o sweep.jsonl --plot sweep.html
    """
    from lalign.figures.sweep import Sweep

    one = invocation.settings(invocation.without_ratio(alignment), sampling)
    ratios = parse_range(points.ratios, "ratios")
    ps = parse_range(points.ps, "ps", infinite=True) if points.ps is not None else ()
    wanted = replace(one, alignments=sweep_points(one.alignments[0], ratios, ps), sweep=True)
    invocation.execution(running, output.stats)
    execution = invocation.execution(running, "steps")
    gathered = Sweep(wanted.alignments, points.plot)
    return _carry_out(source, wanted, execution, alignment, output, model, running, gathered)


@app.command("eval", no_args_is_help=False)
@grouped
def evaluate(
    source: InputFile = None,
    *,
    asked: EvalArguments,
    alignment: AlignmentArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    """Score multiple-choice answers at each ratio: personal preferences (the paper's Table 3), or any choices.

    lalign eval preferences.jsonl --ratios 0:5 > accuracy.json
    """
    from lalign.evaluation.evaluation import check_extra, table
    from lalign.evaluation.evaluation import evaluate as run_evaluation
    from lalign.evaluation.preferences import read_questions
    from lalign.evaluation.scoring import EvaluationOptions
    from lalign.figures.plot import plot_accuracy, plot_format

    check_extra()
    options = EvaluationOptions(
        scoring=cast(Any, asked.scoring),
        users="one" if asked.one_user else "all",
        permute=cast(Any, asked.permute),
        seed=asked.seed,
    )
    if asked.plot is not None and plot_format(asked.plot) == "html":
        raise OptionError("plot", f"must name a .png or .svg file, not {asked.plot.name!r}")
    invocation.check_paths(source, alignment, model, None, asked.plot, overwrite=asked.overwrite)
    one = invocation.settings(invocation.without_ratio(alignment), SamplingArguments())
    points = sweep_points(one.alignments[0], parse_range(asked.ratios, "ratios"), ())
    principle, *more = one.principles.texts or (None,)
    if more or one.principles.contrast is not None:
        raise OptionError("principle", "an evaluation takes one principle at the most, and no contrast")
    execution = invocation.execution(running, "none")
    system = invocation.text(alignment.system, "system")
    questions = read_questions(invocation.path(source))
    with Progress(None, quiet=running.quiet, source="eval", unit="item") as bar:
        found = run_evaluation(
            invocation.aligner(model, compile=running.compile),
            questions,
            points,
            options,
            principle=principle,
            system=system,
            prompting=one.prompting,
            execution=execution,
            progress=bar.reach,
        )
    show(table(found))
    if asked.plot is not None:
        plot_accuracy(asked.plot, found.curves(), found.chance)
    typer.echo(orjson.dumps(found.to_dict(), option=orjson.OPT_INDENT_2).decode())
    return 0


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
    """Measure what alignment costs here: speed and memory, against the base model and stock transformers.

    lalign bench in.jsonl --principle hh.txt --peers > bench.json
    """
    from lalign.bench.bench import BenchOptions, Work, measure
    from lalign.bench.report import tables

    sizes = invocation.batch_sizes(measured.batch_sizes)
    repeats = invocation.at_least_one("repeats", measured.repeats) or 1
    options = BenchOptions(sizes, repeats, measured.peers, measured.singly)
    wanted = invocation.settings(alignment, sampling)
    if not wanted.principles.texts:
        raise OptionError("principle", "is needed")
    records = invocation.records(invocation.path(source), invocation.at_least_one("limit", measured.limit))
    work = Work(records, wanted, invocation.text(alignment.system, "system"))
    with Progress(None, quiet=False, source="bench") as bar:
        found = measure(invocation.model_options(model), work, options, bar.note)
    for table in tables(found):
        show(table)
    typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    return 0


def _carry_out(
    source: Path | None,
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

    reads = JobInput(
        invocation.path(source), output.keep, invocation.at_least_one("limit", output.limit), output.strict
    )
    system = invocation.text(alignment.system, "system")
    plot = sweep.plotted if sweep else None
    invocation.check_paths(source, alignment, model, output, plot)
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
        )
        return _run(
            job, invocation.aligner(model, compile=running.compile), running, invocation.name(output.output), sweep
        )


def _run(job: Job, aligner: Aligner, running: RunArguments, where: str, sweep: Sweep | None) -> int:
    """Run a job that is ready, with its progress and summary; returns the exit status."""
    from lalign.jobs.signals import Interruption
    from lalign.jobs.stream import ClosedPipe

    began = time.monotonic()
    status = 0
    job.start(aligner)
    with Interruption() as interruption, Progress(job.remaining(), quiet=running.quiet, source=job.source.name) as bar:

        def on_records(records: Sequence[Record]) -> None:
            if sweep is not None:
                sweep.on_records(records)

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
    for notice in job.tally.notices.lines(job.source.name):
        say(notice)
    if sweep is not None and job.tally.records:
        show(sweep.table())
        if not (interruption or status):  # else it would be a plot of half a job
            sweep.draw(f"lalign sweep of {job.source.name}")
    if not running.quiet:
        show(summary(job.tally, time.monotonic() - began, where))
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


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns its exit status. Every error is one line on stderr, unless with --debug."""
    debug = "--debug" in arguments
    try:
        status = app(list(arguments), prog_name="lalign", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except BadCommandLine as error:
        say(f"{error.format_message()} (see lalign --help)")
        return USAGE
    except LalignError as error:
        if debug:
            traceback.print_exc()
        say(_as_option(error) if isinstance(error, OptionError) else str(error))
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        say(f"internal error: {type(error).__name__}: {error} (--debug shows where)")
        return FAILED


def _as_option(error: OptionError) -> str:
    return f"--{error.option.replace('_', '-')}: {error.problem}"
