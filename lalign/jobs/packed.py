"""Outputs that are no plain lines: `.gz`, `.zst` and `.parquet`, made in one step when the job is done.

Until then the records stand in `out.jsonl.gz.part`, a plain journal, so that a job may be killed and resumed at any
moment as any other. A finished `.gz` or `.zst` can be resumed too (for a longer input, or `--retry-errors`): it is
unpacked for that. A finished `.parquet` cannot, as its columns do not hold the lines as they were.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from lalign.errors import OutputError, first_line
from lalign.jobs.header import beside
from lalign.jobs.journal import Journal
from lalign.jobs.locking import PathLock
from lalign.jobs.paths import check_replaceable
from lalign.jobs.resume import Resumed
from lalign.jobs.stream import faults
from lalign.records.json_line import exact_json
from lalign.records.source import READ_ERRORS, decompressed, zstd

PART = ".part"
SUFFIXES = (".gz", ".zst", ".parquet")
_HEADER = ".run.json"
_ROWS = 256
# What may be an integer beyond 64 bits, which orjson reads as a float.
_MANY_DIGITS = re.compile(rb"\d{19}")


class Packed:
    """A journal of plain lines beside `path`, and `path` itself once all of the input has been answered.

    Takes what `Journal` takes, and raises as it does; also `OutputError` where `path` stands already and is not to be
    replaced, or cannot be resumed.
    """

    def __init__(self, path: Path, *, overwrite: bool, resume: bool | None, **options: Any) -> None:
        self._path = Path(os.path.realpath(path))
        self._name = str(path)
        self._part = beside(self._path, PART)
        self._finished = False
        check_packing(self._path, self._name)
        self._lock = PathLock(self._path, self._name)
        try:
            if self._path.exists():
                check_replaceable(self._name, overwrite=overwrite, resume=resume)
            if resume and self._path.exists() and not self._part.exists():
                self._unpack()
            self._journal = Journal(self._part, overwrite=overwrite, resume=resume, **options)
        except BaseException:
            self._lock.release()
            raise

    def start(self, fingerprint: Mapping[str, Any], points: int = 1) -> Resumed:
        """As `Output.start`."""
        return self._journal.start(fingerprint, points)

    def mark(self, line: int, digest: int) -> None:
        """As `Output.mark`."""
        self._journal.mark(line, digest)

    def write(self, record: bytes, *, line: int, last: bool = True, failed: bool = False) -> None:
        """As `Output.write`."""
        self._journal.write(record, line=line, last=last, failed=failed)

    def finish(self, last_line: int, lines: int) -> None:
        """As `Output.finish`: what is there when it is left is packed."""
        self._finished = True
        self._journal.finish(last_line, lines)

    def sync(self) -> None:
        """As `Output.sync`, of the lines beside it."""
        self._journal.sync()

    def __enter__(self) -> Packed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._journal.__exit__(kind, error, trace)
            if error is None and self._finished:
                with faults(self._name):
                    self._pack()
        finally:
            self._lock.release()

    def _pack(self) -> None:
        """Write the output aside, put it in its place, and remove the lines: at each moment one of them is whole."""
        aside = _aside(self._path)
        try:
            pack(self._part, aside, self._path.suffix, self._name)
            shutil.copymode(self._part, aside)
            os.replace(aside, self._path)
        finally:
            aside.unlink(missing_ok=True)
        os.replace(beside(self._part, _HEADER), beside(self._path, _HEADER))
        self._part.unlink()

    def _unpack(self) -> None:
        if self._path.suffix.lower() == ".parquet":
            raise OutputError(f"{self._name}: is done, and a Parquet file cannot be continued; --overwrite replaces it")
        aside = _aside(self._part)
        try:
            with decompressed(self._path) as packed, aside.open("wb") as lines:
                shutil.copyfileobj(packed, lines)
            _synced(aside)
            with suppress(FileNotFoundError):
                shutil.copyfile(beside(self._path, _HEADER), beside(self._part, _HEADER))
            os.replace(aside, self._part)
        except READ_ERRORS as error:
            raise OutputError(f"{self._name}: {first_line(error)}") from error
        finally:
            aside.unlink(missing_ok=True)


def check_packing(path: Path, name: str) -> None:
    """Raises `OutputError` where an output of this name, called `name` there, cannot be packed."""
    if path.suffix.lower() == ".parquet":
        _check_pyarrow(name)


def pack(lines: Path, packed: Path, suffix: str, name: str) -> None:
    """Writes the records of a plain output as those of one with this suffix, of `SUFFIXES`, onto the disk.

    Raises `OSError`, and `OutputError`, in which the output is called `name`, for records that are no rows.
    """
    {".gz": _gzip, ".zst": _zstd, ".parquet": _parquet}[suffix.lower()](lines, packed, name)
    _synced(packed)


def _aside(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    return Path(name)


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _gzip(lines: Path, packed: Path, name: str) -> None:
    # Without the time, so that the same records are the same file.
    with lines.open("rb") as source, packed.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
        shutil.copyfileobj(source, file)


def _zstd(lines: Path, packed: Path, name: str) -> None:
    with lines.open("rb") as source, zstd.open(packed, "wb") as file:
        shutil.copyfileobj(source, file)


def _check_pyarrow(name: str) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise OutputError(f"{name}: takes pyarrow to be written: pip install 'lalign[parquet]'") from error


def _parquet(lines: Path, packed: Path, name: str) -> None:
    """Records as rows. Their columns are found first, since an error record has others than a response."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    try:
        schema = pyarrow.schema([])
        for rows in _batches(lines, id_as_text=False):
            schema = _unified(schema, rows)
        id_as_text = False
    except pyarrow.ArrowException:  # ids of several kinds
        id_as_text = True
        try:
            schema = pyarrow.schema([])
            for rows in _batches(lines, id_as_text=True):
                schema = _unified(schema, rows)
        except pyarrow.ArrowException as error:
            raise OutputError(f"{name}: {first_line(error)}; the records stand in {lines}") from error
    with ParquetWriter(packed, schema) as writer:
        for rows in _batches(lines, id_as_text=id_as_text):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _unified(schema: Any, rows: list[dict[str, Any]]) -> Any:
    import pyarrow

    keys = dict.fromkeys(key for row in rows for key in row)  # from_pylist looks at the first row alone
    found = pyarrow.Table.from_pylist([{**dict.fromkeys(keys), **row} for row in rows]).schema
    return pyarrow.unify_schemas([schema, found], promote_options="permissive")


