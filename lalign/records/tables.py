"""Tables as JSON Lines: CSV, Parquet, JSON arrays, and folders of data sets, one row after the other.

The line of a row is its number in the file: in CSV where it begins, the header's line and blank ones counted; of the
others, whose rows are no lines, the row's own from 1.
"""

from __future__ import annotations

import csv
import io
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from lalign.errors import InputError, first_line
from lalign.records.arrays import array_elements, is_array
from lalign.records.formats import plain_suffix
from lalign.records.parquet_folders import only_split, parquet_files

# Rows made Python objects at a time.
_ROWS = 64
# Columns of text that stand for numbers, as those of a CSV file all do.
_NUMBERS = frozenset(
    [
        *("ratio", "p", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"),
        *("max_new_tokens", "max_completion_tokens", "max_tokens"),
    ]
)
_DIALECTS = {".csv": "excel", ".tsv": "excel-tab"}


def is_table(path: Path) -> bool:
    """Whether a path names a table, by its suffix or, of a folder and of .json, by what it holds."""
    if plain_suffix(path) in _DIALECTS or path.suffix.lower() in (".parquet", ".arrow"):
        return True
    return is_array(path) or is_dataset(path)


def is_dataset(path: Path) -> bool:
    """Whether a folder is one that the library datasets saved, or holds Parquet files."""
    return is_saved(path) or (path.is_dir() and bool(parquet_files(path)))


def is_saved(path: Path) -> bool:
    """Whether a folder is one that the library datasets saved."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def leaves_out_a_column(path: Path, opened: Callable[[Path], BinaryIO]) -> bool:
    """Whether a table is CSV whose first column has no name, which is left out. Raises `InputError`."""
    if plain_suffix(path) not in _DIALECTS:
        return False
    with opened(path) as stream:
        header = next(iter(_csv_rows(stream, str(path), _DIALECTS[plain_suffix(path)])), None)
    return header is not None and header.row[0] == ""


def table_lines(path: Path, opened: Callable[[Path], BinaryIO]) -> Iterator[bytes]:
    """The rows as lines of JSON, each with its line end, and blank lines where that keeps the numbers right.

    opened: opens a file, decompressed. Raises `InputError` where it cannot be read.
    """
    if (suffix := plain_suffix(path)) in _DIALECTS:
        with opened(path) as stream:
            yield from _csv_lines(stream, str(path), _DIALECTS[suffix])
        return
    if is_array(path):
        with opened(path) as stream:
            elements = array_elements(stream, str(path))
        yield from (element + b"\n" for element in elements)
        return
    for file in files_of(path):
        with _reading(file):
            for rows in _parquet(file) if file.suffix.lower() == ".parquet" else _arrow(file):
                for row in rows:
                    yield _line(row)


def table_rows(path: Path, opened: Callable[[Path], BinaryIO]) -> int | None:
    """How many rows there are; None where only reading all of them would tell. Raises `InputError`."""
    if is_array(path):
        with opened(path) as stream:
            return len(array_elements(stream, str(path)))
    files = [] if plain_suffix(path) in _DIALECTS else files_of(path)
    if not files or any(file.suffix.lower() != ".parquet" for file in files):
        return None
    rows = 0
    for file in files:
        with _reading(file):
            from pyarrow.parquet import read_metadata

            rows += int(read_metadata(file).num_rows)
    return rows


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong in pyarrow as an error that names the file."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{path}: takes pyarrow to be read: pip install 'lalign[parquet]'") from error
    except (OSError, ValueError, KeyError, NotImplementedError) as error:  # ArrowInvalid is a ValueError
        raise InputError(f"{path}: {first_line(error)}") from error


def _parquet(path: Path) -> Iterator[list[dict[str, Any]]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            yield batch.to_pylist()


def _arrow(path: Path) -> Iterator[list[dict[str, Any]]]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            batches: Iterable[Any] = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            reader = pyarrow.ipc.open_file(source)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS):
                yield batch.slice(start, _ROWS).to_pylist()


def files_of(path: Path) -> list[Path]:
    """The files of a data set's folder, in order, or the file itself. Raises `InputError` for one of several splits."""
    if not path.is_dir():
        return [path]
    with _reading(path):
        return _saved_files(path) if is_saved(path) else only_split(path)


def _saved_files(path: Path) -> list[Path]:
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_bytes())["splits"]
        raise InputError(f"{path}: holds the splits {', '.join(splits)}; name one: {path / splits[0]}")
    state = json.loads((path / "state.json").read_bytes())
    if state.get("_indices_data_files"):
        raise InputError(
            f"{path}: has its rows in another order than they are stored in; save it with a newer datasets"
        )
    return [path / file["filename"] for file in state["_data_files"]]


def _line(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, default=_as_json, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def _as_json(value: Any) -> Any:
    """What JSON has no word for: bytes as base64, all else (decimals, durations) as text."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


class _Row(NamedTuple):
    """A row of CSV: the lines of the file that it begins and ends at, and its values; none where it is blank."""

    first: int
    last: int
    row: list[str]


def _csv_rows(stream: BinaryIO, name: str, dialect: str) -> Iterator[_Row]:
    from lalign.records.source import MAX_LINE_BYTES

    csv.field_size_limit(MAX_LINE_BYTES)
    line = 1
    try:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, dialect, strict=True)
        for row in reader:
            yield _Row(line, reader.line_num, row)
            line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x}, here or further on)"
        ) from error
    except csv.Error as error:
        raise InputError(f"{name}:{line}: {error}") from error


def _csv_lines(stream: BinaryIO, name: str, dialect: str) -> Iterator[bytes]:
    header: list[str] | None = None
    for first, last, row in _csv_rows(stream, name, dialect):
        if not row:
            yield b"\n"
        elif header is None:
            header = _header(row, f"{name}:{first}")
            yield b"\n" * (last - first + 1)
        else:
            if len(row) != len(header):
                raise InputError(f"{name}:{first}: has {len(row)} values under {len(header)} columns")
            values = zip(header, row, strict=True)
            yield _line({column: _cell(column, value) for column, value in values if column and value != ""})
            yield b"\n" * (last - first)


def _header(names: list[str], where: str) -> list[str]:
    # pandas writes the numbers of its rows before all else, under no name.
    if names == [""] or "" in names[1:] or len({*names}) < len(names):
        raise InputError(f"{where}: must be a header in which each column, save the first, has a name of its own")
    return names


def _cell(column: str, value: str) -> Any:
    if column not in _NUMBERS:
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value  # for the record's own check to refuse
