"""The outputs of the shards of a job as the one output that a job without shards would have written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lalign.errors import OutputError
from lalign.jobs.answered import summed
from lalign.jobs.header import End, Header, InputMark, beside, differences, ranges, read_header, write_header
from lalign.jobs.packed import SUFFIXES, check_packing, pack
from lalign.jobs.resume import Stored, check_group, read_records
from lalign.jobs.shard import WHOLE, Shard, parse_shard
from lalign.jobs.stream import faults

_BARE = (
    "no output has a header beside it (.run.json): whether all are of one job, and whether lines are missing at the "
    "end, cannot be known"
)
# Lines, settings or files that one message names.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Part:
    """An output to be merged, and the header beside it."""

    path: Path
    header: Header | None

    @property
    def shard(self) -> Shard:
        """What it answers, going by its header."""
        return parse_shard(self.header.fingerprint.get("shard")) if self.header is not None else WHOLE


class Merged(NamedTuple):
    """What was merged: records, input lines they answer, and what cannot be known of them."""

    records: int
    lines: int
    unknown: tuple[str, ...]


class _Group(NamedTuple):
    """The records of an input line in one of the outputs."""

    line: int
    path: Path
    records: list[Stored]


def merge_outputs(paths: Sequence[Path], output: Path) -> Merged:
    """Writes the records of all outputs into a new one, by the lines of the input; the output is whole or not there.

    Outputs are plain, `.gz` or `.zst`; the new one may be `.parquet` too. With headers beside the outputs, the new one
    gets the header of a job without shards, so that it can be resumed. Holds a record of each output in memory that has
    begun and not ended at a line; no other is open. Raises `OutputError` where the outputs are not all shards of one
    job, each whole, where one is damaged or Parquet, where two answer one line, and where the new output exists.
    """
    if columns := [path for path in paths if path.suffix.lower() == ".parquet"]:
        raise OutputError(
            f"{columns[0]}: a Parquet file cannot be merged, as its columns do not hold the lines as they were; write "
            "shards as .jsonl, .gz or .zst, and --output as .parquet"
        )
    check_packing(output, str(output))
    parts = [Part(path, read_header(path)) for path in paths]
    header = _joined(parts)
    unknown: tuple[str, ...] = (_BARE,) if header is None else ()
    with faults(str(output)):
        try:
            output.open("xb").close()
        except FileExistsError:
            raise OutputError(f"{output}: exists; nothing is written over it") from None
    aside, packed = beside(output, ".merge.tmp"), beside(output, ".pack.tmp")
    try:
        with faults(str(output)):
            with aside.open("wb") as file:
                records, gaps, lines = _write(parts, file)
                file.flush()
                os.fsync(file.fileno())
            if output.suffix.lower() in SUFFIXES:
                pack(aside, packed, output.suffix, str(output))
                os.replace(packed, aside)
            if header is not None:
                write_header(output, header)
            os.replace(aside, output)
    except BaseException:
        for path in (aside, packed, output, beside(output, ".run.json")):
            path.unlink(missing_ok=True)
        raise
    if gaps and header is None:
        told = ", ".join(_numbers(gap) for gap in gaps[:_NAMED]) + (", ..." if len(gaps) > _NAMED else "")
        unknown = (*unknown, f"lines in no output, blank in the input or not answered: {told}")
    return Merged(records, lines, unknown)


def _joined(parts: Sequence[Part]) -> Header | None:
    """The header of all parts as one job; None where none has one. Raises `OutputError` where they are no whole job."""
    headers = [part.header for part in parts if part.header is not None]
    if not headers:
        return None
    if bare := [part for part in parts if part.header is None]:
        raise OutputError(f"{bare[0].path}: has no header beside it (.run.json), and others have")
    first = _settings(headers[0])
    for part, header in zip(parts, headers, strict=True):
        if found := differences(_settings(header), first):
            raise OutputError(f"{part.path}: is not of the job of {parts[0].path} ({'; '.join(found[:_NAMED])})")
    _check_shards(parts)
    ends = []
    for part, header in zip(parts, headers, strict=True):
        if header.end is None:
            told = f"its job has answered lines up to {header.input.lines} and was not ended; --resume ends it"
            raise OutputError(f"{part.path}: is not complete: {told}")
        ends.append(header.end)
        if header.end.last_line != ends[0].last_line:
            raise OutputError(
                f"{part.path}: its input ended with line {header.end.last_line}, that of {parts[0].path} with line "
                f"{ends[0].last_line}; --resume answers what was added"
            )
    digest = 0
    for header in headers:
        digest = summed(digest, header.input.digest)
    failed = sorted(number for header in headers for number in header.input.failed)
    mark = InputMark(max(header.input.lines for header in headers), digest, failed)
    return Header(first, mark, End(ends[0].last_line, sum(end.lines for end in ends)))


def _settings(header: Header) -> Mapping[str, Any]:
    return {name: value for name, value in header.fingerprint.items() if name != "shard"}


def _check_shards(parts: Sequence[Part]) -> None:
    """Raises `OutputError` where a shard is missing or there twice."""
    counts = {part.shard.count for part in parts}
    if len(counts) > 1:
        shown = ", ".join(f"{part.path}: {part.shard}" for part in parts[:_NAMED])
        raise OutputError(f"the outputs are of inputs that were cut differently ({shown})")
    for part, others in ((part, parts[:place]) for place, part in enumerate(parts)):
        if same := [other for other in others if other.shard == part.shard]:
            raise OutputError(f"{part.path}: is shard {part.shard}, as {same[0].path} is")
    there = {part.shard.number for part in parts}
    (count,) = counts
    if missing := [number for number in range(1, count + 1) if number not in there]:
        raise OutputError(f"of {count} shards these are missing: {_numbers(missing)}")


def _write(parts: Sequence[Part], file: BinaryIO) -> tuple[int, list[range], int]:
    """Returns the number of records, the first gaps between the lines they answer, and the number of those.

    Raises `OutputError` for lines that several outputs have, each of the first of them named.
    """
    records = lines = last = 0
    gaps: list[range] = []
    doubled: list[str] = []
    for line, same in groupby(_in_order(parts), key=lambda group: group.line):
        first, *others = same
        if others:
            doubled.append(f"line {line} is in {' and '.join(str(group.path) for group in (first, *others))}")
            if len(doubled) == _NAMED:
                break
        if line > last + 1 and len(gaps) <= _NAMED:
            gaps.append(range(last + 1, line))
        last = line
        lines += 1
        records += len(first.records)
        file.writelines(record.raw for record in first.records)
    if doubled:
        more = " (and perhaps more)" if len(doubled) == _NAMED else ""
        raise OutputError(f"{'; '.join(doubled)}{more}")
    return records, gaps, lines


def _in_order(parts: Sequence[Part]) -> Iterator[_Group]:
    """The groups of all outputs in the order of their lines, those of one line in the order of the outputs.

    An output is opened when its first line is due: a cluster leaves more of them than a process may have open.
    """
    waiting = sorted(((_first_line(part), index) for index, part in enumerate(parts)), reverse=True)
    begun: list[tuple[int, int, _Group, Iterator[_Group]]] = []
    while waiting or begun:
        while waiting and (not begun or waiting[-1] <= begun[0][:2]):
            index = waiting.pop()[1]
            groups = _groups(parts[index])
            if (first := next(groups, None)) is not None:
                heappush(begun, (first.line, index, first, groups))
        if begun:
            _, index, group, groups = heappop(begun)
            yield group
            if (following := next(groups, None)) is not None:
                heappush(begun, (following.line, index, following, groups))


def _first_line(part: Part) -> int:
    """The input line that an output begins with, 0 where it has none."""
    with faults(str(part.path)), closing(read_records(part.path, str(part.path))) as records:
        first = next(records, None)
        return 0 if first is None else first.line


def _groups(part: Part) -> Iterator[_Group]:
    """The records of an output, those of an input line together. Raises `OutputError` where it is not whole."""
    name, header = str(part.path), part.header
    points = _points(header.fingerprint) if header is not None else None
    lines = 0
    with faults(name):
        for line, records in groupby(read_records(part.path, name, whole=True), key=lambda record: record.line):
            group = list(records)
            if points is not None:
                check_group(group, name, points)
            if not part.shard.takes(line):
                raise OutputError(f"{name}: line {line} is not of shard {part.shard}")
            if points is not None and group[0].of_point and len(group) < points:
                raise OutputError(f"{name}: has {len(group)} of the {points} records of line {line}")
            lines += 1
            yield _Group(line, part.path, group)
    if header is not None and header.end is not None and lines != header.end.lines:
        raise OutputError(f"{name}: answers {lines} lines, and {header.end.lines} when its job ended")


def _points(fingerprint: Mapping[str, Any]) -> int:
    """How many records an input line has, where it is not refused as a whole."""
    return len(fingerprint.get("points", ("the one",))) * int(fingerprint.get("samples", 1))


def _numbers(numbers: Iterable[int]) -> str:
    """Numbers in order as ranges, the first of them where there are many: `1, 3-5`."""
    found = ranges(numbers)
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in found[:_NAMED]]
    return ", ".join(shown) + (", ..." if len(found) > _NAMED else "")
