"""A batch job: lines of a file in, records out, whatever happens on the way (design sections 4 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, get_args

from lalign import validation
from lalign.aligner import Aligner
from lalign.errors import OptionError
from lalign.jobs.fingerprint import fingerprint
from lalign.jobs.first_look import refuse_hopeless
from lalign.jobs.output import Output
from lalign.jobs.reader import JobInput, Reader
from lalign.jobs.resume import Resumed
from lalign.jobs.shapes import OutputFormat, shaped
from lalign.jobs.shard import WHOLE
from lalign.jobs.signals import Interruption
from lalign.jobs.tally import Tally
from lalign.jobs.writer import Writer
from lalign.options import Execution, Statistics
from lalign.records.parsing import Record
from lalign.records.requests import Settings
from lalign.results import Failure, Result


def _ignore(_: Any) -> None:
    """For a caller who wants to know of nothing."""


class Job:
    """One run of `generate` or `sweep` over a file.

    Args:
        source: what is read.
        settings: of every record; `system` and `execution` likewise.
        output: opened already.
        written: the statistics that records are written with, where that is less than `execution` computes.
        form: the shape of the lines that are written.

    Attributes:
        tally: what it has done so far.
        resumed: what stood in the output when it started.
    """

    def __init__(
        self,
        source: JobInput,
        settings: Settings,
        output: Output,
        *,
        system: str | None = None,
        execution: Execution | None = None,
        written: Statistics | None = None,
        form: OutputFormat = "jsonl",
    ) -> None:
        self.source = source
        self.settings = settings
        self.output = output
        self.system = system
        self.execution = execution or Execution()
        self.written = written or self.execution.statistics
        validation.choice("output_format", form, get_args(OutputFormat))
        if form != "jsonl" and (settings.sweep or settings.samples > 1):
            raise OptionError("output_format", f"{form} holds one response of a record, and here are several")
        self.form = form
        self.tally = Tally()
        self.resumed = Resumed()
        self.inputs = source.inputs
        self.stream = refuse_hopeless(source, settings, self.inputs, self.inputs.open())

    def fingerprint(self, aligner: Aligner) -> dict[str, Any]:
        """Everything that a response depends on, for a resumed run to compare: flat, JSON values."""
        source = self.source
        marks = fingerprint(
            aligner, self.settings, source.reading, self.system, statistics=self.written, keep=source.keep
        )
        marks |= {} if self.form == "jsonl" else {"output_format": self.form}
        return marks if source.shard == WHOLE else marks | {"shard": str(source.shard)}

    def start(self, aligner: Aligner) -> None:
        """Begin the output, or go on with it. Raises `OutputError` where it belongs to a run of other settings."""
        self.resumed = self.output.start(self.fingerprint(aligner), self.settings.points)

    def remaining(self) -> int | None:
        """How many responses are left to write; None where only reading would tell."""
        total, stand = self.source.total(), self.resumed
        if total is None:
            return None
        return max(0, (total - stand.standing) * self.settings.points - stand.partial_records)

    def run(
        self,
        aligner: Aligner,
        interruption: Interruption,
        *,
        on_records: Callable[[Sequence[Record]], None] = _ignore,
        on_outcomes: Callable[[Sequence[Result | Failure]], None] = _ignore,
    ) -> None:
        """Answer every line, after `start`.

        `on_records` is called with the records that were read, and then `on_outcomes` with what was written, after
        each step, in this thread. Raises `OutputError` or `InputError` where writing or reading fails or the input is
        not the one that a resumed output answers, `BadLine` with `strict`; what came before is written. Returns early,
        in good order, on an interruption.
        """
        reader = Reader(self.stream, self.source, self.resumed, self.inputs.place)
        writer = Writer(
            self.output,
            self.resumed,
            self.written,
            strict=self.source.strict,
            place=self.inputs.place,
            shape=partial(shaped, form=self.form, model=aligner.backend.name, more=self.source.reading.told()),
        )
        before = aligner.counters
        ticks = aligner.ticks(reader, self.settings, system=self.system, execution=self.execution)
        try:
            # Once more when all has been read, for lines after the last that was run.
            for outcomes in chain(ticks, [[]]):
                read = reader.take()
                writer.note(read)
                records = [line.record for line in read if line.record is not None]
                on_records(records)
                written = writer.write(outcomes)
                self._count(records, written, reader)
                if aligner.counters is not before:  # which are of an earlier call
                    self.tally.batch_halvings = aligner.counters.batch_halvings
                    self.tally.pairs_parted = aligner.counters.pairs_parted
                on_outcomes(written)
                if interruption:
                    break
            else:
                self.output.finish(reader.last_line, reader.taken)
        finally:
            ticks.close()
        self.output.sync()

    def _count(self, records: Sequence[Record], written: Sequence[Result | Failure], reader: Reader) -> None:
        for record in records:
            self.tally.notices.count(record)
        for outcome in written:
            self.tally.count(outcome)
        self.tally.skipped = reader.skipped
        self.tally.duplicate = reader.duplicate
