"""What an earlier run left in an output: which records stand, and how redone ones are put over them."""

from __future__ import annotations

import io
import os
import shutil
from array import array
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

import orjson

from lalign.errors import OutputError
from lalign.jobs.answered import holds
from lalign.jobs.header import InputMark, beside
from lalign.jobs.locking import hold
from lalign.jobs.shapes import marks
from lalign.records.source import READ_ERRORS, decompressed, read_error

_SEAL_BYTES = 65


def _none() -> array[int]:
    return array("q")


@dataclass(frozen=True, slots=True)
class Resumed:
    """What stands of an earlier run. Input lines are told by their number, the `line` of a record.

    Holds 8 bytes per line of the output.

    Attributes:
        records: how many records stand, and `failures` how many of them are errors.
        lines: the input lines that the output answers in full, in order; `failed` those among them without a response,
            `redo` those that are to be answered anew.
        partial: an input line after those of which some records are there, 0 for none; `partial_records` how many,
            `partial_responses` how many of them are no errors.
        input: what the input must be like; None where anything goes.
    """

    records: int = 0
    failures: int = 0
    lines: array[int] = field(default_factory=_none)
    failed: array[int] = field(default_factory=_none)
    redo: array[int] = field(default_factory=_none)
    partial: int = 0
    partial_records: int = 0
    partial_responses: int = 0
    input: InputMark | None = None

    @property
    def last_line(self) -> int:
        """The last input line that is answered in full, 0 for none."""
        return self.lines[-1] if self.lines else 0

    @property
    def standing(self) -> int:
        """How many input lines need not be run."""
        return len(self.lines) - len(self.redo)

    def redoes(self, line: int) -> bool:
        """True where the output answers this input line, but with an error that is to be redone."""
        return holds(self.redo, line)

    def has_failed(self, line: int) -> bool:
        """True where the output has nothing but errors for this input line."""
        return holds(self.failed, line)

    def stands_whole(self, line: int) -> bool:
        """True where all records of this input line are there already and stay."""
        return line <= self.last_line and not self.redoes(line)

    def stands(self, line: int, item: int = 0) -> bool:
        """True where the `item`-th record, from 0, of this input line is there already and stays."""
        return self.stands_whole(line) or (line == self.partial and item < self.partial_records)


class Stored(NamedTuple):
    """A record as it is stored: its bytes, the offset where they end, the input line, and whether it is an error.

    of_point: False for the error of a whole line.
    """

    raw: bytes
    end: int
    line: int
    failed: bool
    of_point: bool


class Redone(NamedTuple):
    """All records of an input line that was answered anew, the line's digest, and whether there is no response."""

    line: int
    digest: int
    failed: bool
    raw: bytes


def read_records(output: Path, name: str, *, whole: bool = False) -> Generator[Stored, None, None]:
    """The whole records of an output, which may be compressed, one at a time, without a torn last line.

    Torn is a last line with no newline or that is no JSON. Raises `OutputError` with the number of any other line that
    is no record, or whose input line is before that of its predecessor, and with `whole` for a torn one; also where a
    compressed file is damaged. The file is called `name` there.
    """
    end = previous = 0
    with decompressed(output) as file:
        for number, raw in enumerate(_lines(file, name), 1):
            end += len(raw)
            try:
                record = orjson.loads(raw)
                torn = not raw.endswith(b"\n")
            except ValueError:
                record = None
                torn = not file.peek(1)
            if torn and whole:
                raise OutputError(f"{name}: ends in a record that was cut short; --resume answers it")
            if torn:
                return
            line, failed, of_point = marks(record)
            if not isinstance(line, int) or line < max(previous, 1):
                raise OutputError(f"{name}: line {number} is not a record that follows the one before")
            previous = line
            yield Stored(raw, end, line, failed, of_point)


def _lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        yield from file
    except READ_ERRORS as error:
        raise OutputError(f"{name}: {read_error(error)}") from error


