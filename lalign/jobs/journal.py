"""Where finished records go: to a stream, or to a file over which a job may be killed at any moment and resumed.

Records are written whole and never buffered, so each one that `write` has taken outlives the process. Beside a file
stand its header (`.run.json`), and while a job runs its lock (`.lock`) and the records it redoes (`.retry`).
"""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from filelock import FileLock, Timeout

from lalign.errors import OptionError, OutputError
from lalign.jobs.header import Header, InputProgress, beside, differences, read_header, write_header
from lalign.jobs.resume import SEAL, Resumed, merge_redone, redone_path, scan
from lalign.jobs.stream import StreamJournal, faults, stdout, write_all

CHECKPOINT_SECONDS = 2.0


def open_journal(
    path: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    retry_errors: bool = False,
    force: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Journal | StreamJournal:
    """Opens the output of one job, before any other work. None or `-` is stdout; pipes and devices are streams too.

    `clock` counts seconds. Raises `OutputError` where the output cannot be written or must not be, `OptionError` for
    options that do not go together.
    """
    if resume and overwrite:
        raise OptionError("resume", "does not go with overwrite")
    if not resume and (retry_errors or force):
        raise OptionError("retry_errors" if retry_errors else "force", "only goes with resume")
    path = Path("-" if path is None else path)
    with faults(str(path)):
        if str(path) != "-" and not _is_stream(path):
            return Journal(
                path, overwrite=overwrite, resume=resume, retry_errors=retry_errors, force=force, clock=clock
            )
        if resume:
            raise OptionError("resume", "needs an output file, not a stream")
        if str(path) == "-":
            return StreamJournal(stdout(), "stdout", owned=False)
        return StreamJournal(io.FileIO(path, "w"), str(path), owned=True)


class Journal:
    """Records to a file, under an exclusive lock from here until the journal is left.

    The file stays as it was until `start` resumes it or the first record comes, so that a job that fails before that
    has destroyed nothing. Left by an exception, it holds the whole records written so far. Leaving it raises
    `OutputError` for a fault of the disk that `write` or `sync` have not raised already.
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
        self._faulty = False
        self._lock = _lock(self._path, self._name)
        try:
            self._continues = self._may_write(overwrite, resume) and resume
            self._stored = self._stored_header() if self._continues else None
        except BaseException:
            _unlock(self._lock)
            raise

    def start(self, fingerprint: Mapping[str, Any]) -> Resumed:
        """Says under which settings the records will be made, and gives what stands of an earlier run.

        Raises `OutputError` where a resumed output was made under others, each named, or is damaged before its end.
        """
        self._fingerprint = fingerprint
        if not self._continues:
            return self.resumed
        if self._stored is not None and not self._force:
            if found := differences(self._stored.fingerprint, fingerprint):
                raise OutputError(
                    f"{self._name}: was made with other settings ({'; '.join(found)}); --force resumes it all the same"
                )
            self._progress = InputProgress(self._stored.input_lines, self._stored.input_sha256)
        with faults(self._name):
            merge_redone(self._path, self._name)
            self.resumed, size = scan(self._path, self._name, retry_errors=self._retry_errors)
            # The last line may lack records still, so only those before it are known to be answered.
            self._progress.answer(self.resumed.last_line - 1)
            self._begin(size)
            if self.resumed.redo:
                self._redone = io.FileIO(redone_path(self._path), "w")
        return self.resumed

    def write(self, record: bytes, *, line: int, last: bool = True) -> None:
        """Takes the next record, a JSON line with its newline, of input line `line`; `last` of those of that line.

        Records come in input order, without those that stand. Raises `OutputError` for a fault of the disk, after
        which the file ends with the last record that was taken.
        """
        with self._faults():
            if self._stream is None:
                self._begin(0)
            if self._redone is not None and self.resumed.redoes(line):
                self._redo(self._redone, record, last)
            else:
                self._merge()
                self._append(record)
        if last:
            self._progress.answer(line)
        if self._clock() >= self._due:
            self.sync()

    def mark_input(self, lines: int, sha256: str) -> None:
        """Gives the digest of the first `lines` lines of the input, as they are read; remembered once all are answered.

        Raises `InputError` where the earlier run read other lines.
        """
        self._progress.mark(lines, sha256)

    def end_input(self) -> None:
        """Says that the whole input was read. Raises `InputError` where the earlier run read more."""
        self._progress.end()

    def sync(self) -> None:
        """Brings records and header to the disk; `write` does so every 2 s. Raises `OutputError`."""
        if self._stream is None:
            return
        with self._faults():
            if not _is_at(self._path, self._stream):
                raise OutputError(f"{self._name}: was moved or deleted while the job wrote it")
            os.fsync(self._stream.fileno())
            if self._redone is not None:
                os.fsync(self._redone.fileno())
            self._store_header()
        self._due = self._clock() + CHECKPOINT_SECONDS

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told = self._faulty
        try:
            with self._faults():
                if error is None and self._stream is None and self._fingerprint is not None:
                    self._begin(0)
                self._merge()
            self.sync()
        except OutputError:
            if not told:
                raise
        finally:
            for file in (self._stream, self._redone):
                if file is not None:
                    file.close()
            _unlock(self._lock)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """As `faults`, and remembers that there was one, so that it is told once."""
        try:
            with faults(self._name, self.resumed.records + self._written):
                yield
        except OutputError:
            self._faulty = True
            raise

    def _may_write(self, overwrite: bool, resume: bool) -> bool:
        """Whether there is anything in the file."""
        if not self._path.exists():
            return False
        if not overwrite and not resume:
            raise OutputError(f"{self._name}: exists; --overwrite replaces it, --resume continues it")
        with open(self._path, "ab"):
            return self._path.stat().st_size > 0

    def _stored_header(self) -> Header | None:
        try:
            stored = read_header(self._path)
            if stored is None:
                raise OutputError(f"{self._name}: has no header beside it, so its settings are unknown")
        except OutputError as error:
            if self._force:
                return None
            raise OutputError(f"{error}; --force resumes it all the same") from error
        return stored

    def _begin(self, size: int) -> None:
        """Makes the file this run's, with its first `size` bytes."""
        self._stream = io.FileIO(self._path, "a")
        self._stream.truncate(size)
        self._size = size
        redone_path(self._path).unlink(missing_ok=True)
        self._store_header()

    def _append(self, record: bytes) -> None:
        stream = cast(io.FileIO, self._stream)
        try:
            write_all(stream, record)
        except BaseException:
            with suppress(OSError):
                stream.truncate(self._size)
            raise
        self._size += len(record)
        self._written += 1

    def _redo(self, redone: io.FileIO, record: bytes, last: bool) -> None:
        self._group.append(record)
        if last:
            write_all(redone, b"".join([*self._group, SEAL]))
            self._written += len(self._group)
            self._group.clear()

    def _merge(self) -> None:
        if self._redone is None or self._stream is None:
            return
        self._redone.close()
        self._stream.close()
        merge_redone(self._path, self._name)
        self._stream = io.FileIO(self._path, "a")
        self._size = self._path.stat().st_size
        # Last, so that a merge that a signal cut short is taken up again when the journal is left.
        self._redone = None

    def _store_header(self) -> None:
        if self._fingerprint is None:
            raise RuntimeError("start comes before write")
        write_header(self._path, Header(self._fingerprint, *self._progress.settled))


def _lock(path: Path, name: str) -> FileLock:
    # The lock makes missing folders, and its messages name the lock, so what is wrong with the path is said before.
    if not path.parent.is_dir():
        raise OutputError(f"{name}: its folder does not exist")
    if path.exists() and not path.is_file():
        raise OutputError(f"{name}: is not a file")
    lock = FileLock(beside(path, ".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(f"{name}: is being written by another lalign job") from error
    return lock


def _unlock(lock: FileLock) -> None:
    # Removed while held: whoever opened it before gets the lock of a file that is gone, which filelock refuses.
    with suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _is_at(path: Path, stream: io.FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False
