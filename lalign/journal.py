"""Where finished records go: to a stream, or to a file over which a job may be killed at any moment and resumed.

Records are written whole and never buffered, so each one that `write` has taken outlives the process. Beside a file
stand its header (`.run.json`), and while a job runs its lock (`.lock`) and the records it redoes (`.retry`).
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from filelock import FileLock, Timeout

from lalign.errors import OptionError, OutputError
from lalign.fingerprint import Header, InputProgress, beside, differences, read_header, write_header
from lalign.resume import SEAL, Resumed, merge_redone, redone_path, scan

CHECKPOINT_SECONDS = 2.0


class ClosedPipe(OutputError):
    """The reader of the output has gone, as with `| head -1`: the job may end quietly."""


def open_journal(
    path: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    retry_errors: bool = False,
    force: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Journal | StreamJournal:
    """Opens the output for one job, before any other work. None or `-` is stdout; pipes and devices are streams too.

    `clock` counts seconds. Raises `OutputError` where the output cannot be written or must not be, `OptionError` for
    options that contradict each other.
    """
    if resume and overwrite:
        raise OptionError("resume", "cannot go with overwrite")
    if not resume and (retry_errors or force):
        raise OptionError("retry_errors" if retry_errors else "force", "only goes with resume")
    to_stdout = path is None or str(path) == "-"
    if not to_stdout and not _is_stream(Path(path or "")):
        return Journal(
            Path(path or ""), overwrite=overwrite, resume=resume, retry_errors=retry_errors, force=force, clock=clock
        )
    return StreamJournal()


class StreamJournal:
    """Records to a stream, each written as it comes. Nothing is locked or remembered, so nothing can be resumed."""

    resumed = Resumed()

    def __init__(self, stream: io.RawIOBase, name: str, *, owned: bool) -> None:
        self._stream = stream
        self._name = name
        self._owned = owned
        self._written = 0

    def start(self, fingerprint: Mapping[str, Any]) -> Resumed:
        """As `Journal.start`: nothing stands."""
        return self.resumed

    def write(self, record: bytes, *, line: int, last: bool = True) -> None:
        """As `Journal.write`. Raises `ClosedPipe` where the reader has gone, else `OutputError`."""
        with _faults(self._name, self._written):
            _write_all(self._stream, record)
        self._written += 1

    def mark_input(self, lines: int, sha256: str) -> None:
        """As `Journal.mark_input`: nothing is remembered."""

    def end_input(self) -> None:
        """As `Journal.end_input`: nothing was remembered."""

    def sync(self) -> None:
        """As `Journal.sync`: every record has left."""

    def __enter__(self) -> StreamJournal:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._owned:
            self._stream.close()


class Journal:
    """Records to a file, under an exclusive lock from here until the journal is left.

    The file stays as it was until `start` resumes it or the first record comes, so that a job that fails before has
    destroyed nothing. Left without an exception the output is complete; left with one it holds whole records only.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool,
        resume: bool,
        retry_errors: bool,
        force: bool,
        clock: Callable[[], float],
    ) -> None:
        self.resumed = Resumed()
        self._name = str(path)
        self._path = Path(os.path.realpath(path))
        self._retry_errors = retry_errors
        self._force = force
        self._clock = clock
        self._due = clock() + CHECKPOINT_SECONDS
        self._fingerprint: Mapping[str, Any] | None = None
        self._progress = InputProgress()
        self._stream: io.FileIO | None = None
        self._size = 0
        self._redone: io.FileIO | None = None
        self._group: list[bytes] = []
        self._written = 0
        with _faults(self._name):
            self._lock = _lock(self._path, self._name)
            try:
                self._continues = self._may_continue(overwrite, resume)
            except BaseException:
                _unlock(self._lock)
                raise