def scan(output: Path, name: str, *, retry_errors: bool, points: int | None = 1) -> tuple[Resumed, int]:
    """What stands in an output, and the offset in bytes where its last whole record ends.

    With `retry_errors`, an input line with an error record among its records is to be redone whole. An input line has
    `points` records, or one error; None stands for any number. Raises as `read_records`, and where an input line has
    more or fewer records, or the same twice; only the last may lack some.
    """
    lines, failed, redo = _none(), _none(), _none()
    records = failures = end = 0
    short: list[Stored] = []
    for line, grouped in groupby(read_records(output, name), key=lambda record: record.line):
        group = list(grouped)
        if short:
            raise OutputError(f"{name}: has {len(short)} of the {points} records of line {short[0].line}")
        if points is not None:
            check_group(group, name, points)
        errors = sum(record.failed for record in group)
        end = group[-1].end
        redone = bool(errors and retry_errors)
        if group[0].of_point and len(group) < (points or 0) and not redone:
            short = group
        else:
            lines.append(line)
            if errors == len(group):
                failed.append(line)
        if redone:
            redo.append(line)
            continue
        records += len(group)
        failures += errors
    partial = short[0].line if short else 0
    responses = sum(not record.failed for record in short)
    return Resumed(records, failures, lines, failed, redo, partial, len(short), responses), end


def check_group(group: list[Stored], name: str, points: int) -> None:
    """Raises `OutputError` where an input line has more records than `points`, or one twice."""
    line = group[0].line
    most = points if all(record.of_point for record in group) else 1
    if len(group) > most:
        raise OutputError(f"{name}: has {len(group)} records of line {line} where {most} belong")
    if len({record.raw for record in group}) < len(group):
        raise OutputError(f"{name}: has a record of line {line} twice")


def redone_path(output: Path) -> Path:
    """Where the redone records of `output` wait: per input line its records, then a seal.

    While the file grows the output itself is not touched, so at every moment either the old or the new records of a
    line are on disk. Records without a seal were cut short and do not count.
    """
    return beside(output, ".retry")


def seal(digest: int) -> bytes:
    """The line that ends the redone records of an input line: the digest of what they answer."""
    return b"%064x\n" % digest


def merge_redone(output: Path, name: str, may_replace: Callable[[], None]) -> tuple[list[Redone], io.FileIO]:
    """Puts the waiting redone records in the place of those they redo, in one step.

    Returns what was put there, without its records, and the merged output, held and open to be appended to. The
    waiting file stays, to be removed once the header knows; killed half-way this can be called again, to the same end.
    `may_replace` is called last before the output is replaced, and may raise. Raises `OSError`, and `OutputError` as
    `read_records`.
    """
    aside = beside(output, ".retry.tmp")
    aside.unlink(missing_ok=True)
    stream = io.FileIO(aside, "a")
    done: list[Redone] = []
    try:
        with redone_path(output).open("rb") as waiting, open(os.dup(stream.fileno()), "ab") as merged:
            merged.writelines(_merged(read_records(output, name), _sealed(waiting), done))
            merged.flush()
            os.fsync(merged.fileno())
        hold(stream, name)
        shutil.copymode(output, aside)
        may_replace()
        os.replace(aside, output)
    except BaseException:
        stream.close()
        aside.unlink(missing_ok=True)
        raise
    return done, stream


def _merged(records: Iterator[Stored], redone: Iterator[Redone], done: list[Redone]) -> Iterator[bytes]:
    new = next(redone, None)
    replaced = None
    for record in records:
        while new is not None and new.line <= record.line:
            if new.line == record.line:
                yield new.raw
                replaced = new.line
                done.append(new._replace(raw=b""))
            new = next(redone, None)
        if record.line != replaced:
            yield record.raw


def _sealed(waiting: IO[bytes]) -> Iterator[Redone]:
    group: list[bytes] = []
    for raw in waiting:
        if raw.startswith(b"{"):
            group.append(raw)
            continue
        try:
            records = [marks(orjson.loads(record)) for record in group]
            if not isinstance(records[0].line, int):
                raise ValueError("no record")
            redone = Redone(records[0].line, _digest(raw), all(record.failed for record in records), b"".join(group))
        except (ValueError, LookupError, TypeError):  # what a power failure left: the old records stand
            return
        yield redone
        group = []


def _digest(raw: bytes) -> int:
    if len(raw) != _SEAL_BYTES:
        raise ValueError("a seal that was cut short")
    return int(raw, 16)
