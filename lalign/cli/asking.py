"""Asking a model from the command line: which one, the body of a request, and the course of such a job."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalign.cli import invocation
from lalign.cli.app import FAILED
from lalign.cli.arguments import AskArguments, ModelArguments, ResultArguments, RunArguments
from lalign.cli.spelling import spelled
from lalign.cli.terminal import Progress, say
from lalign.errors import LalignError, OptionError
from lalign.options import Sampling

if TYPE_CHECKING:
    from lalign.asking.chats import Asker, Stopped
    from lalign.asking.job import Task
    from lalign.asking.replies import Replies
    from lalign.jobs.paths import Named

_TOKENS = 512
_OF_ENDPOINT = ("key_variable", "concurrency", "retries", "timeout", "max_requests")
# Of a model that lalign runs itself.
_OF_RUNNING = ("batch_size", "memory_share", "compile")


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


def of_no_use(nobody: str) -> str:
    """Why an option is refused that is about asking, where `nobody` is asked: "stage filter"."""
    return f"is of no use to {nobody}, which asks nobody"


def check(
    asking: AskArguments, model: ModelArguments, running: RunArguments, output: ResultArguments, nobody: str | None
) -> None:
    """That only one is asked, and nothing is wanted that would be passed over. Raises `OptionError`.

    nobody: what asks nobody, where that is so: "stage filter".
    """
    local = (*given(model, _all(model)), *given(running, _OF_RUNNING))
    if nobody is not None:
        _refuse([*given(asking, _all(asking)), *local], lambda: of_no_use(nobody))
        return
    chosen = given(asking, ("write_requests", "read_responses", "url"))
    if len(chosen) > 1:
        raise OptionError(chosen[0], f"does not go with {called(chosen[1])}")
    if asking.asked_model is None and chosen and chosen[0] != "read_responses":
        raise OptionError("asked_model", f"is needed with {called(chosen[0])}")
    if asking.url is None:
        _refuse(given(asking, _OF_ENDPOINT), lambda: f"is for an endpoint: {called('url')}")
    if chosen:
        _refuse(local, lambda: f"is for a model that lalign runs itself; {called(chosen[0])} has another asked")
    else:
        of_another = given(asking, ("asked_model",))
        _refuse(of_another, lambda: f"is of an endpoint ({called('url')}); a local model is named by --model")
        of_requests = given(asking, ("request_options",))
        _refuse(of_requests, lambda: f"is for an endpoint or a batch: {called('url')} or --write-requests")
    if asking.write_requests is not None and not output.resume:
        _refuse(given(output, ("output",)), lambda: "goes with --write-requests only to --resume")


def given(options: Any, names: Iterable[str]) -> list[str]:
    """Which of the options of these names are not as they are when they are left."""
    unset = {option.name: option.default for option in fields(options)}
    return [name for name in names if (value := getattr(options, name)) != unset[name] and value != []]


def refuse_given(options: Any, names: Iterable[str], problem: str) -> None:
    """Raises `OptionError` for the first of the options of these names that is given."""
    _refuse(given(options, names), lambda: problem)


def _refuse(names: Iterable[str], problem: Callable[[], str]) -> None:
    for name in names:
        raise OptionError(name, problem())


def called(option: str) -> str:
    """An option as the user typed it, or would."""
    return spelled(option, sys.argv[1:])


def _all(options: Any) -> list[str]:
    return [option.name for option in fields(options)]


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


def file_of(output: ResultArguments) -> Path | None:
    """The file that results go to; None for stdout, a pipe or a device, which cannot be read again."""
    from lalign.jobs.output import is_stream

    path = invocation.path(output.output)
    return None if path is None or is_stream(path) else path


def opened(output: ResultArguments, *, resumable: bool = True) -> Any:
    """The output, to be entered; `resumable` of what can be gone on with. Raises `OutputError`, `OptionError`."""
    from lalign.jobs.output import open_output

    return open_output(
        output.output,
        overwrite=output.overwrite,
        resume=output.resume if resumable else None,
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
    unit: str,
    on_record: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Done:
    """Ask what is to be asked, into the output; `opening` the asker comes once the output is ready to be written.

    source: what is done, for the progress; unit: what tasks are called, in the plural.
    """
    from lalign.asking.job import AskingJob

    with opened(output) as file, _replies(output) as replies:
        job = AskingJob(tasks, settings, file, replies, on_record, unit)
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
    unit: str,
) -> int:
    """Write requests in OpenAI's Batch form: all, or with --resume those that have no answer yet; returns 0.

    What has an error record has no answer, whether or not --retry-errors says so: else nothing would be written once
    responses were read, which leaves no place without a record.
    """
    from lalign.asking.batch_files import BatchResponses, write_requests
    from lalign.asking.job import AskingJob

    assert asking.write_requests is not None
    if output.resume:
        with opened(replace(output, retry_errors=True)) as file, _replies(output) as replies:
            job = AskingJob(tasks, settings, file, replies, unit=unit)
            job.start(BatchResponses([]))
            chats = job.waiting()
            again = " with --resume --retry-errors" if job.resumed.records else " with --resume"
    else:
        chats, again = [chat for task in tasks for chat in task.chats(0)], ""
    count = write_requests(asking.write_requests, chats, asking.asked_model or "", body)
    say(f"{count} requests to {asking.write_requests}; --read-responses{again} reads what comes of them")
    return 0


def _replies(output: ResultArguments) -> Replies:
    from lalign.asking.replies import Replies

    return Replies(file_of(output), resume=output.resume, overwrite=output.overwrite, force=output.force)


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
        say(f"{said}{how_to_resume(file_of(output))}")
    return interruption.status if interruption else status


def how_to_resume(output: Path | None) -> str:
    """The end of a message that a job did not come to its end, where there is an output to go on with."""
    if output is None:
        return ""
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return f"; resume with: lalign {shlex.join([*words, '--resume'])}"
