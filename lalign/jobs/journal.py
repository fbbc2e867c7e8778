"""Records to a file over which a job may be killed at any moment and resumed.

Records are written whole and never buffered, so each one that `write` has taken outlives the process. Beside a file
stand its header (`.run.json`), and while a job runs its lock (`.lock`) and the records it redoes (`.retry`). A job
writes to the file it opened and to no other that comes by its name, and beside it only while it has that name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from lalign.errors import OutputError
from lalign.jobs.answered import AnsweredInput
from lalign.jobs.header import End, Header, differences, read_header, write_header
from lalign.jobs.locking import PathLock, hold
from lalign.jobs.paths import check_replaceable
from lalign.jobs.resume import Redone, Resumed, merge_redone, redone_path, scan, seal
from lalign.jobs.stream import faults, write_all

CHECKPOINT_SECONDS = 2.0
# What a difference of some settings comes from, where their names do not say it.
_CAUSES = {"rendered": "the chat template writes prompts in another way than it did, as one does that prints the date"}


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
        resume: bool | None,
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
        self._answered = AnsweredInput()
        self._end: End | None = None
        self._digests: dict[int, int] = {}
        self._begun = False
        self._size = 0
        self._redone: io.FileIO | None = None
        self._group: list[bytes] = []
        self._responded = False
        self._written = 0
        self._faulty = False
        self._lock = PathLock(self._path, self._name)
        self._stream: io.FileIO | None = None
        try:
            self._stream = self._existing(overwrite, resume)
            self._continues = bool(resume) and self._stream is not None and os.fstat(self._stream.fileno()).st_size > 0
            self._stored = self._stored_header() if self._continues else None
        except BaseException:
            self._close()
            raise

    def start(self, fingerprint: Mapping[str, Any], points: int = 1) -> Resumed:
        """As `Output.start`.

        Raises `OutputError` where a resumed output was made under other settings, each named, or is damaged before its
        end: its lines must be whole records in order, and each input line have as many as belong to it.
        """
        self._fingerprint = fingerprint
        if not self._continues:
            return self.resumed
        trusted = self._stored is not None and not self._force
        if self._stored is not None and trusted:
            self._compare(self._stored.fingerprint, fingerprint)
            self._answered = AnsweredInput(self._stored.input)
            self._end = self._stored.end
        with self._faults():
            self._check_place()
            expected = points if trusted else None
            if redone_path(self._path).exists():
                scan(self._path, self._name, retry_errors=False, points=expected)
                self._replace_redone()
            self.resumed, size = scan(self._path, self._name, retry_errors=self._retry_errors, points=expected)
            if trusted:
                self.resumed = replace(self.resumed, input=self._answered.mark())
            self._begin(size)
            if self.resumed.redo:
                self._redone = io.FileIO(redone_path(self._path), "w")
        self._responded = self.resumed.partial_responses > 0
        return self.resumed

    def mark(self, line: int, digest: int) -> None:
        """As `Output.mark`; remembered once the line is answered."""
        if self._answered.lines < line <= self.resumed.last_line:
            self._answered.answer(line, digest, failed=self.resumed.has_failed(line))
        else:
            self._digests[line] = digest

    def write(self, record: bytes, *, line: int, last: bool = True, failed: bool = False) -> None:
        """As `Output.write`, of records that do not stand. After a fault the file ends with the last that was taken."""
        self._end = None
        self._responded = self._responded or not failed
        with self._faults():
            if not self._begun:
                self._begin(0)
            if self._redone is not None and self.resumed.redoes(line):
                self._redo(self._redone, record, line, last)
            else:
                self._merge()
                self._append(record)
        if last:
            if (digest := self._digests.pop(line, None)) is not None:
                self._answered.answer(line, digest, failed=not self._responded)
            self._responded = False
        if self._clock() >= self._due:
            self.sync()

    def finish(self, last_line: int, lines: int) -> None:
        """As `Output.finish`; the header says so from the next `sync` on."""
        self._end = End(last_line, lines)

    def sync(self) -> None:
        """As `Output.sync`; `write` does so every 2 s. Raises `OutputError` where others changed the file too."""
        if not self._begun:
            return
        with self._faults():
            self._check_place()
            os.fsync(self._open.fileno())
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
                if error is None and not self._begun and self._fingerprint is not None:
                    self._begin(0)
                self._merge()
            self.sync()
        except OutputError:
            if not told:
                raise
        finally:
            self._close()

    @property
    def _open(self) -> io.FileIO:
        return cast(io.FileIO, self._stream)

    def _close(self) -> None:
        for file in (self._stream, self._redone):
            if file is not None:
                file.close()
        self._lock.release()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """As `faults`, and remembers that there was one, so that it is told once."""
        try:
            with faults(self._name, self.resumed.records + self._written):
                yield
        except OutputError:
            self._faulty = True
            raise

    def _existing(self, overwrite: bool, resume: bool | None) -> io.FileIO | None:
        if not self._path.exists():
            return None
        check_replaceable(self._name, overwrite=overwrite, resume=resume)
        stream = io.FileIO(self._path, "a")
        try:
            hold(stream, self._name)
        except BaseException:
            stream.close()
            raise
        self._size = os.fstat(stream.fileno()).st_size
        return stream

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

    def _compare(self, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
        if not (found := differences(stored, current)):
            return
        causes = [cause for name, cause in _CAUSES.items() if stored.get(name) != current.get(name)]
        told = "; ".join([*found, *causes])
        raise OutputError(f"{self._name}: was made with other settings ({told}); --force resumes it all the same")

    def _check_place(self) -> None:
        """Raises `OutputError` where the file is no more at its path, or not as this job left it."""
        if not _is_at(self._path, self._open):
            raise OutputError(f"{self._name}: was moved or deleted while the job wrote it")
        if os.fstat(self._open.fileno()).st_size != self._size:
            raise OutputError(f"{self._name}: was changed by another process while the job wrote it")

    def _begin(self, size: int) -> None:
        """Makes the file this run's, with its first `size` bytes."""
        if self._stream is None:
            try:
                self._stream = io.FileIO(self._path, "a", opener=_create)
            except FileExistsError:
                raise OutputError(f"{self._name}: was written by another process while the job began") from None
            hold(self._stream, self._name)
        self._check_place()
        self._open.truncate(size)
        self._size = size
        self._begun = True
        redone_path(self._path).unlink(missing_ok=True)
        self._store_header()

    def _append(self, record: bytes) -> None:
        try:
            write_all(self._open, record)
        except BaseException:
            with suppress(OSError):
                if os.fstat(self._open.fileno()).st_size > self._size:
                    self._open.truncate(self._size)
            raise
        self._size += len(record)
        self._written += 1

    def _redo(self, redone: io.FileIO, record: bytes, line: int, last: bool) -> None:
        self._group.append(record)
        if last:
            write_all(redone, b"".join([*self._group, seal(self._digests.get(line, 0))]))
            self._written += len(self._group)
            self._group.clear()

    def _merge(self) -> None:
        if self._redone is None or not self._begun:
            return
        if self._redone.tell():
            self._replace_redone()
        self._redone.close()
        redone_path(self._path).unlink()
        # Last, so that a merge that a signal cut short is taken up again when the journal is left.
        self._redone = None

    def _replace_redone(self) -> None:
        """Puts redone records in their places, and the header to them."""
        self._check_place()
        done, stream = merge_redone(self._path, self._name, self._check_place)
        self._open.close()
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size
        for line in done:
            self._note_redone(line)
        self._store_header()

    def _note_redone(self, redone: Redone) -> None:
        if redone.line <= self._answered.lines:
            self._answered.answer(redone.line, redone.digest, failed=redone.failed)

    def _store_header(self) -> None:
        if self._fingerprint is None:
            raise RuntimeError("start comes before write")
        write_header(self._path, Header(self._fingerprint, self._answered.mark(), self._end))


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, 0o666)


def _is_at(path: Path, stream: io.FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        return False
