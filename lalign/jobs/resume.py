"""What an earlier run left in an output: which records stand, and how redone ones are put over them."""

from __future__ import annotations

import os
import shutil
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

import orjson

from lalign.errors import OutputError
from lalign.jobs.header import beside

SEAL = b"\n"
_NONE = (sys.maxsize, b"")


@dataclass(frozen=True, slots=True)
class Resumed:
    """What stands of an earlier run. Input lines are told by their number, the `line` of a record.

    `records` counts the records that stand, `failures` the error records among them. The output reaches into input
    line `last_line`, of which it holds `last_records` records. `redo` has, in order, the input lines up to there whose
    records do not stand. Holds 8 bytes per line to redo, however long the output.
    """

    records: int = 0
    failures: int = 0
    last_line: int = 0
    last_records: int = 0
    redo: Sequence[int] = ()

    def redoes(self, line: int) -> bool:
        """True where the output answers this input line, but with an error that is to be redone."""
        index = bisect_left(self.redo, line)
        return index < len(self.redo) and self.redo[index] == line

    def stands(self, line: int, item: int = 0) -> bool:
        """True where the `item`-th record, from 0, of this input line is there already and stays."""
        if self.redoes(line):
            return False
        return line < self.last_line or (line == self.last_line and item < self.last_records)


class Record(NamedTuple):
    """A record of an output: its bytes, the offset where they end, the input line, and whether it is an error."""

    raw: bytes
    end: int
    line: int
    failed: bool


def read_records(output: Path, name: str) -> Iterator[Record]:
    """The whole records of an output, one at a time, without a torn last line.

    Torn is a last line with no newline or that is no JSON. Raises `OutputError` with the number of any other line that
    is no record, or whose input line is before that of its predecessor; the file is called `name` there.
    """
    end = previous = 0
    with output.open("rb") as file:
        for number, raw in enumerate(file, 1):
            end += len(raw)
            try:
                record = orjson.loads(raw)
            except ValueError:
                record = None
                if not file.peek(1):
                    return
            if not raw.endswith(b"\n"):
                return
            line = record.get("line") if isinstance(record, dict) else None
            if not isinstance(line, int) or line < previous:
                raise OutputError(f"{name}: line {number} is not a record that follows the one before")
            previous = line
            yield Record(raw, end, line, "error" in record)


def scan(output: Path, name: str, *, retry_errors: bool) -> tuple[Resumed, int]:
    """What stands in an output, and the offset in bytes where its last whole record ends.

    With `retry_errors`, an input line with an error record among its records is to be redone whole. Raises as
    `read_records`.
    """
    redo = array("q")
    records = failures = last_line = last_records = end = 0
    for line, group in groupby(read_records(output, name), key=lambda record: record.line):
        last_line, last_records, errors = line, 0, 0
        for record in group:
            last_records += 1
            errors += record.failed
            end = record.end
        if errors and retry_errors:
            redo.append(line)
        else:
            records += last_records
            failures += errors
    return Resumed(records, failures, last_line, last_records, redo), end


def redone_path(output: Path) -> Path:
    """Where the redone records of `output` wait: per input line its records, then an empty line as its seal.

    While the file grows the output itself is not touched, so at every moment either the old or the new records of a
    line are on disk. Records without a seal were cut short and do not count.
    """
    return beside(output, ".retry")


def merge_redone(output: Path, name: str) -> None:
    """Puts the waiting redone records in the place of those they redo, in one step; does nothing where none wait.

    Killed half-way it can be called again, to the same end. Raises `OSError`, and `OutputError` as `read_records`.
    """
    waiting = redone_path(output)
    if not waiting.exists():
        return
    aside = beside(output, ".retry.tmp")
    try:
        with waiting.open("rb") as redone, aside.open("wb") as merged:
            merged.writelines(_merged(read_records(output, name), _sealed(redone)))
            merged.flush()
            os.fsync(merged.fileno())
        shutil.copymode(output, aside)
        os.replace(aside, output)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    waiting.unlink()


def _merged(records: Iterator[Record], redone: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    line, group = next(redone, _NONE)
    replaced = None
    for record in records:
        while line <= record.line:  # each redone line is among the records, so the last of them ends here too
            yield group
            replaced = line
            line, group = next(redone, _NONE)
        if record.line != replaced:
            yield record.raw


def _sealed(redone: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    group: list[bytes] = []
    for raw in redone:
        if raw == SEAL:
            try:
                line = orjson.loads(group[0])["line"]
            except (ValueError, LookupError, TypeError):  # what a power failure left: the old records stand
                return
            yield line, b"".join(group)
            group = []
        else:
            group.append(raw)
