"""Asking a model from the command line: which one, the body of a request, and the course of such a job."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalign.cli import invocation
from lalign.cli.app import FAILED
from lalign.cli.arguments import AskArguments, ModelArguments, ResultArguments, RunArguments
from lalign.cli.terminal import Progress, say
from lalign.errors import LalignError, OptionError
from lalign.options import Sampling

if TYPE_CHECKING:
    from lalign.asking.chats import Asker, Stopped
    from lalign.asking.job import Task
    from lalign.jobs.paths import Named

_TOKENS = 512


def sampling(asking: AskArguments, temperature: float, max_new_tokens: int | None = None) -> Sampling:
    """How replies are drawn; `temperature` and `max_new_tokens` are the command's own. Raises `OptionError`."""
    tokens = (max_new_tokens or _TOKENS) if asking.max_new_tokens is None else asking.max_new_tokens
    wanted = temperature if asking.temperature is None else asking.temperature
    return Sampling(temperature=wanted, max_new_tokens=tokens)


def body(asking: AskArguments, sampling: Sampling) -> dict[str, Any]:
    """What goes into a request besides model and messages. Raises `OptionError`."""
    given = invocation.json_object("request_options", asking.request_options)
    if taken := {"model", "messages", "n", "stream"} & given.keys():
        raise OptionError("request_options", f"cannot set {min(taken)}, which lalign sets itself")
    made = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens, **given}
    return {name: value for name, value in made.items() if value is not None}


def check(asking: AskArguments) -> None:
    """That only one is asked, and nothing is wanted that it would not do. Raises `OptionError`."""
    chosen = [
        option
        for option in ("write_requests", "read_responses", "url")
        if getattr(asking, option) is not None and getattr(asking, option) != []
    ]
    if len(chosen) > 1:
        raise OptionError(chosen[0], f"does not go with --{chosen[1].replace('_', '-')}")
    if asking.asked_model is None and chosen and chosen[0] != "read_responses":
        raise OptionError("judge_model", f"is needed with --{chosen[0].replace('_', '-')}")
    if asking.url is None and asking.max_requests is not None:
        raise OptionError("max_requests", "is for an endpoint: --judge-url")
    if asking.asked_model is not None and not chosen:
        raise OptionError("judge_model", "is of an endpoint (--judge-url); a local model is named by --model")


def open_asker(asking: AskArguments, sampling: Sampling, model: ModelArguments, running: RunArguments) -> Asker:
    """Who is asked, ready. Raises `OptionError`, `LalignError`."""
    if asking.read_responses:
        from lalign.asking.batch_files import BatchResponses

        return BatchResponses(asking.read_responses)
    if asking.url is not None:
        from lalign.asking.endpoint import Endpoint, EndpointOptions

        return Endpoint(
            EndpointOptions(
                asking.url,
                asking.asked_model or "",
                os.environ.get(asking.key_variable),
                body(asking, sampling),
                asking.concurrency,
                asking.retries,
                asking.timeout,
                asking.max_requests,
            )
        )
    from lalign.asking.local import LocalModel

    execution = invocation.execution(running, "none")
    return LocalModel(invocation.aligner(model, running), sampling, execution)


def check_files(reads: list[Named], output: Path | None, others: dict[str, Path | None], *, overwrite: bool) -> None:
    """That no file is written which is read, or replaced unasked: the output, and others by their options."""
    from lalign.jobs.paths import Named, check_paths, may_replace

    written = {option: path for option, path in others.items() if path is not None}
    check_paths(reads, Named("output", invocation.path(output)))
    for option, path in written.items():
        more = [Named(name, other) for name, other in written.items() if name != option]
        check_paths([*reads, *more], Named("output", invocation.path(output)), Named(option, path))
        may_replace(option, path, overwrite=overwrite)


def opened(output: ResultArguments) -> Any:
    """The output, to be entered. Raises `OutputError`, `OptionError`."""
    from lalign.jobs.output import open_output

    return open_output(
        output.output,
        overwrite=output.overwrite,
        resume=output.resume,
        retry_errors=output.retry_errors,
        force=output.force,
    )


@dataclass(frozen=True, slots=True)
class Done:
    """How a job ended: its exit status, its error records, and responses that nobody asked for."""

    status: int
    failures: int
    unknown: int

    def tell(self, of: str) -> int:
        """Say what went wrong; returns the command's exit status."""
        if self.failures:
            say(f"{self.failures} of {of} have an error record; --resume --retry-errors asks again")
        if self.unknown:
            say(f"{self.unknown} responses were to no request of this job")
        return self.status or (FAILED if self.failures else 0)


def do_tasks(
    tasks: Sequence[Task],
    settings: Mapping[str, Any],
    opening: Callable[[], Asker],
    output: ResultArguments,
    running: RunArguments,
    source: str,
    on_record: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Done:
    """Ask what is to be asked, into the output; `opening` the asker comes once the output is ready to be written."""
    from lalign.asking.job import AskingJob
    from lalign.asking.replies import Replies

    with opened(output) as file, Replies(invocation.path(output.output), resume=output.resume) as replies:
        job = AskingJob(tasks, settings, file, replies, on_record)
        asker = opening()
        job.start(asker)

        def work(stopped: Stopped, bar: Progress) -> None:
            job.run(asker, stopped, lambda done: bar.reach(done, len(tasks)))

        status = carry_on(work, len(tasks), source, output, running)
    return Done(status, job.failures + job.resumed.failures, getattr(asker, "unknown", 0))


def write_left(
    tasks: Sequence[Task],
    settings: Mapping[str, Any],
    asking: AskArguments,
    body: dict[str, Any],
    output: ResultArguments,
) -> int:
    """Write requests in OpenAI's Batch form: all, or with --resume those that have no answer yet; returns 0."""
    from lalign.asking.batch_files import BatchResponses, write_requests
    from lalign.asking.job import AskingJob
    from lalign.asking.replies import Replies

    assert asking.write_requests is not None
    if output.resume:
        with opened(output) as file, Replies(invocation.path(output.output), resume=True) as replies:
            job = AskingJob(tasks, settings, file, replies)
            job.start(BatchResponses([]))
            chats = job.waiting()
    else:
        chats = [chat for task in tasks for chat in task.chats(0)]
    count = write_requests(asking.write_requests, chats, asking.asked_model or "", body)
    say(f"{count} requests to {asking.write_requests}; --read-responses reads what comes of them")
    return 0


def carry_on(
    work: Callable[[Stopped, Progress], None], total: int, source: str, output: ResultArguments, running: RunArguments
) -> int:
    """Do `work`, with progress and an eye on signals; returns the exit status, 0 where it came to its end."""
    from lalign.jobs.signals import Interruption
    from lalign.jobs.stream import ClosedPipe

    status = 0
    with Interruption() as interruption, Progress(total, quiet=running.quiet, source=source) as bar:
        try:
            work(lambda: bool(interruption), bar)
        except ClosedPipe:
            return 0
        except LalignError as error:
            if running.debug:
                traceback.print_exc()
            bar.write(str(error))
            status = FAILED
    if interruption or status:
        said = "interrupted" if interruption else "not all is done"
        say(f"{said}{_how_to_resume(output.output)}")
    return interruption.status if interruption else status


def _how_to_resume(output: Path | None) -> str:
    if output is None or str(output) == "-":
        return ""
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return f"; resume with: lalign {shlex.join([*words, '--resume'])}"
