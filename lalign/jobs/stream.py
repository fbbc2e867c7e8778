"""Where finished records go when nobody can resume: stdout, a pipe or a device, each record as it comes."""

from __future__ import annotations

import io
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from lalign.errors import OutputError
from lalign.jobs.resume import Resumed


class ClosedPipe(OutputError):
    """The reader of the output has gone, as with `| head -1`: the job may end quietly."""


class Stream:
    """Records to a stream, each written as it comes. Nothing is locked or remembered, so nothing can be resumed."""

    def __init__(self, stream: io.RawIOBase, name: str, *, owned: bool) -> None:
        self._stream = stream
        self._name = name
        self._owned = owned
        self._written = 0

    def start(self, fingerprint: Mapping[str, Any], points: int = 1) -> Resumed:
        """As `Output.start`: nothing stands."""
        return Resumed()

    def mark(self, line: int, digest: int) -> None:
        """As `Output.mark`: nothing is remembered."""

    def write(self, record: bytes, *, line: int, last: bool = True, failed: bool = False) -> None:
        """As `Output.write`. Raises `ClosedPipe` where the reader has gone, else `OutputError`."""
        with faults(self._name, self._written):
            write_all(self._stream, record)
        self._written += 1

    def finish(self, last_line: int, lines: int) -> None:
        """As `Output.finish`: nothing is remembered."""

    def sync(self) -> None:
        """As `Output.sync`: every record has left."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._owned:
            self._stream.close()


def stdout() -> io.RawIOBase:
    """Standard output, unbuffered. Raises `OutputError` where the process was started without one."""
    if sys.stdout is None:
        raise OutputError("stdout: is closed")
    # Past the buffer of sys.stdout, which would keep a record that failed and try it again when Python ends.
    return cast(io.RawIOBase, getattr(sys.stdout.buffer, "raw", sys.stdout.buffer))


def write_all(stream: io.RawIOBase, data: bytes) -> None:
    """Writes all of `data`, in as many parts as `stream` takes it. Raises `OSError`."""
    rest = memoryview(data)
    while rest:
        written = stream.write(rest)
        if written is None:  # a full pipe that another process has made non-blocking
            select.select([], [stream], [])
        else:
            rest = rest[written:]


@contextmanager
def faults(name: str, safe: int = 0) -> Iterator[None]:
    """Turns an `OSError` into the one line of an `OutputError`; `safe` counts the records that are on the disk."""
    try:
        yield
    except BrokenPipeError as error:
        raise ClosedPipe(f"{name}: closed by its reader") from error
    except OSError as error:
        kept = f" ({safe} record{'s are' if safe != 1 else ' is'} safe)" if safe else ""
        raise OutputError(f"{name}: {error.strerror}{kept}") from error
