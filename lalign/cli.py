"""The command line: parses, calls, prints. All work is done by the library."""

from __future__ import annotations

import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lalign
from lalign.arguments import (
    AlignmentArguments,
    InputFile,
    ModelArguments,
    OutputArguments,
    RunArguments,
    SamplingArguments,
    grouped,
)
from lalign.errors import LalignError, OptionError
from lalign.options import Alignment, Execution, Sampling
from lalign.terminal import Progress, say, show, silence_libraries, summary

if TYPE_CHECKING:
    from lalign.aligner import Aligner
    from lalign.job import Job
    from lalign.requests import Settings

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
    from lalign.job import Job, JobInput
    from lalign.journal import open_journal

    execution = _execution(running, output.stats)
    settings = _settings(alignment, sampling)
    journal = open_journal(
        output.output,
        overwrite=output.overwrite,
        resume=output.resume,
        retry_errors=output.retry_errors,
        force=output.force,
    )
    with journal:
        reads = JobInput(_path(source), output.keep, _limit(output.limit), output.strict)
        job = Job(reads, settings, journal, system=_text(alignment.system, "system"), execution=execution)
        return _carry_out(job, _aligner(model), running, _name(output.output))


def _carry_out(job: Job, aligner: Aligner, running: RunArguments, where: str) -> int:
    """Run a job with its progress and summary; returns the exit status."""
    from lalign.signals import Interruption
    from lalign.stream import ClosedPipe

    began = time.monotonic()
    status = 0
    job.start(aligner)
    with Interruption() as interruption, Progress(job.remaining(), quiet=running.quiet, source=job.source.name) as bar:
        try:
            job.run(aligner, interruption, lambda written: bar.update(written, job.tally))
        except ClosedPipe:
            return 0
        except LalignError as error:
            if running.debug:
                traceback.print_exc()
            bar.write(str(error))
            status = FAILED
    if job.tally.duplicate is not None:
        say(job.tally.duplicate)
    if not running.quiet:
        show(summary(job.tally, time.monotonic() - began, where))
    if interruption:
        say(f"interrupted{_how_to_resume(where)}")
        return interruption.status
    return status or (FAILED if job.tally.failures or job.resumed.failures else 0)


def _how_to_resume(where: str) -> str:
    if where == "stdout":
        return ""
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return f"; resume with: lalign {shlex.join([*words, '--resume'])}"


def _aligner(model: ModelArguments) -> Aligner:
    from lalign.aligner import Aligner

    silence_libraries()
    return Aligner.from_pretrained(
        model.model,
        device=model.device,
        dtype=model.dtype,
        device_map=model.device_map,
        allow_pickle=model.allow_pickle,
        trust_remote_code=model.trust_remote_code,
    )


def _settings(alignment: AlignmentArguments, sampling: SamplingArguments) -> Settings:
    from lalign.prompts import make_principles
    from lalign.requests import resolve

    texts = [_text(path, "principle") or "" for path in alignment.principle or []]
    principles = make_principles(texts, alignment.weight, _text(alignment.contrast, "contrast"))
    given = {
        option.name: getattr(alignment, option.name)
        for option in fields(Alignment)
        if option.name != "recipe" and getattr(alignment, option.name) is not None
    }
    drawn = {option.name: getattr(sampling, option.name) for option in fields(Sampling)}
    drawn["stop"] = tuple(sampling.stop or ())
    return resolve(principles, alignment.recipe, Sampling(**drawn), given)


def _execution(running: RunArguments, statistics: str) -> Execution:
    size = running.batch_size
    try:
        batch_size: Any = size if size == "auto" else int(size)
    except ValueError:
        raise OptionError("batch_size", f"must be a whole number or auto, not {size!r}") from None
    return Execution(batch_size=batch_size, memory_share=running.memory_share, statistics=statistics)  # type: ignore[arg-type]


def _text(path: Path | None, option: str) -> str | None:
    """The text of a file that an option names, without white space around it."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise OptionError(option, f"{path}: not UTF-8 at byte {error.start}") from None
    except (OSError, ValueError) as error:
        raise OptionError(option, f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not text:
        raise OptionError(option, f"{path}: is empty")
    return text


def _limit(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise OptionError("limit", f"must be a whole number of at least 1, not {limit}")
    return limit


def _path(source: Path | None) -> Path | None:
    return None if source is None or str(source) == "-" else source


def _name(output: Path | None) -> str:
    return "stdout" if output is None or str(output) == "-" else str(output)


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
