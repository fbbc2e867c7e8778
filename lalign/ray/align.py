"""A worker: one engine in an actor, answering the blocks of lines that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lalign.aligner import Aligner
from lalign.backends import open_backend
from lalign.jobs.fingerprint import fingerprint
from lalign.models.loading import ModelOptions
from lalign.options import Execution
from lalign.records.notices import is_continued
from lalign.records.parsing import Record, parse_record
from lalign.records.reading import Reading
from lalign.records.requests import Settings
from lalign.records.source import RawLine
from lalign.results import Failure, to_line

ANSWERED = pa.schema(
    [
        ("line", pa.int64()),
        ("records", pa.list_(pa.binary())),
        ("failures", pa.int64()),
        ("tokens", pa.int64()),
        ("ignored", pa.list_(pa.string())),
        ("read_from", pa.string()),
        ("continued", pa.bool_()),
    ]
)


class Align:
    """Answers blocks of numbered lines, for `Dataset.map_batches(Align, batch_format="pyarrow", ...)`.

    A block has the columns `line` (the number of the line in the whole input, from 1) and `data` (the line: a JSON
    object as bytes or text; null for one that was too long to be read). It becomes a block of `line`, `records` (the
    lines of JSON that the line is answered with, with their newlines: one, or one a sample), `failures` and `tokens`
    (counts), in the same order; beside them what `lalign.records.notices` tells of a line: `ignored`, the field that
    its prompt was `read_from`, and whether the response goes on from an assistant's turn (`continued`). A record's
    response depends on its line, not on its block, nor on who answers it.

    Args:
        model: loaded when the actor starts. Raises `ModelError`, `OptionError`.
        settings, system, execution: as in `Aligner.ticks`.
        engine: what runs the model, with `engine_options`; reading: where in a record its prompt stands.
        keep: whether input objects go into the records.
    """

    def __init__(
        self,
        model: ModelOptions,
        settings: Settings,
        *,
        engine: str = "torch",
        engine_options: Mapping[str, str] | None = None,
        reading: Reading | None = None,
        system: str | None = None,
        execution: Execution | None = None,
        keep: bool = False,
    ) -> None:
        self.aligner = Aligner(open_backend(model, engine, engine_options))
        self.settings = settings
        self.reading = reading or Reading()
        self.system = system
        self.execution = execution or Execution()
        self.keep = keep

    def fingerprint(self) -> dict[str, Any]:
        """What all records depend on; see `lalign.jobs.fingerprint`."""
        statistics = self.execution.statistics
        return fingerprint(
            self.aligner, self.settings, self.reading, self.system, statistics=statistics, keep=self.keep
        )

    def __call__(self, block: pa.Table) -> pa.Table:
        """Answer a block; see the class."""
        numbers: Sequence[int] = block["line"].to_pylist()
        lines = [_raw(number, data) for number, data in zip(numbers, block["data"].to_pylist(), strict=True)]
        records: dict[int, list[bytes]] = {number: [] for number in numbers}
        failures, tokens = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
        read: dict[int, Record] = {}
        parsed, more = self._parsed(lines, read), self.reading.told()
        for outcomes in self.aligner.ticks(parsed, self.settings, system=self.system, execution=self.execution):
            for outcome in outcomes:
                records[outcome.line].append(to_line(outcome, more))
                if isinstance(outcome, Failure):
                    failures[outcome.line] += 1
                else:
                    tokens[outcome.line] += outcome.usage.completion_tokens
        found = [read.get(number) for number in numbers]
        columns = [
            *(numbers, list(records.values()), list(failures.values()), list(tokens.values())),
            [[] if record is None else list(record.ignored) for record in found],
            [None if record is None else record.read_from for record in found],
            [record is not None and is_continued(record) for record in found],
        ]
        return pa.table(
            [pa.array(column, kind) for column, kind in zip(columns, ANSWERED.types, strict=True)], ANSWERED
        )

    def _parsed(self, lines: Iterable[RawLine], read: dict[int, Record]) -> Iterator[Record | Failure]:
        """The records of lines; those that can be used are put into `read`."""
        for line in lines:
            record = parse_record(line, keep=self.keep, reading=self.reading)
            if isinstance(record, Record):
                read[line.number] = record
            yield record


def _raw(number: int, data: bytes | str | None) -> RawLine:
    if data is None:
        return RawLine(number, b"", too_long=True)
    return RawLine(number, data.encode() if isinstance(data, str) else data)