def _batches(lines: Path, *, id_as_text: bool) -> Iterator[list[dict[str, Any]]]:
    with lines.open("rb") as file:
        while rows := [_row(_record(line), id_as_text) for line in islice(file, _ROWS)]:
            yield rows


def _record(line: bytes) -> dict[str, Any]:
    """A record, whose input objects have every digit of their integers."""
    record: dict[str, Any] = orjson.loads(line)
    if _MANY_DIGITS.search(line):
        exact = exact_json(line.decode())
        for holder, same in ((record, exact), (record.get("lalign"), exact.get("lalign"))):
            if isinstance(holder, dict) and "input" in holder:
                holder["input"] = same["input"]
    return record


def _row(record: dict[str, Any], id_as_text: bool) -> dict[str, Any]:
    """A record as columns: an input object, which may have any keys, as JSON; an infinite p as a number."""
    row = {**record, "id": str(record["id"]) if id_as_text else record["id"]} if "id" in record else {**record}
    for holder in (row, row.get("lalign")):
        if not isinstance(holder, dict):
            continue
        if "input" in holder:
            holder["input"] = orjson.dumps(holder["input"]).decode()
        if isinstance(align := holder.get("alignment"), dict):
            known = {key: math.inf if value == "inf" else value for key, value in align.items() if value != {}}
            holder["alignment"] = known
    return row
