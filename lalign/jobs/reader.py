"""From the lines of an input to the records that are to be run, with what an earlier run has answered checked first."""

from __future__ import annotations

import pickle
import queue
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lalign.errors import InputError
from lalign.jobs.answered import line_digest, summed
from lalign.jobs.header import InputMark
from lalign.jobs.resume import Resumed
from lalign.jobs.seen import Seen
from lalign.jobs.shard import WHOLE, Shard
from lalign.records.inputs import Inputs
from lalign.records.parsing import Record, parse_record
from lalign.records.reading import Reading
from lalign.records.source import RawLine, json_lines
from lalign.results import Failure

# Lines to be run that wait until the stretch they lie in is known to be unchanged: beyond this they wait on the disk.
_HELD_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class JobInput:
    """What is read: the path (None is stdin), whether objects are kept for the output, how many at the most, and of
    those which shard: the shards of an input answer together what one job without them answers.

    more: files that are read after it, as one input. reading: where in a record its prompt stands.
    """

    path: Path | None = None
    keep: bool = False
    limit: int | None = None
    strict: bool = False
    shard: Shard = WHOLE
    more: tuple[Path, ...] = ()
    reading: Reading = field(default_factory=Reading)

    @property
    def inputs(self) -> Inputs:
        """The files, to be opened."""
        return Inputs([path for path in (self.path, *self.more) if path is not None])

    @property
    def name(self) -> str:
        return self.inputs.name

    def total(self) -> int | None:
        """How many records there are to come, None where only reading would tell."""
        filled = self.inputs.filled()
        if filled is None:
            return None if self.limit is None else self.limit // self.shard.count
        return sum(map(self.shard.takes, islice(filled, self.limit)))


class Read(NamedTuple):
    """A line that was read: its number and digest, and its record where it is to be run and can be."""

    line: int
    digest: int
    record: Record | None = None


class Reader:
    """The records to run, in order; to be iterated once, in any thread.

    What an output answers already is read first, to its end, and compared; only then are the lines in it that are to
    be run given out, and what comes after. Memory does not grow with the input but by 8 bytes per id.

    Args:
        stream: the open input.
        source: how it is read.
        resumed: what stands.
        place: where a line of the input stands, for messages.

    Attributes:
        skipped: lines passed over, since their records stand.
        taken: lines of the shard so far, and `last_line` the number of the latest that was read, of whichever shard.
        duplicate: a message about the first id that was given before.
    """

    def __init__(
        self, stream: BinaryIO, source: JobInput, resumed: Resumed, place: Callable[[int], str] | None = None
    ) -> None:
        self.skipped = 0
        self.taken = 0
        self.last_line = 0
        self.duplicate: str | None = None
        self._stream = stream
        self._place = place or source.inputs.place
        self._source = source
        self._resumed = resumed
        self._count = 0
        self._ids = Seen()
        self._read: queue.SimpleQueue[Read] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Record | Failure]:
        """Raises `InputError` where reading fails, or where the input is not the one that the output answers."""
        for raw in self._to_run():
            record = parse_record(raw, keep=self._source.keep, reading=self._source.reading)
            self._note_duplicate(record)
            self._read.put(Read(raw.number, line_digest(raw), record if isinstance(record, Record) else None))
            yield record

    def take(self) -> list[Read]:
        """What was read since the last call; the one way by which another thread hears of it."""
        taken = []
        while not self._read.empty():
            taken.append(self._read.get())
        return taken

    def _to_run(self) -> Iterator[RawLine]:
        comparison = Comparison(self._resumed) if self._resumed.input is not None else None
        lines = self._lines(comparison.last if comparison is not None else 0)
        if comparison is not None:
            beyond = yield from self._checked(lines, comparison)
            lines = chain(beyond, lines)
        for raw in lines:
            if not self._within_limit():
                break
            if self._resumed.stands_whole(raw.number):
                self._pass_over(raw)
            else:
                yield raw

    def _lines(self, least: int) -> Iterator[RawLine]:
        """The lines of the shard, up to the limit, but all that are numbered up to `least`."""
        for raw in json_lines(self._stream, self._source.name):
            self._count += 1
            self.last_line = raw.number
            if self._source.shard.takes(raw.number):
                self.taken += 1
                yield raw
            # Not to be read on, as a pipe may yet have to give what comes after the limit.
            if raw.number >= least and self._source.limit is not None and self._count >= self._source.limit:
                return

    def _checked(self, lines: Iterator[RawLine], comparison: Comparison) -> Generator[RawLine, None, list[RawLine]]:
        """The lines to be run of the stretch that the output answers; returns the line after it, if there is one."""
        beyond: list[RawLine] = []
        passed: list[Read] = []
        with tempfile.SpooledTemporaryFile(_HELD_BYTES) as held:
            for raw in lines:
                if raw.number > comparison.last:
                    beyond.append(raw)
                    break
                comparison.compare(raw)
                if comparison.covered < raw.number <= self._resumed.last_line:
                    passed.append(Read(raw.number, line_digest(raw)))
                if self._within_limit() and not self._resumed.stands_whole(raw.number):
                    pickle.dump(raw, held)
                else:
                    self.skipped += 1
            comparison.end()
            for read in passed:
                self._read.put(read)
            size = held.tell()
            held.seek(0)
            while held.tell() < size:
                yield pickle.load(held)
        return beyond

    def _within_limit(self) -> bool:
        return self._source.limit is None or self._count <= self._source.limit

    def _pass_over(self, raw: RawLine) -> None:
        self.skipped += 1
        self._read.put(Read(raw.number, line_digest(raw)))

    def _note_duplicate(self, record: Record | Failure) -> None:
        if self.duplicate is not None or record.id == record.line:
            return
        mark = hash(repr(record.id))  # -1 and -2 have one hash
        if self._ids.add(mark):
            self.duplicate = f"{self._place(record.line)}: id {record.id!r} was given before; all are kept"
            self._ids.clear()


class Comparison:
    """The input, line by line, with what an output says of it.

    Args:
        unit: what lines are called in messages, in the plural.

    Attributes:
        covered: the digest tells of lines up to this number.
        last: the last line to be compared.
    """

    def __init__(self, resumed: Resumed, unit: str = "lines") -> None:
        self._unit = unit
        self._expected = resumed.input or InputMark()
        self.covered = self._expected.lines
        self.last = max(resumed.last_line, self.covered)
        self._answered = iter(resumed.lines)
        self._awaited = next(self._answered, None)
        self._failed = set(self._expected.failed)
        self._digest = 0
        self._seen = 0

    def compare(self, raw: RawLine) -> None:
        """The next line. Raises `InputError` where the output has other lines."""
        self._seen = raw.number
        if self._awaited is not None:
            if raw.number < self._awaited:
                raise InputError(f"line {raw.number} of the input has no record in the output, but later lines have")
            if raw.number > self._awaited:
                raise InputError(f"line {self._awaited} of the input, which the output answers, is blank")
            self._awaited = next(self._answered, None)
        if raw.number <= self.covered and raw.number not in self._failed:
            self._digest = summed(self._digest, line_digest(raw))

    def end(self) -> None:
        """No more lines. Raises `InputError` where there are too few, or they are not those that were answered."""
        if self._awaited is not None or self._seen < self.covered:
            raise InputError(f"the input has lost some of the {self.last} {self._unit} the output answers")
        if self._digest != self._expected.digest:
            raise InputError(f"the first {self.covered} {self._unit} of the input are not those the output answers")
