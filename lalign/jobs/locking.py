"""Who may write an output: one job, told by a lock beside the path and by one on the file itself.

The lock beside the path holds while there is no output yet. The one on the file holds on when somebody removes the
other, and goes with the file and not with its name.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lalign.errors import OutputError
from lalign.jobs.header import beside


class PathLock:
    """The lock beside an output. Raises `OutputError` where another job has it, or the path cannot be an output's."""

    def __init__(self, output: Path, name: str) -> None:
        # Acquiring makes missing folders, and its messages name the lock, so what is wrong is said before.
        if not output.parent.is_dir():
            raise OutputError(f"{name}: its folder does not exist")
        if output.exists() and not output.is_file():
            raise OutputError(f"{name}: is not a file")
        self._path = beside(output, ".lock")
        self._lock = FileLock(self._path, timeout=0)
        try:
            self._lock.acquire()
            # Kept open by the lock, so no other file can get its number.
            self._file = os.stat(self._path)
        except Timeout as error:
            raise _is_taken(name) from error

    def release(self) -> None:
        """Give it back. What is at its path by now is removed only where it is this lock."""
        # Removed while held: whoever opened it before gets the lock of a file that is gone, which filelock refuses.
        with suppress(OSError):
            if os.path.samestat(os.stat(self._path), self._file):
                os.unlink(self._path)
        self._lock.release()


def hold(stream: io.FileIO, name: str) -> None:
    """Lock a file until it is closed. Raises `OutputError` where another job holds it."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _is_taken(name) from error


def _is_taken(name: str) -> OutputError:
    return OutputError(f"{name}: is being written by another lalign job")
