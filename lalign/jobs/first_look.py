"""A look at the input before the model is loaded: whether any record of it can be answered as the job is set up."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, cast

from lalign.errors import OptionError
from lalign.jobs.reader import JobInput
from lalign.records.inputs import Inputs, streamed
from lalign.records.parsing import parse_record
from lalign.records.requests import Settings, lacks_principle
from lalign.records.source import RawLine, json_lines
from lalign.results import Failure

_BLOCK_BYTES = 1 << 16


def refuse_hopeless(source: JobInput, settings: Settings, inputs: Inputs, stream: BinaryIO) -> BinaryIO:
    """Raise `OptionError` where every record would fail for want of a principle, or of a field that an option names.

    Files are read from their start, no further than to the first record that does not fail so. Of a stream that
    cannot be read twice the first record tells; it is given back in front of what is returned.
    """
    if settings.principles.texts and not settings.principles.by_record and not source.reading.names_fields:
        return stream
    if inputs.read_once:
        seen: list[bytes] = []
        problem = _problem(
            json_lines(cast(BinaryIO, _Recorded(stream, seen)), source.name), source, settings, first=True
        )
        stream = streamed(_behind(seen, stream))
    else:
        with source.inputs.open() as lines:
            problem = _problem(islice(json_lines(lines, source.name), source.limit), source, settings, first=False)
    if problem is not None:
        raise problem
    return stream


def _problem(lines: Iterator[RawLine], source: JobInput, settings: Settings, *, first: bool) -> OptionError | None:
    found: OptionError | None = None
    for raw in lines:
        record = parse_record(raw, reading=source.reading)
        if isinstance(record, Failure):
            if record.type != "missing_field":
                continue
            option, _, problem = record.message.partition(": ")
            found = found or OptionError(option, problem)
        elif lacks_principle(record, settings):
            found = found or OptionError(
                "principle",
                f"neither the job nor {'the first' if first else 'any'} record of {source.name} gives one: "
                "--principle FILE or --principle-text TEXT",
            )
        else:
            return None
        if first:
            break
    return found


class _Recorded(io.RawIOBase):
    """A stream that keeps what was read of it."""

    def __init__(self, stream: BinaryIO, seen: list[bytes]) -> None:
        self._stream = stream
        self._seen = seen
        self.peek = getattr(stream, "peek", None)

    def readline(self, size: int | None = -1, /) -> bytes:
        """As that of the stream."""
        line = self._stream.readline(-1 if size is None else size)
        self._seen.append(line)
        return line


def _behind(seen: list[bytes], stream: BinaryIO) -> Iterator[bytes]:
    yield from seen
    while block := cast(io.BufferedReader, stream).read1(_BLOCK_BYTES):
        yield block
