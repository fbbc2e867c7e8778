"""Where finished records go: what a job asks of an output, and how one is opened."""

from __future__ import annotations

import io
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from lalign.errors import OptionError
from lalign.jobs.journal import Journal
from lalign.jobs.packed import SUFFIXES, Packed
from lalign.jobs.resume import Resumed
from lalign.jobs.stream import Stream, faults, stdout


class Output(Protocol):
    """Takes the records of one job, in the order of their input lines. Entered and left around the job."""

    def start(self, fingerprint: Mapping[str, Any], points: int = 1) -> Resumed:
        """Says under which settings the records will be made, and how many an input line gets; gives what stands."""

    def mark(self, line: int, digest: int) -> None:
        """Gives the digest of an input line, in order, before its records; also of lines answered by an earlier run."""

    def write(self, record: bytes, *, line: int, last: bool = True, failed: bool = False) -> None:
        """Takes the next record, a JSON line with its newline, of input line `line`; `last` of those of that line.

        Raises `OutputError`.
        """

    def finish(self, last_line: int, lines: int) -> None:
        """Says that all of the input has been answered: the number of its last line, and how many lines there were.

        Until then a packed output is not made: see `whole_output` for what is written in one go.
        """

    def sync(self) -> None:
        """Makes all records taken so far outlive the machine, where that can be. Raises `OutputError`."""

    def __enter__(self) -> Output: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_output(
    path: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool | None = None,
    retry_errors: bool = False,
    force: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Output:
    """Opens the output of one job, before any other work. None or `-` is stdout; pipes and devices are streams too.

    `resume` is None where the caller has no such thing to offer. `clock` counts seconds. Raises `OutputError` where the
    output cannot be written or must not be, `OptionError` for options that do not go together.
    """
    if resume and overwrite:
        raise OptionError("resume", "does not go with overwrite")
    if not resume and (retry_errors or force):
        raise OptionError("retry_errors" if retry_errors else "force", "only goes with resume")
    path = Path("-" if path is None else path)
    with faults(str(path)):
        if str(path) != "-" and not is_stream(path):
            return (Packed if path.suffix.lower() in SUFFIXES else Journal)(
                path, overwrite=overwrite, resume=resume, retry_errors=retry_errors, force=force, clock=clock
            )
        if resume:
            raise OptionError("resume", "needs an output file, not a stream")
        if str(path) == "-":
            return Stream(stdout(), "stdout", owned=False)
        return Stream(io.FileIO(path, "w"), str(path), owned=True)


class Writing(Protocol):
    """Takes a record, a JSON line with its newline, of input line `line`. Raises `OutputError`."""

    def __call__(self, record: bytes, *, line: int, failed: bool = False) -> None: ...


@contextmanager
def whole_output(
    path: str | Path | None, fingerprint: Mapping[str, Any], *, overwrite: bool = False
) -> Iterator[Writing]:
    """An output that is written in one go, by the function that this gives: done where it is left without an error.

    Opened as `open_output` opens it, which says what is raised.
    """
    lines: set[int] = set()
    with open_output(path, overwrite=overwrite) as output:
        output.start(fingerprint)

        def write(record: bytes, *, line: int, failed: bool = False) -> None:
            lines.add(line)
            output.write(record, line=line, failed=failed)

        yield write
        output.finish(max(lines, default=0), len(lines))
        output.sync()


def is_stream(path: Path) -> bool:
    """Whether what is there is a pipe or a device, which takes records and cannot be read again."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
