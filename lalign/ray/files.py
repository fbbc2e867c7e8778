"""The files of an input and of an output: what they hold, read where a worker runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lalign.errors import InputError, OutputError
from lalign.jobs.resume import read_records
from lalign.records.source import RawLine, json_lines, open_lines

Format = Literal["jsonl", "parquet"]
LINES = pa.schema([("line", pa.int64()), ("data", pa.binary())])
_JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")
_PARQUET = (".parquet",)
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of an input: its lines are numbered from `first` on, as those of all files in one after another.

    lines: blank ones too; for Parquet, its rows. digest: SHA-256 of the file as it is stored.
    """

    path: Path
    lines: int
    digest: str
    first: int = 1


def input_paths(source: Path) -> tuple[list[Path], Format]:
    """The files of a folder in the order of their names, or the file itself, and their format by their suffix.

    Raises `InputError` where there are none, or of both formats.
    """
    if not source.is_dir():
        if not source.exists():
            raise InputError(f"{source}: No such file or directory")
        return [source], "parquet" if source.name.endswith(_PARQUET) else "jsonl"
    shown = [path for path in sorted(source.iterdir()) if path.name[0] not in "._"]
    lines = [path for path in shown if path.name.endswith(_JSON_LINES)]
    tables = [path for path in shown if path.name.endswith(_PARQUET)]
    if lines and tables:
        raise InputError(f"{source}: holds JSON Lines and Parquet files; one folder is read as one format")
    if not lines and not tables:
        raise InputError(f"{source}: holds no files that end in {', '.join((*_JSON_LINES, *_PARQUET))}")
    return (lines, "jsonl") if lines else (tables, "parquet")


def survey(path: Path, form: Format) -> InputFile:
    """What a file holds; reads all of it. Raises `InputError`."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        lines = int(pq.read_metadata(path).num_rows) if form == "parquet" else _physical_lines(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return InputFile(path, lines, digest.hexdigest())


def numbered(files: Sequence[InputFile]) -> list[InputFile]:
    """The files with the number of the first line of each."""
    firsts = accumulate((file.lines for file in files), initial=1)
    return [InputFile(file.path, file.lines, file.digest, first) for file, first in zip(files, firsts, strict=False)]


def read_blocks(file: InputFile, form: Format, answered: NDArray[np.uint8], rows: int) -> Iterator[pa.Table]:
    """The lines of a file that are not answered yet, `rows` a block, as `Align` takes them. Raises `InputError`."""
    numbers: list[int] = []
    data: list[bytes | None] = []
    for raw in _rows(file) if form == "parquet" else _lines(file):
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
    with open_lines(file.path) as stream:
        for raw in json_lines(stream, str(file.path)):
            yield RawLine(file.first - 1 + raw.number, raw.data, raw.too_long)


def _rows(file: InputFile) -> Iterator[RawLine]:
    """Rows as JSON, in which an empty cell is null; what JSON has no form for becomes text."""
    try:
        with pq.ParquetFile(file.path) as table:
            batches = table.iter_batches(batch_size=1024)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, file.first):
                yield RawLine(number, orjson.dumps(row, default=str))
    except (OSError, pa.ArrowInvalid, TypeError) as error:
        raise InputError(f"{file.path}: {error}") from error


def _physical_lines(path: Path) -> int:
    with open_lines(path) as stream:
        ends, last = 0, b"\n"
        while block := stream.read(_BLOCK_BYTES):
            ends += block.count(b"\n")
            last = block[-1:]
        return ends + (last != b"\n")


def output_lines(path: Path, form: Format) -> tuple[NDArray[np.int64], int]:
    """The input lines that a file of an output answers, and its error records. Raises `OutputError`."""
    try:
        if form == "jsonl":
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
