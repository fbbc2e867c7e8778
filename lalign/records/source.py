"""Raw lines from a file or stdin, one at a time, whatever their number and length (design section 4)."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import shlex
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from lalign.errors import InputError
from lalign.records.formats import refuse_other_formats

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

MAX_LINE_BYTES = 64 << 20
"""The longest line that is taken, its line feed not counted."""

_BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20
READ_ERRORS = (OSError, EOFError, zlib.error, zstd.ZstdError)


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as it stands in the input, without its line ending.

    `number` counts physical lines from 1, blank ones too. `too_long` marks a line of more than `MAX_LINE_BYTES`,
    whose data is left out.
    """

    number: int
    data: bytes
    too_long: bool = False


def open_source(path: Path | None) -> BinaryIO:
    """The input as a stream of bytes: stdin for None and `-`, else a file, decompressed where it is called .gz or .zst.

    Raises `InputError` where it cannot be opened.
    """
    if path is None or str(path) == "-":
        # Python sets it to None where the process was started with stdin closed, whatever its annotation says.
        if cast(Any, sys.stdin) is None:
            raise InputError("stdin: closed")
        return _of_its_own(sys.stdin.buffer)
    try:
        return decompressed(path)
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not a file{_files_in(path)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {read_error(error)}") from error


def decompressed(path: Path) -> io.BufferedReader:
    """A file's bytes, decompressed where it is called .gz or .zst. Raises `OSError` or `ValueError`."""
    match path.suffix.lower():
        case ".gz":
            return cast(io.BufferedReader, gzip.open(path))
        case ".zst":
            return cast(io.BufferedReader, zstd.open(path))
    return path.open("rb")


def open_lines(path: Path | None) -> BinaryIO:
    """As `open_source`, of what must be JSON Lines: a file that is of another format is refused at once.

    What comes through a pipe is looked at only when it is read, by `json_lines`, since it may yet have to be made.
    """
    stream = open_source(path)
    if _is_file(stream):
        _check_format(stream, "stdin" if path is None or str(path) == "-" else str(path))
    return stream


def json_lines(stream: BinaryIO, name: str) -> Iterator[RawLine]:
    """As `read_lines`, of what must be JSON Lines. Raises `InputError` where it is of another format."""
    _check_format(stream, name)
    yield from read_lines(stream, name)


def _check_format(stream: BinaryIO, name: str) -> None:
    try:
        refuse_other_formats(stream, name)
    except READ_ERRORS as error:
        raise InputError(f"{name}:1: {read_error(error)}") from error


def _is_file(stream: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except io.UnsupportedOperation:
        return False


def _of_its_own(stream: BinaryIO) -> BinaryIO:
    # Python closes sys.stdin when it ends, and aborts where the thread that reads ahead is waiting in it.
    if not isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(io.FileIO(stream.fileno(), closefd=False))


def read_lines(stream: BinaryIO, name: str) -> Iterator[RawLine]:
    """Every line of `stream` that is not blank, each as soon as it is complete.

    A byte order mark at the start and line endings (LF or CRLF) are dropped; the last line needs none. No more than
    one line is held in memory, and none beyond `MAX_LINE_BYTES`. Raises `InputError` ("name:line: reason") where
    reading fails, after the complete lines before it.
    """
    for number in itertools.count(1):
        try:
            data = stream.readline(MAX_LINE_BYTES + 1)
            ended = data.endswith(b"\n")
            too_long = len(data) > MAX_LINE_BYTES and not ended
            if too_long:
                ended = _skip_line(stream)
        except READ_ERRORS as error:
            raise InputError(f"{name}:{number}: {read_error(error)}") from error
        if number == 1:
            data = data.removeprefix(_BOM)
        if too_long:
            yield RawLine(number, b"", too_long=True)
        elif data and not data.isspace():
            yield RawLine(number, data.rstrip(b"\r\n"))
        # Not to be read on: what a growing file gets from now on would pass for a line of its own.
        if not ended:
            return


def filled_lines(path: Path | None) -> Iterator[int] | None:
    """The numbers of the lines `read_lines` would yield, or None where only reading the input itself would tell.

    They are read as they are asked for, and end where that fails.
    """
    if path is None or str(path) == "-" or path.suffix.lower() in (".gz", ".zst"):
        return None
    try:
        if not path.is_file():
            return None
        return _filled(path.open("rb"))
    except (OSError, ValueError):
        return None


def _filled(file: BinaryIO) -> Iterator[int]:
    with file, suppress(OSError):
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
        number, filled = 1, False
        while block := file.read(_BLOCK_BYTES):
            end_of_line, *lines = block.split(b"\n")
            filled = filled or bool(end_of_line.strip())
            for line in lines:
                if filled:
                    yield number
                number += 1
                filled = bool(line.strip())
        if filled:
            yield number


def _skip_line(stream: BinaryIO) -> bool:
    """Reads to the end of the line; False where the stream ended first."""
    while rest := stream.readline(_BLOCK_BYTES):
        if rest.endswith(b"\n"):
            return True
    return False


def _files_in(folder: Path) -> str:
    """How to read the JSON Lines of a folder, as the end of a message."""
    with suppress(OSError):
        names = {path.suffix.lower() for path in folder.iterdir()}
        suffix = next((suffix for suffix in (".jsonl", ".ndjson", ".json") if suffix in names), None)
        if suffix is not None:
            return f"; for all of its {suffix} files: cat {shlex.quote(str(folder))}/*{suffix}"
    return ""


def read_error(error: Exception) -> str:
    """Why reading failed, in a few words."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
