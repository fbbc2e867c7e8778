"""The input of a job as one stream of lines, be it a file, a table, or several of them."""

from __future__ import annotations

import glob
import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

from lalign.errors import InputError
from lalign.records.arrays import is_array
from lalign.records.source import READ_ERRORS, filled_lines, open_lines, open_source, read_error
from lalign.records.tables import is_table, leaves_out_a_column, table_lines, table_rows

_BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20


class Chunks(io.RawIOBase):
    """Pieces of bytes, as they come, as a stream."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """As `io.RawIOBase.readinto`: what is at hand, and 0 at the end."""
        while not self._rest:
            if (piece := next(self._pieces, None)) is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Known(io.BufferedReader):
    """What is JSON Lines for sure, and so is not looked into for signs of another format."""

    peek = None  # type: ignore[assignment]


def streamed(pieces: Iterable[bytes]) -> BinaryIO:
    """A stream of the pieces, which are known to be JSON Lines."""
    return cast(BinaryIO, _Known(Chunks(pieces), _BLOCK_BYTES))


class Inputs:
    """What is read, in this order and as if it were one file: lines are numbered through all of them.

    Args:
        paths: of JSON Lines, tables and folders of data sets; none, or `-`, is stdin.

    Raises `InputError` where stdin is one of several.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._starts = [1]
        if len(paths) > 1 and any(str(path) == "-" for path in paths):
            raise InputError("stdin: cannot be one of several inputs")

    @cached_property
    def _arrays(self) -> frozenset[Path]:
        return frozenset(path for path in self.paths if is_array(path))

    @property
    def stdin(self) -> bool:
        """Whether stdin is read."""
        return not self.paths or str(self.paths[0]) == "-"

    @property
    def read_once(self) -> bool:
        """Whether what is read cannot be read again: stdin and pipes."""
        return self.stdin or not all(path.is_file() or path.is_dir() for path in self.paths)

    @property
    def name(self) -> str:
        """What it is called."""
        if self.stdin:
            return "stdin"
        more = len(self.paths) - 1
        return f"{self.paths[0]}{f' and {more} more' if more else ''}"

    def place(self, line: int) -> str:
        """Where a line that was read stands: its file, and its number there."""
        if self.stdin:
            return f"{self.name}:{line}"
        file = bisect_right(self._starts, line) - 1
        path, number = self.paths[file], line - self._starts[file] + 1
        return f"{path}: element {number}" if path in self._arrays else f"{path}:{number}"

    def notices(self) -> list[str]:
        """What is to be told of the files themselves, once they were opened. Raises `InputError`."""
        return [
            f"{path}: its first column, which has no name, is left out"
            for path in self.paths
            if not self.stdin and leaves_out_a_column(path, open_source)
        ]

    def open(self) -> BinaryIO:
        """All of it as JSON Lines. Raises `InputError` where a file cannot be read or is of another format."""
        if self.stdin:
            return open_lines(None)
        if len(self.paths) == 1 and not is_table(self.paths[0]):
            return open_lines(self.paths[0])
        self._starts = [1]
        for path in self.paths:
            _check(path)
        return streamed(self._all())

    def filled(self) -> Iterator[int] | None:
        """The numbers of the lines that are not blank; None where only reading it all would tell."""
        if len(self.paths) != 1:
            return None
        path = self.paths[0]
        if not is_table(path):
            return filled_lines(path)
        rows = table_rows(path, open_source)
        return None if rows is None else iter(range(1, rows + 1))

    def _all(self) -> Iterator[bytes]:
        line = 1
        for number, path in enumerate(self.paths):
            if number:
                self._starts.append(line)
            try:
                for piece in _pieces(path):
                    line += piece.count(b"\n")
                    yield piece
            except READ_ERRORS as error:
                raise InputError(f"{self.place(line)}: {read_error(error)}") from error


def named(words: Sequence[Path]) -> list[Path]:
    """The files that words of a command line name: a word that is no file and has `*`, `?` or `[` names all that fit.

    In the order of the words, those of one pattern by name. Raises `InputError` for a pattern that nothing fits.
    """
    found: list[Path] = []
    for word in words:
        if glob.has_magic(str(word)) and not word.exists():
            fitting = sorted(glob.glob(str(word), recursive=True))
            if not fitting:
                raise InputError(f"{word}: no file fits this pattern")
            found += map(Path, fitting)
        else:
            found.append(word)
    return found


def _check(path: Path) -> None:
    """Raise `InputError` where a file cannot be read, before the others are."""
    if is_table(path):
        try:
            next(iter(table_lines(path, open_source)), None)
        except READ_ERRORS as error:
            raise InputError(f"{path}:1: {read_error(error)}") from error
    elif not path.is_fifo():
        open_lines(path).close()


def _pieces(path: Path) -> Iterator[bytes]:
    """A file's bytes without a byte order mark, and with a line end at their end."""
    if is_table(path):
        yield from table_lines(path, open_source)
        return
    ended = True
    with open_lines(path) as stream:
        first = True
        while block := cast(io.BufferedReader, stream).read1(_BLOCK_BYTES):
            block = block.removeprefix(_BOM) if first else block
            first = False
            ended = block.endswith(b"\n") if block else ended
            yield block
    if not ended:
        yield b"\n"
