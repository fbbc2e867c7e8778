"""The files of an input and of an output: what they hold, read where a worker runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lalign.errors import InputError, OutputError
from lalign.jobs.reader import JobInput
from lalign.jobs.resume import read_records
from lalign.records.formats import plain_suffix
from lalign.records.inputs import Inputs
from lalign.records.parquet_folders import only_split, parquet_files
from lalign.records.reading import Reading
from lalign.records.source import READ_ERRORS, RawLine, json_lines, open_source, read_error
from lalign.records.tables import files_of, is_saved, table_rows

Format = Literal["jsonl", "parquet"]
LINES = pa.schema([("line", pa.int64()), ("data", pa.binary())])
# What is read of a folder, by the suffix before one of compression.
_KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON Lines"),
    ".csv": "CSV",
    ".tsv": "TSV",
    ".arrow": "Arrow",
    ".parquet": "Parquet",
}
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of an input: its lines are numbered from `first` on, as those of all files in one after another.

    lines: blank ones too; of a table, as `records.tables` makes them of its rows. filled: those that are not blank.
    digest: SHA-256 of the file as it is stored.
    """

    path: Path
    lines: int
    filled: int
    digest: str
    first: int = 1


def input_paths(source: Path) -> tuple[list[Path], Format]:
    """The files of a folder in the order of their names, or the file itself, and the format of the answers to them.

    Raises `InputError` where there are none, or of several formats or splits.
    """
    if is_saved(source) or source.is_file():
        return [source], _answered_as(source)
    if parquet_files(source):
        return only_split(source), "parquet"
    if not source.exists():
        raise InputError(f"{source}: No such file or directory")
    if not source.is_dir():
        raise InputError(f"{source}: is neither a file nor a folder, so that not every worker could read it")
    shown = [path for path in sorted(source.iterdir()) if path.name[0] not in "._" and path.is_file()]
    paths = [path for path in shown if plain_suffix(path) in _KINDS]
    if not paths:
        raise InputError(f"{source}: holds no files that end in {', '.join(_KINDS)}, or so with .gz or .zst")
    kinds = sorted({_KINDS[plain_suffix(path)] for path in paths})
    if len(kinds) > 1:
        named = f"{', '.join(kinds[:-1])} and {kinds[-1]}"
        raise InputError(f"{source}: holds {named} files; one folder is read as one format")
    return paths, _answered_as(paths[0])


def _answered_as(path: Path) -> Format:
    return "parquet" if path.suffix.lower() == ".parquet" else "jsonl"


def as_input(paths: Sequence[Path], reading: Reading) -> JobInput:
    """The same files as a job in one process reads them."""
    return JobInput(paths[0], more=tuple(paths[1:]), reading=reading)


def survey(path: Path) -> InputFile:
    """What a file holds; reads all of it. Raises `InputError`."""
    digest = hashlib.sha256()
    try:
        rows = table_rows(path, open_source)
        with Inputs([path]).open() as stream:
            lines, filled = _counted(stream) if rows is None else (rows, rows)
        for stored in files_of(path):
            with stored.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
    except READ_ERRORS as error:
        raise InputError(f"{path}: {read_error(error)}") from error
    return InputFile(path, lines, filled, digest.hexdigest())


def numbered(files: Sequence[InputFile]) -> list[InputFile]:
    """The files with the number of the first line of each."""
    firsts = accumulate((file.lines for file in files), initial=1)
    return [replace(file, first=first) for file, first in zip(files, firsts, strict=False)]


def read_blocks(file: InputFile, answered: NDArray[np.uint8], rows: int) -> Iterator[pa.Table]:
    """The lines of a file that are not answered yet, `rows` a block, as `Align` takes them. Raises `InputError`."""
    numbers: list[int] = []
    data: list[bytes | None] = []
    for raw in _lines(file):
        if holds(answered, raw.number):
            continue
        numbers.append(raw.number)
        data.append(None if raw.too_long else raw.data)
        if len(numbers) == rows:
            yield pa.table([pa.array(numbers, pa.int64()), pa.array(data, pa.binary())], LINES)
            numbers, data = [], []
    if numbers:
        yield pa.table([pa.array(numbers, pa.int64()), pa.array(data, pa.binary())], LINES)


def _lines(file: InputFile) -> Iterator[RawLine]:
    with Inputs([file.path]).open() as stream:
        for raw in json_lines(stream, str(file.path)):
            yield RawLine(file.first - 1 + raw.number, raw.data, raw.too_long)


def _counted(stream: BinaryIO) -> tuple[int, int]:
    """How many lines there are, and how many of them are not blank."""
    lines, filled, is_filled, last = 0, 0, False, b"\n"
    while block := stream.read(_BLOCK_BYTES):
        begun, *others = block.split(b"\n")
        is_filled = is_filled or bool(begun.strip())
        for line in others:
            filled += is_filled
            is_filled = bool(line.strip())
        lines += len(others)
        last = block[-1:]
    return lines + (last != b"\n"), filled + is_filled


def output_lines(path: Path) -> tuple[NDArray[np.int64], int]:
    """The input lines that a file of an output answers, and its error records. Raises `OutputError`."""
    try:
        if path.suffix == ".jsonl":
            records = list(read_records(path, str(path)))
            if path.stat().st_size != (records[-1].end if records else 0):
                raise OutputError(f"{path}: ends in a record that was cut short")
            lines = np.array([record.line for record in records], np.int64)
            failures = sum(record.failed for record in records)
        else:
            table = pq.read_table(path, columns=["line", "error"])
            lines = table["line"].to_numpy()
            failures = len(lines) - table["error"].null_count
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return np.unique(lines), failures


def bitmap(lines: Sequence[NDArray[np.int64]], last: int) -> NDArray[np.uint8]:
    """Sets of lines as one, a bit a line up to `last`. Raises `OutputError` for one beyond, or in two of the sets."""
    marks = np.zeros(last + 1, np.bool_)
    for some in lines:
        if some.size and (some[-1] > last or some[0] < 1):
            raise OutputError(f"line {some[-1] if some[-1] > last else some[0]} of the output is none of the input")
        if (twice := some[marks[some]]).size:
            raise OutputError(f"line {twice[0]} of the input is answered in two files of the output")
        marks[some] = True
    return np.packbits(marks, bitorder="little")


def holds(marks: NDArray[np.uint8], line: int) -> bool:
    """Whether a line is in a set that `bitmap` has made."""
    return bool(marks[line >> 3] >> (line & 7) & 1)
